// Package connectivity shows which pods reach each other, and how fast. A server in each pod answers peers over TCP and
// UDP, and tries peers when it is asked to; a matrix asks every server to try every other. It knows addresses only: which
// pods there are is left to others.
package connectivity

import (
	"net/netip"
	"time"
)

// Sizes of what a probe sends. Segments of the bulk are as large as the path's MTU, so that a path that loses large
// packets and carries small ones shows.
const (
	pingSize = 64
	bulkSize = 256 << 10
	pings    = 5
)

// Times that a probe may take: for one datagram and its answer, and for the whole of a TCP exchange.
const (
	pingTimeout = time.Second
	bulkTimeout = 3 * time.Second
)

// Paths of a server's HTTP interface.
const (
	pathHealth = "/healthz"
	pathBulk   = "/bulk"
	pathProbe  = "/probe"
)

// Peer is a server that can be reached.
type Peer struct {
	// Name is what tables call it, such as the name of its node.
	Name string `json:"name"`
	// Addrs are its addresses, at most one of each family.
	Addrs []netip.Addr `json:"addrs"`
}

// Family is an IP family.
type Family string

// The families, as tables call them.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// addr returns the peer's address of a family, if it has one.
func (p Peer) addr(f Family) (netip.Addr, bool) {
	for _, a := range p.Addrs {
		if familyOf(a) == f {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Result is what came of trying one address.
type Result struct {
	Addr netip.Addr `json:"addr"`
	// RoundTrip is the shortest time that a UDP datagram and its answer took; valid when Error is empty.
	RoundTrip time.Duration `json:"roundTrip"`
	// Error says what failed, or is empty.
	Error string `json:"error,omitempty"`
}
