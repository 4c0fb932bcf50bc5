package ipam

import (
	"math"
	"net/netip"
	"testing"
)

func TestReservedAddressesAndCount(t *testing.T) {
	for _, tc := range []struct {
		block    string
		node     string
		gateway  string
		reserved []string
		count    int64
	}{
		{"10.244.3.0/24", "10.244.3.0", "10.244.3.1", []string{"10.244.3.0", "10.244.3.1", "10.244.3.255"}, 253},
		{"10.244.3.7/24", "10.244.3.0", "10.244.3.1", []string{"10.244.3.0", "10.244.3.1", "10.244.3.255"}, 253},
		{"10.0.0.4/30", "10.0.0.4", "10.0.0.5", []string{"10.0.0.4", "10.0.0.5", "10.0.0.7"}, 1},
		{"10.0.0.4/31", "10.0.0.4", "10.0.0.5", []string{"10.0.0.4", "10.0.0.5"}, 0},
		{"10.0.0.4/32", "10.0.0.4", "", []string{"10.0.0.4"}, 0},
		{"255.255.255.255/32", "255.255.255.255", "", []string{"255.255.255.255"}, 0},
		{"0.0.0.0/0", "0.0.0.0", "0.0.0.1", []string{"0.0.0.0", "0.0.0.1", "255.255.255.255"}, 1<<32 - 3},
		{"fd00:1::/64", "fd00:1::", "fd00:1::1", []string{"fd00:1::", "fd00:1::1"}, math.MaxInt64},
		{"fd00:1::/66", "fd00:1::", "fd00:1::1", []string{"fd00:1::", "fd00:1::1"}, 1<<62 - 2},
		{"fd00:1::/126", "fd00:1::", "fd00:1::1", []string{"fd00:1::", "fd00:1::1"}, 2},
		{"fd00:1::/127", "fd00:1::", "fd00:1::1", []string{"fd00:1::", "fd00:1::1"}, 0},
		{"fd00:1::/128", "fd00:1::", "", []string{"fd00:1::"}, 0},
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
			if got := AddressCount(block); got != tc.count {
				t.Errorf("AddressCount = %d, want %d", got, tc.count)
			}
			for _, addr := range tc.reserved {
				if !Reserved(block, netip.MustParseAddr(addr)) {
					t.Errorf("%s is not reserved", addr)
				}
			}
		})
	}
}

func TestAddressOutsideTheBlockIsNotReserved(t *testing.T) {
	block := netip.MustParsePrefix("10.244.3.0/24")
	for _, addr := range []string{"10.244.2.255", "10.244.4.0", "fd00::", "10.244.3.2", "10.244.3.254"} {
		if Reserved(block, netip.MustParseAddr(addr)) {
			t.Errorf("%s is reserved", addr)
		}
	}
}

func TestNextAddress(t *testing.T) {
	for _, tc := range []struct {
		name, block, after string
		taken              []string
		want               string
	}{
		{"NoCursorStartsAfterTheGateway", "10.244.3.0/24", "", nil, "10.244.3.2"},
		{"CursorAdvances", "10.244.3.0/24", "10.244.3.9", nil, "10.244.3.10"},
		{"TakenIsSkipped", "10.244.3.0/24", "10.244.3.9", []string{"10.244.3.10", "10.244.3.11"}, "10.244.3.12"},
		{"LastUsableIsGiven", "10.244.3.0/24", "10.244.3.253", nil, "10.244.3.254"},
		{"BroadcastIsNotGiven", "10.244.3.0/24", "10.244.3.254", nil, "10.244.3.2"},
		{"CursorOnBroadcastWraps", "10.244.3.0/24", "10.244.3.255", nil, "10.244.3.2"},
		{"CursorOnBase", "10.244.3.0/24", "10.244.3.0", nil, "10.244.3.2"},
		{"CursorOutsideStartsOver", "10.244.3.0/24", "10.9.0.1", nil, "10.244.3.2"},
		{"CursorOfOtherFamily", "10.244.3.0/24", "fd00::9", nil, "10.244.3.2"},
		{"OnlyAddressGivenAgain", "10.0.0.4/30", "10.0.0.6", nil, "10.0.0.6"},
		{"AllTaken", "10.0.0.4/30", "10.0.0.6", []string{"10.0.0.6"}, ""},
		{"NoUsableAddress", "10.0.0.4/31", "", nil, ""},
		{"NoUsableAddress32", "255.255.255.255/32", "", nil, ""},
		{"EndOfAddressSpace", "255.255.255.252/30", "255.255.255.255", nil, "255.255.255.254"},
		{"IPv6", "fd00:1::/64", "", nil, "fd00:1::2"},
		{"IPv6LastIsGiven", "fd00:1::/126", "fd00:1::2", nil, "fd00:1::3"},
		{"IPv6Wraps", "fd00:1::/126", "fd00:1::3", nil, "fd00:1::2"},
		{"IPv6AllTaken", "fd00:1::/126", "fd00:1::3", []string{"fd00:1::2", "fd00:1::3"}, ""},
		{"IPv6EndOfAddressSpace", "ffff:ffff:ffff:ffff::/64", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nil, "ffff:ffff:ffff:ffff::2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			taken := map[netip.Addr]bool{}
			for _, addr := range tc.taken {
				taken[netip.MustParseAddr(addr)] = true
			}
			var after netip.Addr
			if tc.after != "" {
				after = netip.MustParseAddr(tc.after)
			}
			got, ok := NextAddress(netip.MustParsePrefix(tc.block), after, func(a netip.Addr) bool { return taken[a] })
			if ok != (tc.want != "") || ok && got.String() != tc.want {
				t.Errorf("got %s %t, want %q", got, ok, tc.want)
			}
		})
	}
}

func TestAddressRestsUntilAllOthersWereGiven(t *testing.T) {
	block := netip.MustParsePrefix("10.0.0.0/28")
	var cursor netip.Addr
	given := map[netip.Addr]int{}
	for i := range 26 {
		addr, ok := NextAddress(block, cursor, func(netip.Addr) bool { return false })
		if !ok {
			t.Fatal("no address")
		}
		if last, again := given[addr]; again && i-last != 13 {
			t.Fatalf("%s given again after %d others", addr, i-last-1)
		}
		given[addr] = i
		cursor = addr
	}
}

// FuzzNextAddress checks that whatever the block, the cursor and the taken
// addresses are, the answer can be used, is not taken, is found within one look
// more than are taken, and is missing only if all are taken.
func FuzzNextAddress(f *testing.F) {
	f.Add([]byte{10, 244, 3, 0}, uint8(24), []byte{10, 244, 3, 255}, []byte{2, 3, 4})
	f.Add([]byte{10, 0, 0, 0}, uint8(30), []byte{}, []byte{2})
	f.Add([]byte{10, 0, 0, 0}, uint8(31), []byte{}, []byte{})
	f.Add([]byte{255, 255, 255, 255}, uint8(29), []byte{255, 255, 255, 255}, []byte{1, 2, 3, 4, 5, 6})
	f.Add(netip.MustParseAddr("fd00::").AsSlice(), uint8(126), []byte{}, []byte{2, 3})
	f.Add(netip.MustParseAddr("fd00::").AsSlice(), uint8(64), netip.MustParseAddr("fd00::5").AsSlice(), []byte{6, 7})
	f.Fuzz(func(t *testing.T, base []byte, length uint8, cursor, offsets []byte) {
		addr, ok := netip.AddrFromSlice(base)
		if !ok || addr.Is4In6() {
			return
		}
		block, err := addr.Prefix(int(length))
		if err != nil {
			return
		}
		after, _ := netip.AddrFromSlice(cursor)
		taken := map[netip.Addr]bool{}
		for _, offset := range offsets {
			a := block.Addr()
			for range offset {
				a = a.Next()
			}
			if block.Contains(a) && !Reserved(block, a) {
				taken[a] = true
			}
		}
		looks := 0
		got, found := NextAddress(block, after, func(a netip.Addr) bool { looks++; return taken[a] })
		if looks > len(taken)+1 {
			t.Errorf("%d looks with %d taken", looks, len(taken))
		}
		if found != (int64(len(taken)) < AddressCount(block)) {
			t.Fatalf("found = %t, with %d of %d taken", found, len(taken), AddressCount(block))
		}
		if found && (taken[got] || Reserved(block, got) || !block.Contains(got)) {
			t.Errorf("%s cannot be given", got)
		}
	})
}
