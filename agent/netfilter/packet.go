package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// withPorts are the protocols that have ports, with their names, and withoutPorts others
// that have names.
var (
	withPorts    = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	withoutPorts = map[byte]string{unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "ipv6-icmp"}
)

// parsePacket reads what of an IP packet is needed to tell whose it is. Of one that was cut
// off, or is a later fragment, the ports are 0.
func parsePacket(packet []byte) (model.DeniedPacket, error) {
	if len(packet) == 0 {
		return model.DeniedPacket{}, errors.New("the packet is empty")
	}
	read := parseIPv4
	if packet[0]>>4 == 6 {
		read = parseIPv6
	}
	p, protocol, rest, err := read(packet)
	if err != nil {
		return p, err
	}
	if name, ok := withPorts[protocol]; ok {
		p.Protocol = name
		if len(rest) >= 4 {
			p.FromPort, p.ToPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		}
	} else if name, ok := withoutPorts[protocol]; ok {
		p.Protocol = name
	} else {
		p.Protocol = fmt.Sprint(protocol)
	}
	return p, nil
}

// parseIPv4 reads a header of RFC 791 and returns what comes after it, which of a later
// fragment is nothing.
func parseIPv4(packet []byte) (p model.DeniedPacket, protocol byte, rest []byte, err error) {
	const header = 20
	if len(packet) < header {
		return p, 0, nil, errors.New("the IPv4 header is cut off")
	}
	p.From, _ = netip.AddrFromSlice(packet[12:16])
	p.To, _ = netip.AddrFromSlice(packet[16:20])
	const offset = 1<<13 - 1
	if length := int(packet[0]&0xf) * 4; length < len(packet) && binary.BigEndian.Uint16(packet[6:])&offset == 0 {
		rest = packet[max(length, header):]
	}
	return p, packet[9], rest, nil
}

// parseIPv6 reads a header of RFC 8200 and those of extensions after it.
func parseIPv6(packet []byte) (p model.DeniedPacket, protocol byte, rest []byte, err error) {
	const header = 40
	if len(packet) < header {
		return p, 0, nil, errors.New("the IPv6 header is cut off")
	}
	p.From, _ = netip.AddrFromSlice(packet[8:24])
	p.To, _ = netip.AddrFromSlice(packet[24:40])
	protocol, rest = packet[6], packet[header:]
	for {
		const shortest = 8
		length := shortest
		switch protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(rest) >= shortest {
				length = (int(rest[1]) + 1) * 8
			}
		case unix.IPPROTO_AH:
			if len(rest) >= shortest {
				length = (int(rest[1]) + 2) * 4
			}
		case unix.IPPROTO_FRAGMENT:
			if len(rest) >= shortest && binary.BigEndian.Uint16(rest[2:])>>3 != 0 {
				return p, rest[0], nil, nil
			}
		default:
			return p, protocol, rest, nil
		}
		if len(rest) < length {
			// What comes is unknown.
			return p, protocol, nil, nil
		}
		protocol, rest = rest[0], rest[length:]
	}
}
