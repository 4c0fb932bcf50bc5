package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Sort brings the lists of the state into one order, so that equal states print
// and compare equal. Sysctls keep theirs, which has a meaning.
func (s *State) Sort() {
	slices.SortFunc(s.Links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Addresses, func(a, b Address) int {
		return cmp.Or(strings.Compare(a.Link, b.Link), ComparePrefix(a.Addr, b.Addr))
	})
	slices.SortFunc(s.Routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), ComparePrefix(a.Dst, b.Dst))
	})
	slices.SortFunc(s.Rules, func(a, b Rule) int {
		return cmp.Or(compareBool(a.IPv6, b.IPv6), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Table, b.Table), strings.Compare(a.In, b.In))
	})
	slices.SortFunc(s.Neighbours, func(a, b Neighbour) int {
		return cmp.Or(strings.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr))
	})
	slices.SortFunc(s.FDB, func(a, b FDBEntry) int {
		return cmp.Or(strings.Compare(a.Link, b.Link), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	slices.SortFunc(s.Ports, func(a, b Port) int { return strings.Compare(a.Link, b.Link) })
	slices.SortFunc(s.Firewall, func(a, b Table) int {
		return cmp.Or(strings.Compare(a.Family, b.Family), strings.Compare(a.Name, b.Name))
	})
	for _, t := range s.Firewall {
		slices.Sort(t.Counters)
		slices.SortFunc(t.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
		for _, set := range t.Sets {
			slices.SortFunc(set.Elements, CompareElement)
		}
	}
}

// ComparePrefix orders prefixes by address, then the larger ones first.
func ComparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// CompareElement orders the elements of a set by their keys.
func CompareElement(a, b Element) int { return slices.Compare(a.Key, b.Key) }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// CompareStrength orders RouteModes that select the same nodes, the one that
// decides first: by priority, then by age, then by name.
func CompareStrength(a, b RouteMode) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
}
