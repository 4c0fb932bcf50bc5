package ipam

import (
	"math"
	"net/netip"

	"go4.org/netipx"
)

// NodeAddress returns the address of a block that the node itself has, on its
// VXLAN device: the block's base address.
func NodeAddress(block netip.Prefix) netip.Addr {
	return block.Masked().Addr()
}

// GatewayAddress returns the address of a block that the node's bridge has under
// the Bridge attachment: the one after the base address. It is invalid for a
// block of a single address.
func GatewayAddress(block netip.Prefix) netip.Addr {
	gateway := NodeAddress(block).Next()
	if !block.Contains(gateway) {
		return netip.Addr{}
	}
	return gateway
}

// Reserved says whether addr is an address of the block that no pod gets: the
// node's, the gateway's and, for IPv4, the last one, which a bridge would take
// for its broadcast address. An address outside the block is not reserved.
func Reserved(block netip.Prefix, addr netip.Addr) bool {
	if !block.Contains(addr) {
		return false
	}
	return addr == NodeAddress(block) || addr == GatewayAddress(block) ||
		addr.Is4() && addr == netipx.PrefixLastIP(block)
}

// AddressCount returns the number of addresses of a block that pods can have. It
// is math.MaxInt64 where there are more.
func AddressCount(block netip.Prefix) int64 {
	bits := block.Addr().BitLen() - block.Bits()
	if bits >= 63 {
		return math.MaxInt64
	}
	reserved := int64(2)
	if block.Addr().Is4() {
		reserved = 3
	}
	return max(int64(1)<<bits-reserved, 0)
}

// NextAddress returns the first address after the cursor that a pod can have and
// that is not taken, beginning again at the block's start when its end is
// reached, and false when all are taken. Whoever passes the address that was
// given last as the cursor lets each address rest as long as the block allows.
// A cursor outside the block stands for its start.
//
// It looks at one address more than are taken, however large the block is.
func NextAddress(block netip.Prefix, after netip.Addr, taken func(netip.Addr) bool) (netip.Addr, bool) {
	if AddressCount(block) == 0 {
		return netip.Addr{}, false
	}
	first := GatewayAddress(block).Next()
	start := first
	if block.Contains(after) {
		start = following(block, first, after)
	}
	for addr := start; ; {
		if !taken(addr) {
			return addr, true
		}
		addr = following(block, first, addr)
		if addr == start {
			return netip.Addr{}, false
		}
	}
}

// following returns the address after addr that a pod can have, which is first
// where addr is the last of them.
func following(block netip.Prefix, first, addr netip.Addr) netip.Addr {
	next := addr.Next()
	if !block.Contains(next) || next.Less(first) || Reserved(block, next) {
		return first
	}
	return next
}
