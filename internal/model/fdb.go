package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// FDBEntry is a permanent entry of a VXLAN device's forwarding table.
type FDBEntry struct {
	Link string
	MAC  MAC
	// Endpoint is the node to which frames for MAC go.
	Endpoint netip.Addr
}

type fdbKey struct {
	link string
	mac  MAC
}

// ObjectKind implements Object.
func (FDBEntry) ObjectKind() ObjectKind { return KindFDB }

// Identity implements Object.
func (e FDBEntry) Identity() any { return fdbKey{e.Link, e.MAC} }

// On implements Object.
func (e FDBEntry) On() string { return e.Link }

// IP implements Object.
func (FDBEntry) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (e FDBEntry) Describe() string {
	return fmt.Sprintf("forwarding entry of %s to %s on %s", e.MAC, e.Endpoint, e.Link)
}

// Detail implements Object.
func (e FDBEntry) Detail(Object) string { return e.Endpoint.String() }

// Compare orders entries by link and MAC.
func (e FDBEntry) Compare(other FDBEntry) int {
	return cmp.Or(strings.Compare(e.Link, other.Link), slices.Compare(e.MAC[:], other.MAC[:]))
}
