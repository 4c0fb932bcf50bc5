package topology

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Tagged puts a tag (IEEE 802.1Q, or 802.1ad, by its type) into an Ethernet frame.
func Tagged(frame []byte, kind, id uint16) []byte {
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), id)
	return slices.Concat(frame[:12], tag, frame[12:])
}

// To is a frame with another destination.
func To(mac [6]byte, frame []byte) []byte { return slices.Concat(mac[:], frame[6:]) }

// ARPRequest asks who has an address (RFC 826).
func ARPRequest(mac [6]byte, sender, target netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac[:], sender.AsSlice(), make([]byte, 6), target.AsSlice())
}

// Types of messages of neighbour discovery (RFC 4861, section 4).
const (
	RouterSolicitation     = 133
	NeighbourSolicitation  = 135
	NeighbourAdvertisement = 136
)

// Discovery is a message of neighbour discovery about a target, which router
// solicitations have none of, from whoever has a MAC.
func Discovery(kind byte, mac [6]byte, from, to, target netip.Addr) []byte {
	message := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
	option := byte(1)
	if kind == NeighbourAdvertisement {
		// Solicited, and to be believed although another address is known (override).
		message[4], option = 0x60, 2
	}
	if kind != RouterSolicitation {
		message = append(message, target.AsSlice()...)
	}
	return icmpv6(from, to, slices.Concat(message, []byte{option, 1}, mac[:]))
}

// RouterAdvertisement says that whoever has a MAC is a default router for half an hour.
func RouterAdvertisement(mac [6]byte, from, to netip.Addr) []byte {
	return icmpv6(from, to, slices.Concat([]byte{134, 0, 0, 0, 64, 0, 0x07, 0x08}, make([]byte, 8), []byte{1, 1}, mac[:]))
}

// EchoRequest is a ping of IPv6 (RFC 4443, section 4.1), with an even number of bytes in it.
func EchoRequest(from, to netip.Addr, payload []byte) []byte {
	return icmpv6(from, to, slices.Concat([]byte{128, 0, 0, 0, 0, 7, 0, 1}, payload))
}

// icmpv6 is a whole IP packet that came by no router, with a message of ICMPv6 in it.
func icmpv6(from, to netip.Addr, message []byte) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(message)))
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), length, []byte{0, 0, 0, unix.IPPROTO_ICMPV6}, message)
	binary.BigEndian.PutUint16(message[2:], checksum(pseudo))
	header := []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_ICMPV6, 255}
	binary.BigEndian.PutUint16(header[4:], uint16(len(message)))
	return slices.Concat(header, from.AsSlice(), to.AsSlice(), message)
}
