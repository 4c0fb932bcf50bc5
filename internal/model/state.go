package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Marks by which podnet knows what in the kernel is its own.
const (
	// RouteTable is the routing table that holds every route of podnet, and nothing else.
	RouteTable = 7466
	// RouteProtocol is the protocol of those routes. It is not registered in
	// iproute2's rt_protos.
	RouteProtocol = 117
	// RulePriority is that of the rules that send packets to RouteTable.
	RulePriority = 512
	// ProbeRoutedTable and ProbeOverlayTable hold for every block the route of one
	// kind, whichever is in force, by which it is probed.
	ProbeRoutedTable  = 7467
	ProbeOverlayTable = 7468
	// ProbeRulePriority is that of the rules that send marked packets to those.
	ProbeRulePriority = 511
	// ProbeRoutedMark and ProbeOverlayMark are the marks, all 32 bits of them, of
	// probes on their way out of a node.
	ProbeRoutedMark  = 0x74660001
	ProbeOverlayMark = 0x74660002
	// ProbeRoutedPort and ProbeOverlayPort are the UDP ports to which the probes of
	// each kind are sent, and ProbeRoutedSource and ProbeOverlaySource those from which
	// they are. Were they the same, flows of both directions could have one tuple, and
	// conntrack would give one of two that begin at once another source.
	ProbeRoutedPort    = 7466
	ProbeOverlayPort   = 7467
	ProbeRoutedSource  = 7468
	ProbeOverlaySource = 7469
	// ForwardPort is the UDP port to which packets are sent through the node, from the
	// probes' namespace back to it, to see whether it forwards what pods send.
	ForwardPort = 7470
	// ProbeLink is the host end of the link of the namespace that probes come from.
	ProbeLink = PodLinkPrefix + "probe"
	// PodLinkPrefix begins the name of every link that faces pods: the host ends
	// of their veths, and the bridge. kube-proxy's detectLocalMode
	// InterfaceNamePrefix is set to it. It is longer than "pod", with which
	// Podman's podman0 begins.
	PodLinkPrefix = "podn"
	// BridgeLink is the name of the bridge.
	BridgeLink = "podnet0"
	// VXLANLink4 and VXLANLink6 are the names of the tunnel devices whose outer
	// packets are IPv4 and IPv6.
	VXLANLink4 = "vxpodnet4"
	VXLANLink6 = "vxpodnet6"
	// LinkAlias is the alias (IFLA_IFALIAS) of every link that podnet makes,
	// or its beginning.
	LinkAlias = "podnet"
	// TalkingSet is the beginning, before the family's digit, of the names of the sets
	// in which the kernel notes to which addresses of other nodes' blocks this one sends.
	TalkingSet = "talking"
	// FirewallTable is the name of podnet's nftables tables: one of the inet family and,
	// for IPv4, one of the arp family, and under Bridge one of the bridge family.
	FirewallTable = "podnet"
	// DamagedSuffix ends the names of files of the agent's that could not be read and
	// were set aside.
	DamagedSuffix = ".damaged"
	// PolicyTable is the name of the nftables tables that enforce network policy,
	// of the inet and bridge families.
	PolicyTable = "podnet-policy"
)

// MinIPv6MTU is the smallest MTU of a link on which the kernel runs IPv6 (RFC 8200,
// section 5). When a link's MTU falls below, all that is of IPv6 on it goes, and when it
// rises again, IPv6 is there as on a new link (net/ipv6/addrconf.c, addrconf_notify).
const MinIPv6MTU = 1280

// State is what podnet makes of a node's kernel: as wanted (internal/plan), or
// as found (agent/kernel). The order of its lists has no meaning, but for Sysctls.
type State struct {
	Links      []Link
	Addresses  []Address
	Routes     []Route
	Rules      []Rule
	Neighbours []Neighbour
	FDB        []FDBEntry
	Ports      []Port
	// Sysctls are in the order in which they must be set: turning IPv6 forwarding
	// on, for one, makes the kernel forget what router advertisements said unless
	// accept_ra was set before.
	Sysctls  []Sysctl
	Firewall []Table
}

// MAC is an Ethernet address.
type MAC [6]byte

// String prints the address as six octets with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText makes JSON hold the printed form.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads the printed form.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil {
		return fmt.Errorf("parse MAC: %w", err)
	}
	if len(hw) != len(m) {
		return fmt.Errorf("parse MAC %q: want 6 octets", text)
	}
	copy(m[:], hw)
	return nil
}

// DeriveMAC returns a locally administered unicast address that depends on seed
// alone, so that a restart finds the same one.
func DeriveMAC(seed string) MAC {
	sum := sha256.Sum256([]byte("podnet " + seed))
	var m MAC
	copy(m[:], sum[:])
	m[0] = m[0]&^0x01 | 0x02
	return m
}

// LinkKind is the kind of a link, named as the kernel does.
type LinkKind string

// The kinds of links that a State holds. The veths of pods are not among them:
// they come and go with their pods.
const (
	LinkBridge LinkKind = "bridge"
	LinkVXLAN  LinkKind = "vxlan"
)

// Link is a network device.
type Link struct {
	Name string
	Kind LinkKind
	MAC  MAC
	// MTU is the largest IP packet in bytes.
	MTU int
	// VNI, Port, Local and Underlay are a VXLAN device's: network identifier, UDP
	// port, source of its outer packets, and interface that these leave by.
	VNI      uint32
	Port     uint16
	Local    netip.Addr
	Underlay string
}

// Address is an address of a link, assigned without a prefix route and, for
// IPv6, without duplicate address detection.
type Address struct {
	Link string
	Addr netip.Prefix
}

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

// Rule sends the packets of a family to one of podnet's tables.
type Rule struct {
	// IPv6 is the family: false for IPv4.
	IPv6     bool
	Priority int
	Table    int
	// Mark restricts the rule to packets with this mark; 0 for all packets.
	Mark uint32
	// In restricts it to packets that come in by this link; empty for all packets.
	In string
}

// Neighbour is a permanent neighbour entry (ARP, NDP).
type Neighbour struct {
	Link string
	Addr netip.Addr
	MAC  MAC
}

// FDBEntry is a permanent entry of a VXLAN device's forwarding table.
type FDBEntry struct {
	Link string
	MAC  MAC
	// Endpoint is the node to which frames for MAC go.
	Endpoint netip.Addr
}

// Port is the host end of a pod's link as a port of a bridge. It goes with the link.
type Port struct {
	Link   string
	Bridge string
}

// Sysctl is a kernel parameter.
type Sysctl struct {
	// Key is its path below /proc/sys, such as net/ipv4/ip_forward.
	Key   string
	Value string
}

// Table is an nftables table that is podnet's alone.
type Table struct {
	// Family is inet, bridge or arp.
	Family string
	Name   string
	// Counters are the names of those that rules count with, which keep what they have
	// counted when rules change. Only tables that are not compared by fingerprints have any.
	Counters []string
	Sets     []Set
	Chains   []Chain
}

// Set is a set of a table or, where Value is not empty, a map.
type Set struct {
	Name string
	// Key and Value are types as nft writes them, such as "ipv4_addr . inet_service".
	Key   string
	Value string
	// TypeOf are expressions of Key's types, one by one; empty where nft can tell a set
	// by the types alone, which it cannot where one is a bare integer.
	TypeOf string
	// Interval allows prefixes and ranges as keys.
	Interval bool
	// Forgets is the time after which the kernel forgets elements that its rules
	// added; 0 for a set whose elements are podnet's. Such a set's elements are no
	// part of a State.
	Forgets  time.Duration
	Elements []Element
}

// Element is an element of a Set. The parts of concatenated keys and values are
// written one by one.
type Element struct {
	Key   []string
	Value []string
}

// Chain is a chain of a table.
type Chain struct {
	Name string
	// Type is filter or nat, Hook and Priority are as nft writes them, such as
	// prerouting and dstnat-10. All are empty for a chain that only others lead to.
	Type     string
	Hook     string
	Priority string
	Rules    []FirewallRule
}

// FirewallRule is a rule of a chain. What the kernel holds cannot be read back
// as it was written, so rules are compared by their fingerprints alone, which
// stand in the kernel as the rules' comments.
type FirewallRule struct {
	// Text is the rule as nft takes it; empty in what was found.
	Text        string
	Fingerprint string
}

// Sign fills in the fingerprints of a table's rules. They cover the
// declarations of all sets and chains too, so that whatever changes in the
// table's structure is seen.
func (t *Table) Sign() {
	structure := sha256.New()
	for _, s := range t.Sets {
		fmt.Fprintf(structure, "set %q %q %q %q %t %s\n", s.Name, s.Key, s.TypeOf, s.Value, s.Interval, s.Forgets)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(structure, "chain %q %q %q %q\n", c.Name, c.Type, c.Hook, c.Priority)
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		for j := range c.Rules {
			sum := sha256.Sum256(fmt.Appendf(structure.Sum(nil), "%s %d %s", c.Name, j, c.Rules[j].Text))
			c.Rules[j].Fingerprint = hex.EncodeToString(sum[:8])
		}
	}
}

// Problem is something that the objects or the node ask for and that cannot be
// done, or not as asked.
type Problem struct {
	// Reason is a reason of the API's condition Programmed.
	Reason string
	// Message is a sentence that says what is wrong and what to do.
	Message string
	// Fatal problems leave the node without pods' network; the others degrade it.
	Fatal bool
}

// Finding is something on the node that is, or may come, in the network's way.
type Finding struct {
	Type    string
	Message string
	// CIDRs are the prefixes that it is about, where the manager has to know them.
	CIDRs []netip.Prefix
}

// Plan is what one node's kernel shall be, and why.
type Plan struct {
	State State
	// Paths are the paths to all blocks of other nodes, sorted by block.
	Paths []PathChoice
	// NetworkGeneration is the generation of the PodNetwork that the plan follows from.
	NetworkGeneration int64
	// RouteModes are those that are in force, the strongest first.
	RouteModes []RouteMode
	// Problems in the order of their discovery.
	Problems []Problem
	// Blocks are this node's blocks that are served, the oldest first: the first
	// Active one of a family gives the node its own address, which then stays
	// when blocks are added.
	Blocks []Block
	// Withheld are the families, IPv4 and IPv6, of which the network has ranges that this
	// node cannot serve, whatever blocks it holds.
	Withheld [2]bool
	// MTU is that of new pods in bytes.
	MTU int
	// Probe is the attachment, like that of a pod, of the namespace from which this
	// node probes its paths, without a namespace's path; it has no addresses where
	// no block has one for it.
	Probe Pod
}
