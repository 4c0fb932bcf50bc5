package ipam

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func prefixes(cidrs ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(cidrs))
	for i, c := range cidrs {
		out[i] = netip.MustParsePrefix(c)
	}
	return out
}

func TestNextBlockIsTheLowestThatOverlapsNothing(t *testing.T) {
	cases := map[string]struct {
		r     Range
		taken []netip.Prefix
		want  string
	}{
		"first of an empty range":         {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, nil, "10.244.0.0/24"},
		"after those in a row":            {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, prefixes("10.244.0.0/24", "10.244.1.0/24"), "10.244.2.0/24"},
		"into a gap":                      {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, prefixes("10.244.0.0/24", "10.244.2.0/24"), "10.244.1.0/24"},
		"past a smaller one by hand":      {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, prefixes("10.244.0.128/25"), "10.244.1.0/24"},
		"past a larger one by hand":       {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, prefixes("10.244.0.0/22"), "10.244.4.0/24"},
		"exhausted by halves":             {Range{netip.MustParsePrefix("10.244.0.0/23"), 24}, prefixes("10.244.0.1/32", "10.244.1.0/25"), ""},
		"exhausted by one that is larger": {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, prefixes("10.0.0.0/8"), ""},
		"others' ranges do not matter":    {Range{netip.MustParsePrefix("10.244.0.0/16"), 24}, prefixes("10.245.0.0/24", "fd00::/8"), "10.244.0.0/24"},
		"a range of one block":            {Range{netip.MustParsePrefix("10.244.7.0/24"), 24}, nil, "10.244.7.0/24"},
		"a range of one block, taken":     {Range{netip.MustParsePrefix("10.244.7.0/24"), 24}, prefixes("10.244.7.0/24"), ""},
		"IPv6":                            {Range{netip.MustParsePrefix("fd00:10::/48"), 64}, prefixes("fd00:10::/64"), "fd00:10:0:1::/64"},
		"IPv6 to single addresses":        {Range{netip.MustParsePrefix("fd00::fffe/127"), 128}, prefixes("fd00::fffe/128"), "fd00::ffff/128"},
		"the whole of IPv4":               {Range{netip.MustParsePrefix("0.0.0.0/0"), 1}, prefixes("1.2.3.4/32"), "128.0.0.0/1"},
		"a block larger than its range":   {Range{netip.MustParsePrefix("10.244.0.0/16"), 8}, nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var taken Taken
			for _, p := range c.taken {
				taken.Take(p)
			}
			got, found := taken.Next(c.r)
			if found != (c.want != "") || found && got.String() != c.want {
				t.Errorf("Next = %v, %v; want %q", got, found, c.want)
			}
		})
	}
}

func TestCountsSaturate(t *testing.T) {
	r := Range{netip.MustParsePrefix("fd00::/8"), 126}
	var taken Taken
	taken.Take(netip.MustParsePrefix("fd00::/126"))
	if r.Total() != math.MaxInt64 || taken.Free(r) != math.MaxInt64 {
		t.Errorf("Total = %d, Free = %d; want MaxInt64 of both", r.Total(), taken.Free(r))
	}
}

func TestPrefixTakenTwiceIsGivenBackTwice(t *testing.T) {
	r := Range{netip.MustParsePrefix("10.0.0.0/24"), 24}
	var taken Taken
	taken.Take(r.CIDR)
	taken.Take(r.CIDR)
	taken.GiveBack(r.CIDR)
	if _, found := taken.Next(r); found {
		t.Error("the block was given while somebody held it")
	}
	taken.GiveBack(r.CIDR)
	taken.GiveBack(r.CIDR)
	if _, found := taken.Next(r); !found || taken.v4 != nil {
		t.Error("the block was not free, or memory of it stayed, after all gave it back")
	}
}

// TestRandomTakingAgreesWithCounting compares Taken, through random changes, with
// a list that is searched block by block.
func TestRandomTakingAgreesWithCounting(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 7))
		r := Range{netip.MustParsePrefix("10.1.2.0/26"), 30}
		if seed%2 == 1 {
			r = Range{netip.MustParsePrefix("fd00::40/122"), 126}
		}
		var taken Taken
		var list []netip.Prefix
		for range 60 {
			if len(list) > 0 && random.IntN(3) == 0 {
				i := random.IntN(len(list))
				taken.GiveBack(list[i])
				list = slices.Delete(list, i, i+1)
			} else {
				p := randomPrefix(random, r)
				taken.Take(p)
				list = append(list, p)
			}
			next, free := bruteForce(r, list)
			got, found := taken.Next(r)
			if found != (free > 0) || found && got != next || taken.Free(r) != free {
				t.Fatalf("seed %d, taken %v: Next = %v, %v and Free = %d; want %v and %d", seed, list, got, found, taken.Free(r), next, free)
			}
		}
		for _, p := range list {
			taken.GiveBack(p)
		}
		if taken.v4 != nil || taken.v6 != nil {
			t.Fatalf("seed %d: memory stays after everything was given back", seed)
		}
	}
}

// randomPrefix is a prefix near a range: mostly one of its blocks, at times one that is smaller or larger.
func randomPrefix(random *rand.Rand, r Range) netip.Prefix {
	raw := r.CIDR.Addr().AsSlice()
	raw[len(raw)-1] += byte(random.IntN(64))
	addr, _ := netip.AddrFromSlice(raw)
	bits := r.BlockBits
	switch random.IntN(10) {
	case 0:
		bits = addr.BitLen()
	case 1:
		bits = r.BlockBits - 1
	case 2:
		if random.IntN(8) == 0 {
			bits = r.CIDR.Bits() - 1
		}
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

func bruteForce(r Range, taken []netip.Prefix) (next netip.Prefix, free int64) {
	addr := r.CIDR.Addr()
	for range r.Total() {
		block := netip.PrefixFrom(addr, r.BlockBits)
		if !slices.ContainsFunc(taken, block.Overlaps) {
			if free == 0 {
				next = block
			}
			free++
		}
		for range 1 << (addr.BitLen() - r.BlockBits) {
			addr = addr.Next()
		}
	}
	return next, free
}

func TestNamesOfBlocks(t *testing.T) {
	for cidr, name := range map[string]string{
		"10.244.3.0/24":      "10.244.3.0-24",
		"0.0.0.0/0":          "0.0.0.0-0",
		"10.0.0.1/32":        "10.0.0.1-32",
		"fd00:a:244::/64":    "fd00000a024400000000000000000000-64",
		"::/0":               "00000000000000000000000000000000-0",
		"2001:db8::ffff/128": "20010db800000000000000000000ffff-128",
	} {
		got, err := BlockName(netip.MustParsePrefix(cidr))
		if err != nil || got != name {
			t.Errorf("BlockName(%s) = %q, %v; want %q", cidr, got, err, name)
		}
		if back := blockOf(t, name); back.String() != cidr {
			t.Errorf("%s is the name of %v; want %s", name, back, cidr)
		}
	}
	for _, block := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.1/24")} {
		if name, err := BlockName(block); err == nil {
			t.Errorf("BlockName(%v) = %q; want an error", block, name)
		}
	}
}

func TestRangesThatHaveNoBlocks(t *testing.T) {
	for _, r := range []Range{
		{}, {netip.MustParsePrefix("10.0.0.1/8"), 24}, {netip.MustParsePrefix("10.0.0.0/8"), 7}, {netip.MustParsePrefix("10.0.0.0/8"), 33},
	} {
		var taken Taken
		if _, found := taken.Next(r); found || r.Validate() == nil || taken.Free(r) != 0 {
			t.Errorf("%+v was taken for a good range", r)
		}
	}
}
