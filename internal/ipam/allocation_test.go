package ipam

import (
	"net/netip"
	"slices"
	"testing"
)

// The tests of this file are about behaviours that the test tables of Kubernetes'
// own allocators check. docs/reference/allocation.md says where podnet differs.

// blockRange is the range of a CIDR that is cut into blocks of the length bits.
func blockRange(cidr string, bits int) Range {
	return Range{netip.MustParsePrefix(cidr), bits}
}

// give takes up to number blocks of a range, one after the other.
func give(taken *Taken, r Range, number int) []netip.Prefix {
	var given []netip.Prefix
	for range number {
		block, found := taken.Next(r)
		if !found {
			break
		}
		taken.Take(block)
		given = append(given, block)
	}
	return given
}

// expectFree compares what a range has left with what it should have, by count
// and by giving it all out.
func expectFree(t *testing.T, taken *Taken, r Range, want int64) {
	t.Helper()
	if got := taken.Free(r); got != want {
		t.Errorf("%v has %d free blocks, want %d", r, got, want)
	}
	given := give(taken, r, int(want)+1)
	if int64(len(given)) != want {
		t.Errorf("%v gave %d blocks, want %d", r, len(given), want)
	}
	for _, block := range given {
		taken.GiveBack(block)
	}
}

func TestRangeOfOneBlockGivesItOnceAndAgainAfterItIsBack(t *testing.T) {
	for _, r := range []Range{blockRange("10.8.4.0/30", 30), blockRange("fd00:8::/112", 112), blockRange("fd00:8::7/128", 128)} {
		var taken Taken
		for round := range 2 {
			if got := give(&taken, r, 2); !slices.Equal(got, []netip.Prefix{r.CIDR}) {
				t.Errorf("round %d: %v gave %v, want itself once", round, r, got)
			}
			taken.GiveBack(r.CIDR)
		}
	}
}

// TestBlocksAreCountedFromTheStartOfTheRange has IPv6 blocks on either side of the
// middle of an address and across it: arithmetic in halves goes wrong there.
func TestBlocksAreCountedFromTheStartOfTheRange(t *testing.T) {
	for _, c := range []struct {
		r      Range
		number int
		want   string
	}{
		{blockRange("10.20.0.0/16", 24), 0, "10.20.0.0/24"},
		{blockRange("10.20.0.0/16", 24), 15, "10.20.15.0/24"},
		{blockRange("10.20.0.0/16", 24), 255, "10.20.255.0/24"},
		{blockRange("10.20.0.0/12", 20), 17, "10.17.16.0/20"},
		{blockRange("10.20.30.208/28", 32), 5, "10.20.30.213/32"},
		{blockRange("fd00:20::/32", 48), 0, "fd00:20::/48"},
		{blockRange("fd00:20::/32", 48), 4660, "fd00:20:1234::/48"},
		{blockRange("fd00:20:0:4000::/50", 63), 4660, "fd00:20:0:6468::/63"},
		{blockRange("fd00:20::/48", 64), 15, "fd00:20:0:f::/64"},
		{blockRange("fd00:20:0:ff00::/56", 72), 15, "fd00:20:0:ff00:f00::/72"},
		{blockRange("fd00:20:0:ff00::/56", 72), 4660, "fd00:20:0:ff12:3400::/72"},
		{blockRange("fd00:20:0:1::/64", 80), 4660, "fd00:20:0:1:1234::/80"},
		{blockRange("fd00:20:0:0:5::/80", 96), 4660, "fd00:20::5:1234:0:0/96"},
		{blockRange("fd00:20::/112", 128), 4660, "fd00:20::1234/128"},
	} {
		var taken Taken
		give(&taken, Range{c.r.CIDR.Masked(), c.r.BlockBits}, c.number)
		got, found := taken.Next(Range{c.r.CIDR.Masked(), c.r.BlockBits})
		if !found || got != netip.MustParsePrefix(c.want) {
			t.Errorf("block %d of %v is %v, want %s", c.number, c.r, got, c.want)
		}
	}
}

func TestAllBlocksAreGivenAgainInOrderAfterAllAreBack(t *testing.T) {
	for _, r := range []Range{blockRange("10.20.0.0/16", 24), blockRange("fd00::/16", 24), blockRange("fd00:20::/112", 120)} {
		var taken Taken
		first := give(&taken, r, 257)
		if len(first) != 256 || !slices.IsSortedFunc(first, netip.Prefix.Compare) {
			t.Fatalf("%v gave %d blocks in this order: %v", r, len(first), first)
		}
		// Given back in any order.
		for i := range first {
			taken.GiveBack(first[(i*97)%len(first)])
		}
		if again := give(&taken, r, 257); !slices.Equal(first, again) {
			t.Errorf("%v gave %v at first and then %v", r, first, again)
		}
	}
}

func TestBlocksTakenByOthersAreSteppedOver(t *testing.T) {
	for _, r := range []Range{blockRange("10.20.0.0/16", 24), blockRange("fd00:20::/112", 120)} {
		var probe, taken Taken
		all := give(&probe, r, 256)
		for _, block := range all[128:] {
			taken.Take(block)
		}
		taken.Take(all[128])
		if got := give(&taken, r, 256); !slices.Equal(got, all[:128]) {
			t.Errorf("%v gave %v, want the lower half", r, got)
		}
	}
}

// TestBlockThatCameBackIsTheNextOne: Kubernetes goes round its range instead. Here
// quarantine lets a block rest, and low blocks keep the range dense.
func TestBlockThatCameBackIsTheNextOne(t *testing.T) {
	r := blockRange("10.20.0.0/16", 24)
	var taken Taken
	given := give(&taken, r, 10)
	taken.GiveBack(given[7])
	taken.GiveBack(given[3])
	if got, want := give(&taken, r, 3), prefixes("10.20.3.0/24", "10.20.7.0/24", "10.20.10.0/24"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestBlocksCountOnceHoweverOftenTheyAreTaken differs from Kubernetes in what
// giving back does: there one release frees a block that two hold.
func TestBlocksCountOnceHoweverOftenTheyAreTaken(t *testing.T) {
	r := blockRange("10.20.0.0/16", 24)
	var taken Taken
	for i, step := range []struct {
		do   func(netip.Prefix)
		cidr string
		free int64
	}{
		{taken.Take, "10.20.5.0/24", 255},
		{taken.Take, "10.20.9.0/24", 254},
		{taken.Take, "10.20.8.0/22", 251},     // one of its four was taken
		{taken.Take, "10.20.9.0/24", 251},     // once more
		{taken.GiveBack, "10.20.8.0/22", 254}, // all of its four but the one that others hold
		{taken.GiveBack, "10.20.9.0/24", 254}, // somebody still holds it
		{taken.GiveBack, "10.20.9.0/24", 255},
		{taken.GiveBack, "10.20.9.0/24", 255}, // nobody holds it any more
		{taken.GiveBack, "10.20.4.0/22", 255}, // never taken, though a block inside is
	} {
		step.do(netip.MustParsePrefix(step.cidr))
		if got := taken.Free(r); got != step.free {
			t.Errorf("after step %d: %d free, want %d", i+1, got, step.free)
		}
	}
	expectFree(t, &taken, r, 255)
}

func TestPrefixTakesEveryBlockThatItOverlaps(t *testing.T) {
	for name, c := range map[string]struct {
		r          Range
		taken      string
		next, last string // the blocks around those that are taken; "" where there is none
		free       int64
	}{
		"the range itself":                {blockRange("10.0.0.0/8", 16), "10.0.0.0/8", "", "", 0},
		"more than the range":             {blockRange("10.0.0.0/8", 16), "8.0.0.0/6", "", "", 0},
		"the range itself, IPv6":          {blockRange("fd00:20::/40", 48), "fd00:20::/40", "", "", 0},
		"more than the range, IPv6":       {blockRange("fd00:20::/40", 48), "fd00::/16", "", "", 0},
		"one block":                       {blockRange("10.0.0.0/8", 16), "10.0.0.0/16", "10.1.0.0/16", "10.255.0.0/16", 255},
		"one block, IPv6":                 {blockRange("fd00:20::/40", 48), "fd00:20::/48", "fd00:20:1::/48", "fd00:20:ff::/48", 255},
		"many blocks":                     {blockRange("10.0.0.0/8", 32), "10.0.0.0/16", "10.1.0.0/32", "10.255.255.255/32", 1<<24 - 1<<16},
		"many blocks, IPv6":               {blockRange("fd00:20::/47", 64), "fd00:20::/48", "fd00:20:1::/64", "fd00:20:1:ffff::/64", 1 << 16},
		"two blocks beyond the 256th":     {blockRange("10.0.0.0/7", 16), "11.0.0.0/15", "10.0.0.0/16", "11.255.0.0/16", 510},
		"two blocks at the end":           {blockRange("10.0.0.0/7", 16), "11.254.0.0/15", "10.0.0.0/16", "11.253.0.0/16", 510},
		"a part of a block":               {blockRange("10.0.0.0/8", 16), "10.0.77.0/24", "10.1.0.0/16", "10.255.0.0/16", 255},
		"a part of a block, IPv6":         {blockRange("fd00:20::/40", 48), "fd00:20::9/128", "fd00:20:1::/48", "fd00:20:ff::/48", 255},
		"nothing, below the range":        {blockRange("10.0.0.0/8", 16), "9.255.0.0/16", "10.0.0.0/16", "10.255.0.0/16", 256},
		"nothing, above the range":        {blockRange("10.0.0.0/8", 16), "11.0.0.0/16", "10.0.0.0/16", "10.255.0.0/16", 256},
		"nothing, in the other family":    {blockRange("10.0.0.0/8", 16), "a00::/8", "10.0.0.0/16", "10.255.0.0/16", 256},
		"nothing, outside the range IPv6": {blockRange("fd00:20::/40", 48), "fd00:1::/32", "fd00:20::/48", "fd00:20:ff::/48", 256},
	} {
		t.Run(name, func(t *testing.T) {
			var taken Taken
			p := netip.MustParsePrefix(c.taken)
			taken.Take(p)
			if got := taken.Free(c.r); got != c.free {
				t.Errorf("%d free, want %d", got, c.free)
			}
			next, found := taken.Next(c.r)
			if found != (c.next != "") || found && next != netip.MustParsePrefix(c.next) {
				t.Errorf("Next = %v, %v; want %q", next, found, c.next)
			}
			// Blocks that are given to the last one show that the end of the range is right.
			if c.free > 0 && c.free < 1<<17 {
				given := give(&taken, c.r, int(c.free)+1)
				if int64(len(given)) != c.free || given[c.free-1] != netip.MustParsePrefix(c.last) {
					t.Errorf("gave %d blocks up to %v, want %d up to %s", len(given), given[len(given)-1], c.free, c.last)
				}
			}
			taken.GiveBack(p)
			if next, _ := taken.Next(c.r); c.free == 0 && next.Addr() != c.r.CIDR.Addr() {
				t.Errorf("after giving back, Next = %v, want the first block", next)
			}
		})
	}
}

// TestRangesOfAnySize: Kubernetes keeps a bit for each block of a range, and so
// refuses IPv6 ranges of more than 65,536 blocks.
func TestRangesOfAnySize(t *testing.T) {
	for _, c := range []struct {
		r     Range
		total int64
		want  []netip.Prefix
	}{
		{blockRange("10.0.0.0/16", 24), 256, prefixes("10.0.0.0/24", "10.0.1.0/24")},
		{blockRange("10.0.0.0/8", 32), 1 << 24, prefixes("10.0.0.0/32", "10.0.0.1/32")},
		{blockRange("fd00:20::/60", 64), 16, prefixes("fd00:20::/64", "fd00:20:0:1::/64")},
		{blockRange("fd00:20::/48", 64), 1 << 16, prefixes("fd00:20::/64", "fd00:20:0:1::/64")},
		{blockRange("fd00:20::/32", 49), 1 << 17, prefixes("fd00:20::/49", "fd00:20:0:8000::/49")},
		{blockRange("fd00::/8", 64), 1 << 56, prefixes("fd00::/64", "fd00:0:0:1::/64")},
		{blockRange("fd00:20::/66", 128), 1 << 62, prefixes("fd00:20::/128", "fd00:20::1/128")},
	} {
		var taken Taken
		if got := c.r.Total(); got != c.total {
			t.Errorf("%v has %d blocks, want %d", c.r, got, c.total)
		}
		if got := give(&taken, c.r, 2); !slices.Equal(got, c.want) {
			t.Errorf("%v gave %v, want %v", c.r, got, c.want)
		}
		if got := taken.Free(c.r); got != c.total-2 {
			t.Errorf("%v has %d free blocks, want %d", c.r, got, c.total-2)
		}
	}
}

// TestOneRecordServesRangesOfUnequalBlocks: what one range gave is taken in
// every other that overlaps it, such as the ranges of another network.
func TestOneRecordServesRangesOfUnequalBlocks(t *testing.T) {
	large, small := blockRange("10.20.0.0/16", 22), blockRange("10.20.0.0/18", 26)
	var taken Taken
	give(&taken, small, 17) // the whole of 10.20.0.0/22 and a part of the next
	if got, want := give(&taken, large, 1), prefixes("10.20.8.0/22"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := give(&taken, small, 1), prefixes("10.20.4.64/26"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	expectFree(t, &taken, small, 256-18-16)
}
