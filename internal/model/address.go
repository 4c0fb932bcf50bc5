package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Address is an address of a link, assigned without a prefix route and, for
// IPv6, without duplicate address detection.
type Address struct {
	Link string
	Addr netip.Prefix
}

// ObjectKind implements Object.
func (Address) ObjectKind() ObjectKind { return KindAddress }

// Identity implements Object.
func (a Address) Identity() any { return a }

// On implements Object.
func (a Address) On() string { return a.Link }

// IP implements Object.
func (a Address) IP() netip.Addr { return a.Addr.Addr() }

// Describe implements Object.
func (a Address) Describe() string { return fmt.Sprintf("address %s on %s", a.Addr, a.Link) }

// Detail implements Object.
func (Address) Detail(Object) string { return "" }

// Compare orders addresses by their links.
func (a Address) Compare(other Address) int {
	return cmp.Or(strings.Compare(a.Link, other.Link), ComparePrefix(a.Addr, other.Addr))
}
