// Package model holds the values that flow through podnet: what the cluster
// asks for (Cluster), what one node's kernel shall be (State), and their parts.
// It holds no behaviour beyond comparing and printing, and uses no library: how
// values are obtained, computed and applied is left to the other packages.
package model

import (
	"net/netip"
	"slices"
	"time"
)

// Mode is the kind of path asked for between two nodes.
type Mode string

// The modes, named as in the API.
const (
	ModeAuto    Mode = "Auto"
	ModeRouted  Mode = "Routed"
	ModeOverlay Mode = "Overlay"
)

// Attachment is the way in which a pod hangs on its node.
type Attachment string

// The attachments, named as in the API.
const (
	PointToPoint Attachment = "PointToPoint"
	Bridge       Attachment = "Bridge"
)

// BlockState says what becomes of a block.
type BlockState string

// The states, named as in the API.
const (
	BlockActive   BlockState = "Active"
	BlockDraining BlockState = "Draining"
	BlockReleased BlockState = "Released"
)

// Cluster is all that a node's agent knows: what the API asks for, what the
// node is, and which pods hang on it.
type Cluster struct {
	// Network is nil as long as there is no PodNetwork named default.
	Network *Network
	// Blocks of all nodes, this one's included, in any order.
	Blocks []Block
	// Former are the endpoints that nodes had until lately, this node's included.
	Former []FormerEndpoint
	// RouteModes in any order.
	RouteModes []RouteMode
	// Host is what was found on this node.
	Host Host
	// Pods are the pods attached on this node, in any order.
	Pods []Pod
	// Evidence is what is known of the paths to other nodes' blocks; none of a block
	// stands for nothing.
	Evidence map[netip.Prefix]Evidence
}

// Network is the PodNetwork.
type Network struct {
	// ID tells the network from those of other clusters.
	ID     string
	Ranges []netip.Prefix
	// BlockBits is the prefix length of the smallest blocks that nodes get, by family.
	BlockBits  PerFamily[int]
	Attachment Attachment
	// Mode is for pairs of nodes that no RouteMode selects.
	Mode Mode
	// VNI is the VXLAN network identifier, 24 bits.
	VNI uint32
	// Port is the UDP port on which nodes take VXLAN packets.
	Port uint16
	// MTU is the largest IP packet in bytes that pods may send; 0 means that of
	// the node's interface.
	MTU int
	// Masquerade gives packets from pods to addresses outside Ranges and
	// MasqueradeExclude the address of the node.
	Masquerade        bool
	MasqueradeExclude []netip.Prefix
	// MaxBlocks is the number of blocks of a family that a node may hold outside
	// draining ranges; 0 where it is unknown.
	MaxBlocks int
	// Exhausted says, by family (IPv4, IPv6), that the ranges have no free block
	// left, as far as the manager has said.
	Exhausted PerFamily[bool]
	// Denied says how packets that network policy denies are reported.
	Denied DeniedPackets
	// Generation counts the changes of the object's spec.
	Generation int64
}

// Block is a NodeSubnet: a block of pod addresses held by a node.
type Block struct {
	// Name is the name of the object.
	Name string
	CIDR netip.Prefix
	// Node is the name of the node that holds the block.
	Node string
	// Endpoints are the node's own addresses, at most one of each family.
	Endpoints []netip.Addr
	// Addresses are the node's addresses that are no endpoints, where a policy selects
	// nodes.
	Addresses []netip.Addr
	State     BlockState
	// Labels are those labels of the node that RouteModes and policies use.
	Labels map[string]string
	// Created decides between blocks that overlap: the older one is served.
	Created time.Time
	// Generation counts the changes of the object's spec.
	Generation int64
	// AgentSilent says that the agent of the node that holds the block does not respond.
	AgentSilent bool
	// Vanished says that the object is gone although it was never released: the
	// block is served for a while, so that whoever holds it can have it back.
	Vanished bool
}

// FamilyIndex is the index of an address's family in arrays that hold something
// for each: 0 for IPv4, 1 for IPv6.
func FamilyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// PerFamily holds something for each IP family, by FamilyIndex.
type PerFamily[T any] [2]T

// Of returns what it holds for the family of an address.
func (p PerFamily[T]) Of(a netip.Addr) T { return p[FamilyIndex(a)] }

// Endpoint returns the block's endpoint of the family of addr, and whether it has one.
func (b Block) Endpoint(is4 bool) (netip.Addr, bool) {
	return endpointOf(b.Endpoints, is4)
}

// FormerEndpoint is an address that was a node's endpoint until lately. Packets of
// nodes that have not heard yet come from it, and go to it.
type FormerEndpoint struct {
	Node string
	Addr netip.Addr
	// Fresh is for how much longer some nodes may not have heard, and drop what comes
	// from the one that took its place.
	Fresh time.Duration
}

func endpointOf(addrs []netip.Addr, is4 bool) (netip.Addr, bool) {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == is4 })
	if i < 0 {
		return netip.Addr{}, false
	}
	return addrs[i], true
}

// RouteMode says which path the packets between two sets of nodes take.
type RouteMode struct {
	Name string
	// Between holds one selector, for every pair of nodes that it selects, or
	// two, for every pair of one node of each, in both directions.
	Between []Selector
	Mode    Mode
	// Forced says that the mode's path is to be taken unproven.
	Forced   bool
	Priority int32
	Created  time.Time
	// Generation counts the changes of the object's spec.
	Generation int64
}

// Selector selects nodes by their labels: every requirement must hold. An empty
// selector selects every node.
type Selector []Requirement

// Operator is the operator of a Requirement, named as in Kubernetes' label selectors.
type Operator string

// The operators of Kubernetes' label selectors.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// Requirement is one condition on the labels of a node.
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string
}

// Matches reports whether labels fulfil every requirement. As in Kubernetes, NotIn
// holds where the key is absent.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s {
		value, present := labels[r.Key]
		var holds bool
		switch r.Operator {
		case In:
			holds = present && slices.Contains(r.Values, value)
		case NotIn:
			holds = !present || !slices.Contains(r.Values, value)
		case Exists:
			holds = present
		case DoesNotExist:
			holds = !present
		}
		if !holds {
			return false
		}
	}
	return true
}

// Host is what was found on the node.
type Host struct {
	// Node is the node's name.
	Node string
	// Endpoints are the addresses that were chosen, at most one of each family.
	Endpoints []Endpoint
	// Addresses are all addresses of the node that could be endpoints, the chosen
	// ones included.
	Addresses []Endpoint
	// Routes are the next hops of the unicast routes of the main table that are not
	// podnet's: the way to other nodes' endpoints is read from them.
	Routes []UnderlayRoute
	// VXLAN reports whether the kernel can make VXLAN devices.
	VXLAN bool
	// Missing are the modules without which nothing works and that the kernel lacks.
	Missing []string
	// BridgeNetfilter reports whether br_netfilter is loaded, without which policy
	// and services do not see packets between pods of one bridge.
	BridgeNetfilter bool
	// IPv6 reports whether the kernel has IPv6 and it is not turned off.
	IPv6 bool
	// AcceptRA are the names of interfaces on which router advertisements were accepted
	// before IPv6 forwarding was turned on (accept_ra of 1), and default where they are on
	// interfaces that come.
	AcceptRA []string
}

// Endpoint returns the host's endpoint of a family, and whether it has one.
func (h Host) Endpoint(is4 bool) (Endpoint, bool) {
	i := slices.IndexFunc(h.Endpoints, func(e Endpoint) bool { return e.Addr.Is4() == is4 })
	if i < 0 {
		return Endpoint{}, false
	}
	return h.Endpoints[i], true
}

// HostLink is an interface of the node that is not podnet's.
type HostLink struct {
	Name string
	Up   bool
	// MTU is the largest IP packet in bytes.
	MTU int
	// Addrs are its addresses with the prefix lengths of their networks, without
	// link-local, temporary and tentative ones.
	Addrs []netip.Prefix
}

type hostLink string

// Identity is comparable, and the same for all that is said of one interface.
func (l HostLink) Identity() any { return hostLink(l.Name) }

// HostAddress is an address of an interface of the node that is not podnet's.
type HostAddress struct {
	Link string
	Addr netip.Addr
}

// Identity is comparable, and the same for all that is said of one address.
func (a HostAddress) Identity() any { return a }

// EndpointOptions say which addresses of the node others shall send to. The
// zero value leaves the choice to the rule.
type EndpointOptions struct {
	// Interface is a regular expression that the whole name of the interface must match.
	Interface string
	// CIDRs restrict the addresses; one prefix per family decides that family.
	CIDRs []netip.Prefix
	// NodeIPs are the addresses that Kubernetes knows the node by (InternalIP).
	NodeIPs []netip.Addr
	// Last are the addresses that were chosen last. They are kept where nothing else
	// decides: the kernel lists the newest of several IPv6 addresses first.
	Last []netip.Addr
}

// Endpoint is an address of the node to which other nodes send, and its interface.
type Endpoint struct {
	Addr netip.Addr
	// Link is the name of the interface by which packets from and to the address pass: the
	// one that has it, and an uplink where that is the loopback.
	Link string
	// MTU is the interface's largest IP packet in bytes.
	MTU int
}

// UnderlayRoute is a next hop of a route of the node that is not podnet's.
type UnderlayRoute struct {
	Dst netip.Prefix
	// Via is the gateway; invalid where Dst is on the link. That of an IPv4 route may be
	// an IPv6 address (RFC 5549).
	Via  netip.Addr
	Link string
	// Metric is the priority of the route: of two for one Dst the lower is used.
	Metric int
}

// Identity is comparable, and the same for all that is said of one next hop.
func (r UnderlayRoute) Identity() any { return r }

// Pod is a pod's attachment to this node.
type Pod struct {
	// ContainerID and IfName are the key of the attachment (CNI specification).
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	// Namespace, Name and UID are the pod's, as the runtime gave them.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
	// Netns is the path of the pod's network namespace as the runtime gave it.
	Netns      string     `json:"netns"`
	Attachment Attachment `json:"attachment"`
	// HostLink is the name of the veth's end on the node.
	HostLink string `json:"hostLink"`
	// HostMAC and PodMAC are the addresses of the veth's ends.
	HostMAC MAC `json:"hostMAC"`
	PodMAC  MAC `json:"podMAC"`
	// Addrs are the pod's addresses, one of each family at most.
	Addrs []netip.Addr `json:"addrs"`
	// Blocks are the blocks that Addrs were taken from, index by index.
	Blocks    []netip.Prefix `json:"blocks"`
	MTU       int            `json:"mtu"`
	HostPorts []HostPort     `json:"hostPorts,omitempty"`
	// Since is when the attachment was recorded.
	Since time.Time `json:"since,omitzero"`
}

// HostPort is a port of the node that leads to a port of a pod.
type HostPort struct {
	// HostIP restricts the port to one address of the node; invalid means all.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	Host   uint16     `json:"host"`
	Pod    uint16     `json:"pod"`
	// Protocol is tcp, udp or sctp.
	Protocol string `json:"protocol"`
}
