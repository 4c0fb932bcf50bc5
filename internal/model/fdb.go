package model

import "net/netip"

// FDBEntry is a permanent entry of a VXLAN device's forwarding table.
type FDBEntry struct {
	Link string
	MAC  MAC
	// Endpoint is the node to which frames for MAC go.
	Endpoint netip.Addr
}
