package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Neighbour is a permanent neighbour entry (ARP, NDP).
type Neighbour struct {
	Link string
	Addr netip.Addr
	MAC  MAC
}

type neighbourKey struct {
	link string
	addr netip.Addr
}

// ObjectKind implements Object.
func (Neighbour) ObjectKind() ObjectKind { return KindNeighbour }

// Identity implements Object.
func (n Neighbour) Identity() any { return neighbourKey{n.Link, n.Addr} }

// On implements Object.
func (n Neighbour) On() string { return n.Link }

// IP implements Object.
func (n Neighbour) IP() netip.Addr { return n.Addr }

// Describe implements Object.
func (n Neighbour) Describe() string { return fmt.Sprintf("neighbour %s on %s", n.Addr, n.Link) }

// Detail implements Object.
func (n Neighbour) Detail(Object) string { return n.MAC.String() }

// Compare orders neighbours by link and address.
func (n Neighbour) Compare(other Neighbour) int {
	return cmp.Or(strings.Compare(n.Link, other.Link), n.Addr.Compare(other.Addr))
}
