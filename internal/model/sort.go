package model

import (
	"cmp"
	"net/netip"
	"strings"
)

// ComparePrefix orders prefixes by address, then the larger ones first.
func ComparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

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
