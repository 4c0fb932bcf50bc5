package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Subnet is what decides whether a NodeSubnet is served.
type Subnet struct {
	// Name of the object.
	Name string
	CIDR netip.Prefix
	// Created is the object's creationTimestamp.
	Created time.Time
}

// Conflict is a Subnet that is refused, and why.
type Conflict struct {
	Refused Subnet
	// With is the Subnet that is served instead; its name is empty where Refused
	// lies in no range.
	With Subnet
}

// Outside reports whether the refused Subnet lies in no range of its network.
func (c Conflict) Outside() bool { return c.With.Name == "" }

// String says in a sentence without a full stop what is refused and why.
func (c Conflict) String() string {
	if c.Outside() {
		return fmt.Sprintf("NodeSubnet %s (%s) lies in no range of the network and is refused", c.Refused.Name, c.Refused.CIDR)
	}
	return fmt.Sprintf("NodeSubnet %s (%s) overlaps the older %s (%s) and is refused",
		c.Refused.Name, c.Refused.CIDR, c.With.Name, c.With.CIDR)
}

// Conflicts returns the Subnets that nobody serves, ordered by name: those that
// lie in none of the ranges, and of those that overlap all but the oldest, by
// creation and then by name. What is refused refuses no other. The manager and
// every agent decide by this one function, so they agree without talking.
func Conflicts(subnets []Subnet, ranges []netip.Prefix) []Conflict {
	var conflicts []Conflict
	within := make([]Subnet, 0, len(subnets))
	for _, s := range subnets {
		if slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Overlaps(s.CIDR) && r.Bits() <= s.CIDR.Bits() }) {
			within = append(within, s)
		} else {
			conflicts = append(conflicts, Conflict{Refused: s})
		}
	}
	// Prefixes overlap only by one containing the other. Sorted by address and
	// then by length, whatever a prefix contains follows it directly.
	slices.SortFunc(within, func(a, b Subnet) int {
		return cmp.Or(a.CIDR.Addr().Compare(b.CIDR.Addr()), cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()))
	})
	for start := 0; start < len(within); {
		end := start + 1
		for end < len(within) && within[start].CIDR.Contains(within[end].CIDR.Addr()) {
			end++
		}
		if end-start > 1 {
			conflicts = append(conflicts, conflictsWithin(within[start].CIDR.Bits(), within[start:end])...)
		}
		start = end
	}
	slices.SortFunc(conflicts, func(a, b Conflict) int { return strings.Compare(a.Refused.Name, b.Refused.Name) })
	return conflicts
}

// conflictsWithin decides between Subnets that all lie in one prefix of the length bits.
func conflictsWithin(bits int, subnets []Subnet) []Conflict {
	byAge := slices.SortedFunc(slices.Values(subnets), func(a, b Subnet) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	var conflicts []Conflict
	served := map[netip.Prefix]Subnet{}
	// under holds, for each prefix that contains a served Subnet, one of these.
	under := map[netip.Prefix]Subnet{}
	for _, s := range byAge {
		winner, overlaps := under[s.CIDR]
		for length := bits; length <= s.CIDR.Bits() && !overlaps; length++ {
			winner, overlaps = served[shortened(s.CIDR, length)]
		}
		if overlaps {
			conflicts = append(conflicts, Conflict{Refused: s, With: winner})
			continue
		}
		served[s.CIDR] = s
		for length := bits; length <= s.CIDR.Bits(); length++ {
			if above := shortened(s.CIDR, length); under[above].Name == "" {
				under[above] = s
			}
		}
	}
	return conflicts
}

// shortened is the prefix of the given length that contains p.
func shortened(p netip.Prefix, length int) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), length).Masked()
}
