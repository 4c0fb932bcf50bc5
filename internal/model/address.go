package model

import "net/netip"

// Address is an address of a link, assigned without a prefix route and, for
// IPv6, without duplicate address detection.
type Address struct {
	Link string
	Addr netip.Prefix
}
