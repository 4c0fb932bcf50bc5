package model

import "net/netip"

// Neighbour is a permanent neighbour entry (ARP, NDP).
type Neighbour struct {
	Link string
	Addr netip.Addr
	MAC  MAC
}
