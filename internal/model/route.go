package model

import "net/netip"

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
