package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func claim(kind ClaimKind, cidr, by string) Claim {
	return Claim{CIDR: netip.MustParsePrefix(cidr), Kind: kind, By: by}
}

func TestOverlapsNameBothSides(t *testing.T) {
	cases := map[string]struct {
		ranges []netip.Prefix
		claims []Claim
		// want are words of each sentence, in their order.
		want [][]string
	}{
		"nothing":                    {ranges: prefixes("10.244.0.0/16", "fd00:10:244::/48")},
		"no ranges":                  {claims: []Claim{claim(ClaimServices, "10.96.0.0/16", "kubernetes")}},
		"neighbours":                 {ranges: prefixes("10.244.0.0/16"), claims: []Claim{claim(ClaimServices, "10.243.0.0/16", "a"), claim(ClaimServices, "10.245.0.0/16", "b")}},
		"services of another family": {ranges: prefixes("10.244.0.0/16"), claims: []Claim{claim(ClaimServices, "fd00::/108", "kubernetes")}},
		"services in the range": {
			ranges: prefixes("10.96.0.0/12"), claims: []Claim{claim(ClaimServices, "10.96.0.0/16", "kubernetes")},
			want: [][]string{{"Range 10.96.0.0/12 ", "the service CIDR 10.96.0.0/16 (ServiceCIDR kubernetes)", "drain"}},
		},
		"the range in the services'": {
			ranges: prefixes("10.96.8.0/24"), claims: []Claim{claim(ClaimServices, "10.96.0.0/16", "kubernetes")},
			want: [][]string{{"Range 10.96.8.0/24 ", "10.96.0.0/16"}},
		},
		"the very same": {
			ranges: prefixes("fd00:10::/108"), claims: []Claim{claim(ClaimServices, "fd00:10::/108", "six")},
			want: [][]string{{"Range fd00:10::/108 ", "the service CIDR fd00:10::/108 (ServiceCIDR six)"}},
		},
		"one CIDR of two ServiceCIDRs is one sentence": {
			ranges: prefixes("10.96.0.0/12"), claims: []Claim{claim(ClaimServices, "10.96.0.0/16", "b"), claim(ClaimServices, "10.96.0.0/16", "a")},
			want: [][]string{{"(ServiceCIDR a, b)"}},
		},
		"one use of two ranges is two sentences": {
			ranges: prefixes("10.1.0.0/16", "10.0.0.0/16"), claims: []Claim{claim(ClaimServices, "10.0.0.0/8", "wide")},
			want: [][]string{{"Range 10.0.0.0/16 "}, {"Range 10.1.0.0/16 "}},
		},
		"addresses of nodes are one sentence a range": {
			ranges: prefixes("192.0.2.0/24"),
			claims: []Claim{
				claim(ClaimNode, "192.0.2.2/32", "node-2"), claim(ClaimNode, "192.0.2.1/32", "node-1"),
				claim(ClaimNode, "192.0.2.1/32", "node-1"), claim(ClaimNode, "198.51.100.3/32", "node-3"),
			},
			want: [][]string{{"Range 192.0.2.0/24 ", "(node-1 has 192.0.2.1, node-2 has 192.0.2.2)"}},
		},
		"an IPv4 address in its IPv6 coat": {
			ranges: prefixes("192.0.2.0/24"), claims: []Claim{claim(ClaimNode, "::ffff:192.0.2.1/128", "node-1")},
			want: [][]string{{"node-1 has 192.0.2.1"}},
		},
		"a network behind one node": {
			ranges: prefixes("172.16.0.0/12"), claims: []Claim{claim(ClaimInterface, "172.17.0.1/16", "node-1")},
			want: [][]string{{"Range 172.16.0.0/12 ", "172.17.0.0/16, which 1 node has on an interface (node-1)"}},
		},
		"a network behind two nodes": {
			ranges: prefixes("172.16.0.0/12"),
			claims: []Claim{claim(ClaimInterface, "172.17.0.0/16", "node-2"), claim(ClaimInterface, "172.17.0.0/16", "node-1")},
			want:   [][]string{{"172.17.0.0/16, which 2 nodes have on an interface (node-1, node-2)"}},
		},
		"services come first": {
			ranges: prefixes("0.0.0.0/1"),
			claims: []Claim{
				claim(ClaimInterface, "10.0.0.0/24", "n"), claim(ClaimNode, "10.0.0.1/32", "n"), claim(ClaimServices, "10.96.0.0/16", "kubernetes"),
			},
			want: [][]string{
				{"the service CIDR 10.96.0.0/16"}, {"0.0.0.0/8", `"this network"`}, {"127.0.0.0/8"}, {"n has 10.0.0.1"}, {"10.0.0.0/24"},
			},
		},
		"what is invalid does not count": {ranges: []netip.Prefix{{}}, claims: []Claim{{Kind: ClaimServices, By: "x"}}},
		"this network":                   {ranges: prefixes("0.1.0.0/16"), want: [][]string{{"0.0.0.0/8", "reserved", "drain"}}},
		"loopback":                       {ranges: prefixes("127.16.0.0/12"), want: [][]string{{"127.0.0.0/8", "loopback"}}},
		"link-local":                     {ranges: prefixes("169.254.0.0/17"), want: [][]string{{"169.254.0.0/16", "link-local"}}},
		"around link-local":              {ranges: prefixes("169.252.0.0/14"), want: [][]string{{"169.254.0.0/16", "link-local"}}},
		"multicast":                      {ranges: prefixes("239.0.0.0/8"), want: [][]string{{"224.0.0.0/4", "multicast"}}},
		"class E":                        {ranges: prefixes("240.0.0.0/8"), want: [][]string{{"240.0.0.0/4", "class E"}}},
		"broadcast":                      {ranges: prefixes("255.255.255.0/24"), want: [][]string{{"240.0.0.0/4", "broadcast"}}},
		"IPv6 link-local":                {ranges: prefixes("fe80::/48"), want: [][]string{{"fe80::/10", "link-local"}}},
		"IPv6 multicast":                 {ranges: prefixes("ff05::/16"), want: [][]string{{"ff00::/8", "multicast"}}},
		"the low end of IPv6":            {ranges: prefixes("::/64"), want: [][]string{{"::/128", "unspecified"}, {"::1/128", "loopback"}, {"::ffff:0.0.0.0/96", "IPv4-mapped"}}},
		"IPv4-mapped":                    {ranges: prefixes("::ffff:10.0.0.0/104"), want: [][]string{{"::ffff:0.0.0.0/96", "IPv4-mapped"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := Overlaps(c.ranges, c.claims)
			if len(got) != len(c.want) {
				t.Fatalf("%v; want %d sentences with %q", got, len(c.want), c.want)
			}
			for i, o := range got {
				for _, words := range c.want[i] {
					if !strings.Contains(o.String(), words) {
						t.Errorf("sentence %d is %q; want %q in it", i, o, words)
					}
				}
				if !strings.HasSuffix(o.String(), ".") {
					t.Errorf("%q does not end", o)
				}
			}
		})
	}
}

func TestManyUsersAreCounted(t *testing.T) {
	var claims []Claim
	for i := range 5000 {
		claims = append(claims, claim(ClaimInterface, "10.0.0.0/24", fmt.Sprintf("node-%04d", i)))
	}
	got := Overlaps(prefixes("10.0.0.0/8"), claims)
	want := "which 5000 nodes have on an interface (node-0000, node-0001, node-0002, node-0003, node-0004 and 4995 more)"
	if len(got) != 1 || !strings.Contains(got[0].String(), want) || len(got[0].String()) > 512 {
		t.Errorf("%v; want one sentence of at most 512 characters with %q", got, want)
	}
}

// FuzzOverlaps checks, for ranges and claims of either family, that what overlaps
// is what netip finds pair by pair, and that the order of the arguments does not
// matter.
func FuzzOverlaps(f *testing.F) {
	f.Add(uint64(1), uint8(8), uint8(30))
	f.Add(uint64(2), uint8(64), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, ranges, claims uint8) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // Tests are to be repeatable.
		prefix := func() netip.Prefix {
			var raw [16]byte
			// Few different bits, so that many prefixes overlap, also reserved ones.
			for i := range 3 {
				raw[i] = []byte{0, 10, 127, 224, 255}[random.IntN(5)]
			}
			if random.IntN(2) == 0 {
				return netip.PrefixFrom(netip.AddrFrom4([4]byte(raw[:4])), random.IntN(33))
			}
			return netip.PrefixFrom(netip.AddrFrom16(raw), random.IntN(129))
		}
		var list []netip.Prefix
		for range ranges {
			list = append(list, prefix())
		}
		var claimed []Claim
		for i := range claims {
			claimed = append(claimed, Claim{CIDR: prefix(), Kind: []ClaimKind{ClaimServices, ClaimNode, ClaimInterface}[random.IntN(3)], By: fmt.Sprint(i)})
		}
		got := Overlaps(list, claimed)

		want := map[OverlapKey]int{}
		for _, u := range slices.Concat(claimed, reserved) {
			seen := map[netip.Prefix]bool{}
			for _, r := range list {
				if r = r.Masked(); !r.Overlaps(u.CIDR) || seen[r] {
					continue
				}
				seen[r] = true
				key := OverlapKey{Kind: u.Kind, Range: r, CIDR: u.CIDR.Masked()}
				if u.Kind == ClaimNode {
					key.CIDR = netip.Prefix{}
				}
				want[key]++
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d overlaps; want %d", len(got), len(want))
		}
		for _, o := range got {
			if o.Users != want[o.OverlapKey] || len(o.By) != min(o.Users, namedUsers) {
				t.Errorf("%+v has %d users; want %d", o, o.Users, want[o.OverlapKey])
			}
		}

		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		random.Shuffle(len(claimed), func(i, j int) { claimed[i], claimed[j] = claimed[j], claimed[i] })
		if again := Overlaps(list, claimed); !reflect.DeepEqual(got, again) {
			t.Errorf("in another order:\n%v\nand not:\n%v", again, got)
		}
	})
}

// BenchmarkOverlaps has the size that podnet is made for: 64 ranges and 5,000
// nodes, each with addresses and with networks on its links.
func BenchmarkOverlaps(b *testing.B) {
	for name, inside := range map[string]bool{"apart": false, "overlapping": true} {
		b.Run(name, func(b *testing.B) {
			var ranges []netip.Prefix
			var claims []Claim
			for i := range 64 {
				ranges = append(ranges, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(4 * i), 0, 0}), 14))
			}
			first := byte(172)
			if inside {
				first = 10
			}
			for i := range 5000 {
				node := fmt.Sprintf("node-%d", i)
				for j := range 4 {
					addr := netip.AddrFrom4([4]byte{first, byte(i / 256), byte(i), byte(j)})
					claims = append(claims, Claim{CIDR: netip.PrefixFrom(addr, 32), Kind: ClaimNode, By: node})
					claims = append(claims, Claim{CIDR: netip.PrefixFrom(addr, 24), Kind: ClaimInterface, By: node})
				}
			}
			for b.Loop() {
				Overlaps(ranges, claims)
			}
		})
	}
}
