package host

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func foreigns(texts ...string) []foreign {
	var out []foreign
	for _, text := range texts {
		cidr, link, _ := strings.Cut(text, " ")
		out = append(out, foreign{netip.MustParsePrefix(cidr), link})
	}
	return out
}

func TestOverlapsAreNamedOnce(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd44::/48")}
	for name, c := range map[string]struct {
		all []foreign
		// cidrs are those of the finding; none for no finding.
		cidrs []string
		word  string
	}{
		"nothing":                          {},
		"apart":                            {all: foreigns("192.168.0.0/16 eth0", "10.243.0.0/16 eth1", "fd45::/48 eth0")},
		"inside a range":                   {foreigns("10.244.9.0/24 eth1"), []string{"10.244.9.0/24"}, "10.244.9.0/24 on eth1 (range 10.244.0.0/16)"},
		"around a range":                   {foreigns("10.0.0.0/8 eth1"), []string{"10.0.0.0/8"}, "10.0.0.0/8 on eth1 (range 10.244.0.0/16)"},
		"IPv6":                             {foreigns("fd44:0:0:9::/64 eth1"), []string{"fd44:0:0:9::/64"}, "(range fd44::/48)"},
		"an address alone":                 {foreigns("10.244.9.1/32 lo"), []string{"10.244.9.1/32"}, "10.244.9.1/32 on lo"},
		"an address of a network":          {foreigns("10.244.9.1/32 eth1", "10.244.9.0/24 eth1"), []string{"10.244.9.0/24"}, "ranges: 10.244.9.0/24 on eth1 (range 10.244.0.0/16)."},
		"its first address":                {foreigns("10.244.9.0/32 eth1", "10.244.9.0/24 eth1"), []string{"10.244.9.0/24"}, "ranges: 10.244.9.0/24 on eth1 (range 10.244.0.0/16)."},
		"an address of another interface":  {foreigns("10.244.9.1/32 eth2", "10.244.9.0/24 eth1"), []string{"10.244.9.0/24", "10.244.9.1/32"}, "10.244.9.1/32 on eth2"},
		"one network on two interfaces":    {foreigns("10.244.9.0/24 eth2", "10.244.9.0/24 eth1"), []string{"10.244.9.0/24"}, "10.244.9.0/24 on eth1 (range 10.244.0.0/16), 10.244.9.0/24 on eth2"},
		"default routes":                   {all: foreigns("0.0.0.0/0 ppp0", "::/0 ppp0")},
		"halves of default routes":         {all: foreigns("0.0.0.0/1 tun0", "128.0.0.0/1 tun0", "::/1 tun0", "8000::/1 tun0")},
		"an address beside a default":      {foreigns("0.0.0.0/0 ppp0", "10.244.9.1/32 ppp0"), []string{"10.244.9.1/32"}, "ppp0"},
		"local to every link or host":      {all: foreigns("169.254.0.0/16 eth0", "fe80::/64 eth0", "127.0.0.1/32 lo", "::1/128 lo", "224.0.0.0/4 eth0", "ff00::/8 eth0")},
		"what has no prefix (IPv4-mapped)": {all: []foreign{{netip.PrefixFrom(netip.MustParseAddr("10.244.0.0"), 96), "eth0"}}},
	} {
		t.Run(name, func(t *testing.T) {
			slices.Reverse(c.all)
			found := overlapFinding(c.all, ranges)
			if len(found) == 0 && len(c.cidrs) == 0 {
				return
			}
			if len(found) != 1 || found[0].Type != FindingRangeOverlap || !strings.Contains(found[0].Message, c.word) ||
				fmt.Sprint(found[0].CIDRs) != fmt.Sprint(c.cidrs) {
				t.Errorf("found %+v; want one with %v and %q", found, c.cidrs, c.word)
			}
		})
	}
}

func TestManyOverlapsAreOneFinding(t *testing.T) {
	var all []foreign
	for i := range 250 {
		all = append(all, foreign{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 7}), 32), fmt.Sprintf("cali%d", i)})
	}
	found := overlapFinding(all, []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")})
	if len(found) != 1 || len(found[0].CIDRs) != maxFindingCIDRs || !strings.Contains(found[0].Message, "and 245 more") {
		t.Errorf("found %+v; want one with %d prefixes that counts the rest", found, maxFindingCIDRs)
	}
}
