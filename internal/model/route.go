package model

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Route is a route of one of podnet's tables.
type Route struct {
	// Table is ProbeRoutedTable or ProbeOverlayTable, and 0 for RouteTable.
	Table int
	Dst   netip.Prefix
	// Unreachable routes answer with an ICMP error; they have no link.
	Unreachable bool
	Link        string
	// Via is the gateway; invalid where Dst is on the link. That of an IPv4 route may be
	// an IPv6 address (RFC 5549).
	Via netip.Addr
	// OnLink says that Via is on Link although no address of the link covers it.
	OnLink bool
	// Src is the preferred source of the node's own packets; invalid for none.
	Src netip.Addr
	// MTU is the largest IP packet in bytes that the path carries; 0 for that of the link.
	MTU int
}

type routeKey struct {
	table int
	dst   netip.Prefix
}

// ObjectKind implements Object.
func (Route) ObjectKind() ObjectKind { return KindRoute }

// Identity implements Object.
func (r Route) Identity() any { return routeKey{r.Table, r.Dst} }

// On implements Object.
func (r Route) On() string { return r.Link }

// IP implements Object.
func (r Route) IP() netip.Addr { return r.Dst.Addr() }

// Describe implements Object.
func (r Route) Describe() string {
	what := "route to " + r.Dst.String()
	if r.Table != 0 {
		what = fmt.Sprintf("route of table %d to %s", r.Table, r.Dst)
	}
	switch {
	case r.Unreachable:
		return "unreachable " + what
	case r.Via.IsValid():
		return what + fmt.Sprintf(" via %s on %s", r.Via, r.Link)
	default:
		return what + " on " + r.Link
	}
}

// Detail implements Object.
func (r Route) Detail(other Object) string {
	if text := r.Describe(); text != other.Describe() {
		return text
	}
	return fmt.Sprintf("source %s, MTU %d", r.Src, r.MTU)
}

// Compare orders routes by their tables and destinations.
func (r Route) Compare(other Route) int {
	return cmp.Or(cmp.Compare(r.Table, other.Table), ComparePrefix(r.Dst, other.Dst))
}
