package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// subnets makes Subnets, each a second younger than the one before.
func subnets(cidrs ...string) []Subnet {
	out := make([]Subnet, len(cidrs))
	for i, c := range cidrs {
		out[i] = Subnet{Name: strings.ReplaceAll(c, "/", "-"), CIDR: netip.MustParsePrefix(c), Created: time.Unix(int64(i), 0)}
	}
	return out
}

func TestOlderSubnetWins(t *testing.T) {
	ranges := prefixes("10.244.0.0/16", "fd00::/48")
	cases := map[string]struct {
		subnets []Subnet
		want    []string
	}{
		"none": {subnets("10.244.0.0/24", "10.244.1.0/24", "fd00::/64"), nil},
		"younger inside older": {subnets("10.244.0.0/24", "10.244.0.0/25"),
			[]string{"NodeSubnet 10.244.0.0-25 (10.244.0.0/25) overlaps the older 10.244.0.0-24 (10.244.0.0/24) and is refused"}},
		"older inside younger": {subnets("10.244.0.128/25", "10.244.0.0/24"),
			[]string{"NodeSubnet 10.244.0.0-24 (10.244.0.0/24) overlaps the older 10.244.0.128-25 (10.244.0.128/25) and is refused"}},
		"outside": {subnets("192.168.0.0/24"),
			[]string{"NodeSubnet 192.168.0.0-24 (192.168.0.0/24) lies in no range of the network and is refused"}},
		"larger than its range, though older": {subnets("10.0.0.0/8", "10.244.0.0/24"),
			[]string{"NodeSubnet 10.0.0.0-8 (10.0.0.0/8) lies in no range of the network and is refused"}},
		"the refused refuses nobody": {subnets("10.244.0.0/24", "10.244.0.0/22", "10.244.1.0/24"),
			[]string{"NodeSubnet 10.244.0.0-22 (10.244.0.0/22) overlaps the older 10.244.0.0-24 (10.244.0.0/24) and is refused"}},
		"IPv6": {subnets("fd00::/64", "fd00::/128"),
			[]string{"NodeSubnet fd00::-128 (fd00::/128) overlaps the older fd00::-64 (fd00::/64) and is refused"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, conflict := range Conflicts(c.subnets, ranges) {
				got = append(got, conflict.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNameDecidesBetweenSubnetsOfOneAge(t *testing.T) {
	same := subnets("10.244.0.0/25", "10.244.0.0/24")
	same[1].Created = same[0].Created
	got := Conflicts(same, prefixes("10.244.0.0/16"))
	if len(got) != 1 || got[0].Refused.Name != "10.244.0.0-25" {
		t.Errorf("got %v, want 10.244.0.0-25 refused", got)
	}
}

// TestConflictsInAnyOrder checks, on random Subnets in random order, that what is
// served does not overlap, and that each refused one overlaps an older one that is served.
func TestConflictsInAnyOrder(t *testing.T) {
	ranges := prefixes("10.1.2.0/26")
	r := Range{ranges[0], 30}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 3))
		byCIDR := map[netip.Prefix]Subnet{}
		for i := range 20 {
			p := randomPrefix(random, r)
			byCIDR[p] = Subnet{Name: fmt.Sprintf("s%02d", i), CIDR: p, Created: time.Unix(int64(random.IntN(5)), 0)}
		}
		var all []Subnet
		for _, s := range byCIDR {
			all = append(all, s)
		}
		conflicts := Conflicts(all, ranges)
		slices.Reverse(all)
		if !slices.Equal(conflicts, Conflicts(all, ranges)) {
			t.Fatalf("seed %d: the order of the arguments changed the answer", seed)
		}
		served := slices.DeleteFunc(slices.Clone(all), func(s Subnet) bool {
			return slices.ContainsFunc(conflicts, func(c Conflict) bool { return c.Refused == s })
		})
		for i, a := range served {
			for _, b := range served[i+1:] {
				if a.CIDR.Overlaps(b.CIDR) {
					t.Fatalf("seed %d: %v and %v are both served", seed, a, b)
				}
			}
		}
		for _, c := range conflicts {
			if c.Outside() {
				continue
			}
			older := c.With.Created.Before(c.Refused.Created) ||
				c.With.Created.Equal(c.Refused.Created) && c.With.Name < c.Refused.Name
			if !older || !c.With.CIDR.Overlaps(c.Refused.CIDR) || !slices.Contains(served, c.With) {
				t.Fatalf("seed %d: %v", seed, c)
			}
		}
	}
}
