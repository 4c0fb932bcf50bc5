package model

import "net/netip"

// DeniedPackets says how packets that network policy denies are reported, named as in the API.
type DeniedPackets string

// The ways to report them. All others are as DeniedIgnored.
const (
	// DeniedIgnored reports none; they are counted all the same.
	DeniedIgnored DeniedPackets = "Ignore"
	// DeniedLogged and DeniedEvents report a sample.
	DeniedLogged DeniedPackets = "Log"
	DeniedEvents DeniedPackets = "Event"
)

// Reported reports whether packets are reported at all.
func (d DeniedPackets) Reported() bool { return d == DeniedLogged || d == DeniedEvents }

// DeniedGroup is the group of NFLOG to which the kernel gives the sample of denied packets.
const DeniedGroup = 7466

// DeniedPacket is a packet that network policy has denied.
type DeniedPacket struct {
	// Way says which of a connection's packets it is.
	Way PacketWay
	// ToNode says that it was not forwarded: it is between a pod and its own node.
	ToNode bool
	// From and To are as the packet has them when it is forwarded, Services being done with.
	From, To netip.Addr
	// Protocol is tcp, udp, sctp, icmp or ipv6-icmp, or the number of another one.
	Protocol string
	// FromPort and ToPort are 0 where the protocol has no ports.
	FromPort, ToPort uint16
}

// PacketWay says which of a connection's packets one is.
type PacketWay string

// The ways of packets. They are the prefixes with which the kernel gives them to DeniedGroup.
const (
	// WayOriginal is from the client to the server, and WayReply back.
	WayOriginal PacketWay = "original"
	WayReply    PacketWay = "reply"
	// WayStray belongs to no connection that the kernel knows.
	WayStray PacketWay = "stray"
)

// Connection returns the client and the server, as far as it is known who is what, and the
// server's port.
func (p DeniedPacket) Connection() (client, server netip.Addr, port uint16) {
	if p.Way == WayReply {
		return p.To, p.From, p.FromPort
	}
	return p.From, p.To, p.ToPort
}
