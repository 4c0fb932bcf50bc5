package prober

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// Message is what a probe carries: a UDP datagram that fills an IP packet of a
// given size, and that comes back as it is but for its kind.
//
//	 0  magic, 8 bytes
//	 8  kind: 1 for a request, 2 for an answer
//	 9  way: the index of the path in model.Ways
//	10  size of the IP packet in bytes, 16 bits
//	12  1 where the datagram has no checksum, and the answer shall have none
//	13  zeros
//	16  network, 16 bytes
//	32  nonce, 16 bytes
//	48  zeros up to the size
//
// Numbers are in network byte order.
type message struct {
	kind byte
	way  int
	// size is that of the whole IP packet in bytes.
	size int
	// bare datagrams have no checksum.
	bare bool
	// network tells the cluster from others, with which it may share an underlay and
	// addresses.
	network [16]byte
	// nonce is known to nobody but who sent the request and who received it.
	nonce nonce
}

type nonce [16]byte

const (
	request = 1
	answer  = 2

	magic      = "podnet\x00\x01"
	headerSize = 48
	udpHeader  = 8
)

// ipHeader is the size of the IP header in bytes.
func ipHeader(to netip.Addr) int {
	if to.Is4() {
		return 20
	}
	return 40
}

// networkID writes the network's identity in the form that messages have.
func networkID(id string) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:16])
}

// encode writes a message into the beginning of a buffer that is large enough, and
// returns the datagram.
func (m message) encode(buffer []byte, to netip.Addr) []byte {
	datagram := buffer[:m.size-ipHeader(to)-udpHeader]
	clear(datagram)
	copy(datagram, magic)
	datagram[8], datagram[9] = m.kind, byte(m.way)
	binary.BigEndian.PutUint16(datagram[10:], uint16(m.size)) //nolint:gosec // No IP packet is larger than 16 bits say.
	if m.bare {
		datagram[12] = 1
	}
	copy(datagram[16:], m.network[:])
	copy(datagram[32:], m.nonce[:])
	return datagram
}

// decode reads a datagram that came from an address. It says false of what is no
// message, or not as long as it says.
func decode(datagram []byte, from netip.Addr) (message, bool) {
	if len(datagram) < headerSize || string(datagram[:len(magic)]) != magic {
		return message{}, false
	}
	m := message{kind: datagram[8], way: int(datagram[9]), size: int(binary.BigEndian.Uint16(datagram[10:])), bare: datagram[12] == 1}
	copy(m.network[:], datagram[16:])
	copy(m.nonce[:], datagram[32:])
	return m, len(datagram) == m.size-ipHeader(from)-udpHeader
}
