package ipam

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestReservedAddressesAndCount(t *testing.T) {
	for _, tc := range []struct {
		block    string
		node     string
		gateway  string
		probe    string
		reserved []string
		count    int64
	}{
		{"10.244.3.0/24", "10.244.3.0", "10.244.3.1", "10.244.3.254", []string{"10.244.3.0", "10.244.3.1", "10.244.3.254", "10.244.3.255"}, 252},
		{"10.244.3.7/24", "10.244.3.0", "10.244.3.1", "10.244.3.254", []string{"10.244.3.0", "10.244.3.1", "10.244.3.254", "10.244.3.255"}, 252},
		{"10.0.0.8/29", "10.0.0.8", "10.0.0.9", "10.0.0.14", []string{"10.0.0.8", "10.0.0.9", "10.0.0.14", "10.0.0.15"}, 4},
		{"10.0.0.4/30", "10.0.0.4", "10.0.0.5", "", []string{"10.0.0.4", "10.0.0.5", "10.0.0.7"}, 1},
		{"10.0.0.4/31", "10.0.0.4", "10.0.0.5", "", []string{"10.0.0.4", "10.0.0.5"}, 0},
		{"10.0.0.4/32", "10.0.0.4", "", "", []string{"10.0.0.4"}, 0},
		{"255.255.255.255/32", "255.255.255.255", "", "", []string{"255.255.255.255"}, 0},
		{"0.0.0.0/0", "0.0.0.0", "0.0.0.1", "255.255.255.254", []string{"0.0.0.0", "0.0.0.1", "255.255.255.254", "255.255.255.255"}, 1<<32 - 4},
		{"fd00:1::/64", "fd00:1::", "fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff", []string{"fd00:1::", "fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff"}, math.MaxInt64},
		{"fd00:1::/66", "fd00:1::", "fd00:1::1", "fd00:1::3fff:ffff:ffff:ffff", []string{"fd00:1::", "fd00:1::1", "fd00:1::3fff:ffff:ffff:ffff"}, 1<<62 - 3},
		{"fd00:1::/120", "fd00:1::", "fd00:1::1", "fd00:1::ff", []string{"fd00:1::", "fd00:1::1", "fd00:1::ff"}, 253},
		{"fd00:1::/125", "fd00:1::", "fd00:1::1", "fd00:1::7", []string{"fd00:1::", "fd00:1::1", "fd00:1::7"}, 5},
		{"fd00:1::/126", "fd00:1::", "fd00:1::1", "", []string{"fd00:1::", "fd00:1::1"}, 2},
		{"fd00:1::/127", "fd00:1::", "fd00:1::1", "", []string{"fd00:1::", "fd00:1::1"}, 0},
		{"fd00:1::/128", "fd00:1::", "", "", []string{"fd00:1::"}, 0},
	} {
		t.Run(tc.block, func(t *testing.T) {
			block := netip.MustParsePrefix(tc.block)
			if got := NodeAddress(block).String(); got != tc.node {
				t.Errorf("NodeAddress = %s, want %s", got, tc.node)
			}
			gateway := GatewayAddress(block)
			if got := gateway.String(); tc.gateway != "" && got != tc.gateway || tc.gateway == "" && gateway.IsValid() {
				t.Errorf("GatewayAddress = %s, want %s", got, tc.gateway)
			}
			probe := ProbeAddress(block)
			if got := probe.String(); tc.probe != "" && got != tc.probe || tc.probe == "" && probe.IsValid() {
				t.Errorf("ProbeAddress = %s, want %s", got, tc.probe)
			}
			if got := AddressCount(block); got != tc.count {
				t.Errorf("AddressCount = %d, want %d", got, tc.count)
			}
			for _, addr := range tc.reserved {
				if !Reserved(block, netip.MustParseAddr(addr)) {
					t.Errorf("%s is not reserved", addr)
				}
			}
			if block.Addr().BitLen()-block.Bits() > 8 {
				return
			}
			var usable int64
			for addr := block.Masked().Addr(); block.Contains(addr); addr = addr.Next() {
				if !Reserved(block, addr) {
					usable++
				}
			}
			if usable != tc.count {
				t.Errorf("%d addresses are not reserved, want %d", usable, tc.count)
			}
		})
	}
}

func TestAddressOutsideTheBlockIsNotReserved(t *testing.T) {
	block := netip.MustParsePrefix("10.244.3.0/24")
	for _, addr := range []string{"10.244.2.255", "10.244.4.0", "fd00::", "10.244.3.2", "10.244.3.253"} {
		if Reserved(block, netip.MustParseAddr(addr)) {
			t.Errorf("%s is reserved", addr)
		}
	}
}

// at is a time, that many seconds after some beginning.
func at(seconds int) time.Time { return time.Unix(int64(1000+seconds), 0) }

func addresses(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestNextAddress(t *testing.T) {
	for _, tc := range []struct {
		name, block, cursor string
		taken               []string
		want                string
		never               bool
	}{
		{"NoCursorStartsAfterTheGateway", "10.244.3.0/24", "", nil, "10.244.3.2", true},
		{"CursorAdvances", "10.244.3.0/24", "10.244.3.9", nil, "10.244.3.10", true},
		{"TakenIsSkipped", "10.244.3.0/24", "10.244.3.9", []string{"10.244.3.10", "10.244.3.11"}, "10.244.3.12", true},
		{"LastUsableIsGiven", "10.244.3.0/24", "10.244.3.252", nil, "10.244.3.253", true},
		{"ProbeIsNotGiven", "10.244.3.0/24", "10.244.3.253", nil, "10.244.3.2", false},
		{"BroadcastIsNotGiven", "10.244.3.0/24", "10.244.3.254", nil, "10.244.3.2", false},
		{"ProbeTaken", "10.244.3.0/24", "10.244.3.252", []string{"10.244.3.254"}, "10.244.3.253", true},
		{"AllTakenAndTheProbe", "10.0.0.0/29", "10.0.0.6", []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}, "", false},
		{"ReleasedInOrderOfAddresses", "10.244.3.0/24", "10.244.3.253", []string{"10.244.3.2", "10.244.3.3"}, "10.244.3.4", false},
		{"CursorOnBroadcast", "10.244.3.0/24", "10.244.3.255", nil, "10.244.3.2", false},
		{"CursorOnBase", "10.244.3.0/24", "10.244.3.0", nil, "10.244.3.2", true},
		{"CursorOnGateway", "10.244.3.0/24", "10.244.3.1", nil, "10.244.3.2", true},
		{"CursorOutsideStartsOver", "10.244.3.0/24", "10.9.0.1", nil, "10.244.3.2", true},
		{"CursorOfOtherFamily", "10.244.3.0/24", "fd00::9", nil, "10.244.3.2", true},
		{"OnlyAddressGivenAgain", "10.0.0.4/30", "10.0.0.6", nil, "10.0.0.6", false},
		{"AllTaken", "10.0.0.4/30", "10.0.0.6", []string{"10.0.0.6"}, "", false},
		{"AllTakenWithoutCursor", "10.0.0.4/30", "", []string{"10.0.0.6"}, "", false},
		{"NoUsableAddress", "10.0.0.4/31", "", nil, "", false},
		{"NoUsableAddress32", "255.255.255.255/32", "", nil, "", false},
		{"EndOfAddressSpace", "255.255.255.252/30", "255.255.255.255", nil, "255.255.255.254", false},
		{"StartOfAddressSpace", "0.0.0.0/29", "0.0.0.3", []string{"0.0.0.4", "0.0.0.5"}, "0.0.0.2", false},
		{"IPv6", "fd00:1::/64", "", nil, "fd00:1::2", true},
		{"IPv6LastIsGiven", "fd00:1::/126", "fd00:1::2", nil, "fd00:1::3", true},
		{"IPv6LastBeforeTheProbeIsGiven", "fd00:1::/125", "fd00:1::5", nil, "fd00:1::6", true},
		{"IPv6ProbeIsNotGiven", "fd00:1::/125", "fd00:1::6", nil, "fd00:1::2", false},
		{"IPv6AllUsedBefore", "fd00:1::/126", "fd00:1::3", nil, "fd00:1::2", false},
		{"IPv6AllTaken", "fd00:1::/126", "fd00:1::3", []string{"fd00:1::2", "fd00:1::3"}, "", false},
		{"IPv6EndOfAddressSpace", "ffff:ffff:ffff:ffff::/64", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nil, "ffff:ffff:ffff:ffff::2", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var cursor netip.Addr
			if tc.cursor != "" {
				cursor = netip.MustParseAddr(tc.cursor)
			}
			a := NewAddresses(netip.MustParsePrefix(tc.block), cursor, addresses(tc.taken...), at(7))
			got, ok := a.Next()
			if ok != (tc.want != "") || ok && got.Addr.String() != tc.want {
				t.Fatalf("got %s %t, want %q", got.Addr, ok, tc.want)
			}
			want := at(7)
			if tc.never || !ok {
				want = time.Time{}
			}
			if !got.Released.Equal(want) {
				t.Errorf("released at %s, want %s", got.Released, want)
			}
		})
	}
}

func TestReleasedAddressesComeAfterAllOthersInOrderOfRelease(t *testing.T) {
	a := NewAddresses(netip.MustParsePrefix("fd00::/125"), netip.Addr{}, nil, at(0))
	give := func(want string, released int) {
		t.Helper()
		got, ok := a.Next()
		if !ok || got.Addr.String() != want || released > 0 && !got.Released.Equal(at(released)) || released == 0 && !got.Released.IsZero() {
			t.Fatalf("got %v %t, want %s released at %d", got, ok, want, released)
		}
		a.Take(got.Addr)
	}
	release := func(addr string, now int) { a.Release(netip.MustParseAddr(addr), at(now)) }
	give("fd00::2", 0)
	give("fd00::3", 0)
	release("fd00::3", 1)
	release("fd00::2", 2)
	release("fd00::2", 3) // for the second time
	release("fd00::1", 3) // which is reserved
	release("fd00::7", 3) // and so is this
	release("fd00:9::1", 3)
	give("fd00::4", 0)
	give("fd00::5", 0)
	give("fd00::6", 0)
	give("fd00::3", 1)
	release("fd00::5", 4)
	give("fd00::2", 2)
	give("fd00::5", 4)
	if _, ok := a.Next(); ok || a.Used() != 5 {
		t.Errorf("%d in use, and another is given", a.Used())
	}
}

func TestTakenOutOfTurn(t *testing.T) {
	a := NewAddresses(netip.MustParsePrefix("fd00::/125"), netip.MustParseAddr("fd00::4"), nil, at(0))
	for _, addr := range addresses("fd00::2", "fd00::2", "fd00::6", "fd00::1", "fd00::7", "10.0.0.2") {
		a.Take(addr)
	}
	if a.Used() != 2 {
		t.Errorf("%d in use, want 2", a.Used())
	}
	a.Release(netip.MustParseAddr("fd00::6"), at(1)) // which the cursor did not reach yet
	a.Release(netip.MustParseAddr("fd00::2"), at(2))
	for _, want := range addresses("fd00::5", "fd00::3", "fd00::4", "fd00::6", "fd00::2") {
		got, _ := a.Next()
		if got.Addr != want {
			t.Fatalf("got %s, want %s", got.Addr, want)
		}
		a.Take(want)
	}
}

// naive is what Addresses is, without any thought of cost.
type naive struct {
	usable, never []netip.Addr
	released      []Candidate
	taken         []netip.Addr
}

func newNaive(block netip.Prefix, cursor netip.Addr, taken []netip.Addr, now time.Time) *naive {
	n := &naive{}
	for addr := block.Masked().Addr(); block.Contains(addr); addr = addr.Next() {
		if Reserved(block, addr) {
			continue
		}
		n.usable = append(n.usable, addr)
		switch before := block.Contains(cursor) && addr.Compare(cursor) <= 0; {
		case slices.Contains(taken, addr):
			n.taken = append(n.taken, addr)
		case before:
			n.released = append(n.released, Candidate{Addr: addr, Released: now})
		default:
			n.never = append(n.never, addr)
		}
	}
	return n
}

func (n *naive) next() (Candidate, bool) {
	if len(n.never) > 0 {
		return Candidate{Addr: n.never[0]}, true
	}
	if len(n.released) > 0 {
		return n.released[0], true
	}
	return Candidate{}, false
}

func (n *naive) take(addr netip.Addr) {
	if !slices.Contains(n.usable, addr) || slices.Contains(n.taken, addr) {
		return
	}
	n.never = slices.DeleteFunc(n.never, func(a netip.Addr) bool { return a == addr })
	n.released = slices.DeleteFunc(n.released, func(c Candidate) bool { return c.Addr == addr })
	n.taken = append(n.taken, addr)
}

func (n *naive) release(addr netip.Addr, now time.Time) {
	if !slices.Contains(n.taken, addr) {
		return
	}
	n.taken = slices.DeleteFunc(n.taken, func(a netip.Addr) bool { return a == addr })
	n.released = append(n.released, Candidate{Addr: addr, Released: now})
}

// compare runs what script says on an Addresses and on its naive counterpart.
// Its block must have no more addresses than the cursor's patience.
func compare(t *testing.T, block netip.Prefix, start []byte, script []byte) {
	t.Helper()
	base := block.Masked().Addr()
	nth := func(b byte) netip.Addr {
		addr := base
		for range b % 64 {
			addr = addr.Next()
		}
		return addr
	}
	var cursor netip.Addr
	var taken []netip.Addr
	for i, b := range start {
		if i == 0 {
			cursor = nth(b)
		} else {
			taken = append(taken, nth(b))
		}
	}
	a, n := NewAddresses(block, cursor, taken, at(0)), newNaive(block, cursor, taken, at(0))
	for i, b := range script {
		before := a.looks
		switch {
		case b < 128:
			want, wantOK := n.next()
			got, ok := a.Next()
			if got != want || ok != wantOK {
				t.Fatalf("%s, step %d: got %v %t, want %v %t", block, i, got, ok, want, wantOK)
			}
			if ok {
				a.Take(got.Addr)
				n.take(got.Addr)
			}
		case b < 224 && len(n.taken) > 0:
			addr := n.taken[int(b)%len(n.taken)]
			a.Release(addr, at(i))
			n.release(addr, at(i))
		case b < 240:
			a.Release(nth(b), at(i))
			n.release(nth(b), at(i))
		default:
			a.Take(nth(b))
			n.take(nth(b))
		}
		if a.Used() != int64(len(n.taken)) {
			t.Fatalf("%s, step %d: %d in use, want %d", block, i, a.Used(), len(n.taken))
		}
		if looks := a.looks - before; looks > 2*patience {
			t.Fatalf("%s, step %d: looked at %d addresses", block, i, looks)
		}
	}
}

func TestAddressesAreWhatANaiveListIs(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		bytes := func(count int) []byte {
			out := make([]byte, count)
			for i := range out {
				out[i] = byte(random.Uint32())
			}
			return out
		}
		base, bits := netip.MustParseAddr("10.1.2.192"), 26+random.IntN(7)
		if seed%2 == 0 {
			base, bits = netip.MustParseAddr("fd00::f:0"), 122+random.IntN(7)
		}
		compare(t, netip.PrefixFrom(base, bits).Masked(), bytes(random.IntN(20)), bytes(400))
	}
}

// FuzzAddresses checks the small blocks, of which every order can be told, against
// the naive counterpart, and of the others that nothing is given twice or refused.
func FuzzAddresses(f *testing.F) {
	f.Add([]byte{10, 244, 3, 0}, uint8(24), []byte{255}, []byte{2, 3, 4, 200, 201})
	f.Add([]byte{10, 0, 0, 0}, uint8(30), []byte{}, []byte{2, 2, 130, 2})
	f.Add([]byte{10, 0, 0, 0}, uint8(31), []byte{}, []byte{1, 250})
	f.Add([]byte{255, 255, 255, 255}, uint8(29), []byte{63, 1, 2, 3}, []byte{1, 2, 3, 4, 150, 6})
	f.Add(netip.MustParseAddr("fd00::").AsSlice(), uint8(126), []byte{}, []byte{2, 3})
	f.Add(netip.MustParseAddr("fd00::").AsSlice(), uint8(64), []byte{5, 5, 6}, []byte{6, 7, 130, 140})
	f.Add(netip.MustParseAddr("fd00::ffff").AsSlice(), uint8(128), []byte{5, 5, 6}, []byte{6, 7})
	f.Fuzz(func(t *testing.T, base []byte, length uint8, start, script []byte) {
		addr, ok := netip.AddrFromSlice(base)
		if !ok || addr.Is4In6() {
			return
		}
		block, err := addr.Prefix(int(length))
		if err != nil {
			return
		}
		if addr.BitLen()-block.Bits() <= 6 {
			compare(t, block, start, script)
			return
		}
		a := NewAddresses(block, netip.Addr{}, nil, at(0))
		var given []netip.Addr
		for i, b := range script {
			if b >= 128 && len(given) > 0 {
				a.Release(given[0], at(i))
				given = given[1:]
				continue
			}
			got, ok := a.Next()
			if !ok || slices.Contains(given, got.Addr) || Reserved(block, got.Addr) || !block.Contains(got.Addr) {
				t.Fatalf("%v %t of %s cannot be given", got, ok, block)
			}
			a.Take(got.Addr)
			given = append(given, got.Addr)
		}
	})
}

func TestForgottenAddressesAreFoundAgain(t *testing.T) {
	for _, text := range []string{"10.0.0.0/15", "fd00::/111"} {
		block := netip.MustParsePrefix(text)
		a := NewAddresses(block, netip.Addr{}, nil, at(0))
		all := func() {
			given := map[netip.Addr]bool{}
			for {
				got, ok := a.Next()
				if !ok {
					break
				}
				if given[got.Addr] {
					t.Fatalf("%s was given twice", got.Addr)
				}
				given[got.Addr] = true
				a.Take(got.Addr)
			}
			if count := AddressCount(block); int64(len(given)) != count || a.Used() != count {
				t.Fatalf("%d of %d addresses of %s were given", len(given), count, block)
			}
		}
		for range 2 {
			all()
			for addr := a.first; a.usable(addr); addr = addr.Next() {
				a.Release(addr, at(1))
			}
			if len(a.free) != remembered || a.queue.len() != remembered {
				t.Errorf("%d are remembered, in a queue of %d", len(a.free), a.queue.len())
			}
		}
		all()
	}
}

// The cost of an operation does not depend on how large a block is, nor on how
// many of its addresses are in use.
func TestEveryOperationLooksAtAFewAddresses(t *testing.T) {
	for _, text := range []string{"10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/8", "fd00::/112", "fd00::/64", "fd00::/48"} {
		for _, free := range []int64{1, 7, 100} {
			t.Run(fmt.Sprintf("%s with %d free", text, free), func(t *testing.T) {
				block := netip.MustParsePrefix(text)
				a, given := filled(block, free)
				random := rand.New(rand.NewPCG(1, 2))
				for i := range 20_000 {
					before := a.looks
					got, ok := a.Next()
					if !ok {
						t.Fatal("no address")
					}
					a.Take(got.Addr)
					j := random.IntN(len(given))
					a.Release(given[j], at(i))
					given[j] = got.Addr
					if looks := a.looks - before; looks > 4 {
						t.Fatalf("operation %d looked at %d addresses", i, looks)
					}
				}
			})
		}
	}
}

// filled returns the addresses of a block of which all but some are in use, or
// 65,000 where it has more, and those in use.
func filled(block netip.Prefix, free int64) (*Addresses, []netip.Addr) {
	a := NewAddresses(block, netip.Addr{}, nil, at(0))
	var given []netip.Addr
	for range min(AddressCount(block)-free, 65_000) {
		got, _ := a.Next()
		a.Take(got.Addr)
		given = append(given, got.Addr)
	}
	return a, given
}

func TestACursorThatWasLostCostsOneWalk(t *testing.T) {
	block := netip.MustParsePrefix("10.0.0.0/16")
	_, given := filled(block, 10)
	a := NewAddresses(block, netip.Addr{}, given, at(0))
	for i := range 100 {
		before := a.looks
		got, ok := a.Next()
		if !ok {
			t.Fatal("no address")
		}
		a.Take(got.Addr)
		a.Release(given[i], at(i))
		if looks := a.looks - before; i > 0 && looks > 4 {
			t.Fatalf("operation %d looked at %d addresses", i, looks)
		}
	}
}

func BenchmarkAddresses(b *testing.B) {
	for _, text := range []string{"10.0.0.0/24", "10.0.0.0/16", "fd00::/64"} {
		b.Run(text, func(b *testing.B) {
			a, given := filled(netip.MustParsePrefix(text), 10)
			now, i := at(0), 0
			b.ReportAllocs()
			for b.Loop() {
				got, ok := a.Next()
				if !ok {
					b.Fatal("no address")
				}
				a.Take(got.Addr)
				a.Release(given[i], now)
				given[i] = got.Addr
				i = (i + 1) % len(given)
			}
		})
	}
}
