package model

import "net/netip"

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
	// TraceTable is the name of the tables that are made while a packet is traced, and removed
	// at once.
	TraceTable = "podnet-trace"
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
	Withheld PerFamily[bool]
	// MTU is that of new pods in bytes.
	MTU int
	// Probe is the attachment, like that of a pod, of the namespace from which this
	// node probes its paths, without a namespace's path; it has no addresses where
	// no block has one for it.
	Probe Pod
}
