package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BlockStatus says how much of a block its pods use.
type BlockStatus struct {
	// cidr is the block.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr,omitempty"`

	// state is the state of the block's NodeSubnet that the agent has put in force:
	// from a Draining block it gives no new addresses any more. It is absent for a
	// block that pods use although the node does not hold it.
	//
	// +optional
	State SubnetState `json:"state,omitempty"`

	// observedGeneration is the generation of that NodeSubnet.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// addressesTotal is the number of addresses that pods can get.
	//
	// +optional
	AddressesTotal *int64 `json:"addressesTotal,omitempty"`

	// addressesUsed is the number of addresses that pods have.
	//
	// +optional
	AddressesUsed *int64 `json:"addressesUsed,omitempty"`
}

// AddressFamily is a version of the Internet Protocol.
//
// +kubebuilder:validation:Enum=IPv4;IPv6
type AddressFamily string

const (
	// IPv4 is version 4.
	IPv4 AddressFamily = "IPv4"
	// IPv6 is version 6.
	IPv6 AddressFamily = "IPv6"
)

// AddressesStatus counts a node's addresses of one family.
type AddressesStatus struct {
	// family is the family.
	//
	// +required
	Family AddressFamily `json:"family,omitempty"`

	// total is the number of addresses that pods of the node can have, in all its blocks that are Active.
	//
	// +optional
	Total *int64 `json:"total,omitempty"`

	// used is the number of addresses that pods of the node have, whatever the state of their block.
	//
	// +optional
	Used *int64 `json:"used,omitempty"`

	// waiting is the number of pods that wait for an address.
	//
	// +optional
	Waiting *int64 `json:"waiting,omitempty"`

	// unserved is the number of addresses that pods of the node have of blocks that
	// the node does not hold. Other nodes do not reach them.
	//
	// +optional
	Unserved *int64 `json:"unserved,omitempty"`
}

// PathException is a block of another node of whose path there is something to say.
type PathException struct {
	// node is the other node.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// cidr is the other node's block.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr,omitempty"`

	// routeMode is the name of the RouteMode that asked; empty where the PodNetwork did.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	RouteMode string `json:"routeMode,omitempty"`

	// path is the path in force: routed, overlay or down.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Path string `json:"path,omitempty"`

	// diverging says that the path is not the one asked for.
	//
	// +optional
	Diverging *bool `json:"diverging,omitempty"`

	// message says why the path is not the one asked for, or not the one that Auto
	// prefers, or what is wrong with it.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// RouteModePaths says what became of a RouteMode on this node.
type RouteModePaths struct {
	// name is the name of the RouteMode.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// observedGeneration is the generation of the RouteMode that is in force.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// paths is the number of blocks to which the RouteMode decides the path.
	//
	// +optional
	Paths *int32 `json:"paths,omitempty"`

	// diverging is the number of those whose path is not the one asked for.
	//
	// +optional
	Diverging *int32 `json:"diverging,omitempty"`
}

// PathsStatus counts the paths from this node to the blocks of others.
//
// +kubebuilder:validation:MinProperties=1
type PathsStatus struct {
	// routed is the number of blocks reached through the underlay directly.
	//
	// +optional
	Routed *int32 `json:"routed,omitempty"`

	// overlay is the number of blocks reached through the tunnel.
	//
	// +optional
	Overlay *int32 `json:"overlay,omitempty"`

	// down is the number of blocks that cannot be reached: there is no path to them, or no
	// probe has come back by any for ten seconds. They are not among routed and overlay.
	//
	// +optional
	Down *int32 `json:"down,omitempty"`

	// proven is the number of blocks by whose path in force probes come back.
	//
	// +optional
	Proven *int32 `json:"proven,omitempty"`

	// diverging is the number of blocks whose path is not the one that the PodNetwork, or
	// a RouteMode, asks for.
	//
	// +optional
	Diverging *int32 `json:"diverging,omitempty"`

	// networkGeneration is the generation of the PodNetwork that the paths follow from.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	NetworkGeneration int64 `json:"networkGeneration,omitempty"`

	// exceptions are the first few blocks whose path is not the one asked for, or not
	// the one that Auto prefers, or does not carry all packets.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Exceptions []PathException `json:"exceptions,omitempty"`
}

// FindingRangeOverlap is the type of the finding that the node has something on
// its interfaces that overlaps ranges of the network. The PodNetwork's condition
// RangesOverlap sums up those of all nodes.
const FindingRangeOverlap = "RangeOverlap"

// Finding is something on the node that is, or may come, in the network's way.
type Finding struct {
	// type names the kind of finding, such as ForwardDrop.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Type string `json:"type,omitempty"`

	// message says what was found and what to do about it.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// cidrs are the prefixes that the finding is about: for RangeOverlap, what the
	// node has on its interfaces that overlaps ranges of the network, the first few.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="each of cidrs must be a CIDR like 192.168.0.0/16"
	CIDRs []string `json:"cidrs,omitempty"`
}

// NodeNetworkSummary is the rest of a status in the form in which kubectl prints it.
//
// +kubebuilder:validation:MinProperties=1
type NodeNetworkSummary struct {
	// problem is the reason of the worst condition; empty where nothing is wrong.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Problem string `json:"problem,omitempty"`

	// message is the message of the worst condition.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// blocks are the blocks that the node holds, and those that its pods use, separated by commas.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Blocks string `json:"blocks,omitempty"`

	// ipv4 are the IPv4 addresses that pods have, of those that they can have, such as 7/252.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	IPv4 string `json:"ipv4,omitempty"`

	// ipv6 are the IPv6 addresses that pods have, of those that they can have, such as 7/2^64.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	IPv6 string `json:"ipv6,omitempty"`
}

// NodeNetworkStatus is what a node's agent found and did.
//
// +kubebuilder:validation:MinProperties=1
type NodeNetworkStatus struct {
	// conditions are Programmed, AddressesServed, PathsProven, PathMTUReduced, HostUnobstructed
	// and, during an uninstall, Removed.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// endpoints are the node's own addresses that the agent chose, at most one of
	// each family, to which other nodes send packets for its pods.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=39
	Endpoints []string `json:"endpoints,omitempty"`

	// interface is the name of the interface that holds the first of endpoints.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface,omitempty"`

	// mtu is the largest IP packet, in bytes, that pods of this node send.
	//
	// +optional
	MTU *int32 `json:"mtu,omitempty"`

	// blocks are the blocks that the node holds, and those that its pods use although it does not hold them.
	//
	// +optional
	// +listType=map
	// +listMapKey=cidr
	// +kubebuilder:validation:MaxItems=256
	Blocks []BlockStatus `json:"blocks,omitempty"`

	// addresses counts the addresses of all blocks.
	//
	// +optional
	// +listType=map
	// +listMapKey=family
	// +kubebuilder:validation:MaxItems=2
	Addresses []AddressesStatus `json:"addresses,omitempty"`

	// rollCall is the PodNetwork's roll call that this report answers: blocks
	// names all that the node's pods use.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	RollCall string `json:"rollCall,omitempty"`

	// pods is the number of pods attached on this node.
	//
	// +optional
	Pods *int32 `json:"pods,omitempty"`

	// paths counts the paths to the blocks of other nodes.
	//
	// +optional
	Paths PathsStatus `json:"paths,omitempty,omitzero"`

	// routeModes say what became of the RouteModes on this node, the strongest first.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	RouteModes []RouteModePaths `json:"routeModes,omitempty"`

	// findings are the things on the node that are, or may come, in the way.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Findings []Finding `json:"findings,omitempty"`

	// summary is what kubectl prints of all this.
	//
	// +optional
	Summary NodeNetworkSummary `json:"summary,omitempty,omitzero"`

	// agentVersion is the version of the agent that wrote this status.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	AgentVersion string `json:"agentVersion,omitempty"`
}

// NodeNetwork is what the agent of the node of the same name reports. Its status
// is written by that agent, and no agent watches it. The manager writes into it that
// the agent does not respond.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=nnet,categories=podnet
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proven",type=string,JSONPath=`.status.conditions[?(@.type=="PathsProven")].status`
// +kubebuilder:printcolumn:name="Served",type=string,JSONPath=`.status.conditions[?(@.type=="AddressesServed")].status`
// +kubebuilder:printcolumn:name="Unobstructed",type=string,JSONPath=`.status.conditions[?(@.type=="HostUnobstructed")].status`
// +kubebuilder:printcolumn:name="Blocks",type=string,JSONPath=`.status.summary.blocks`
// +kubebuilder:printcolumn:name="IPv4",type=string,JSONPath=`.status.summary.ipv4`
// +kubebuilder:printcolumn:name="IPv6",type=string,JSONPath=`.status.summary.ipv6`
// +kubebuilder:printcolumn:name="Routed",type=integer,JSONPath=`.status.paths.routed`
// +kubebuilder:printcolumn:name="Overlay",type=integer,JSONPath=`.status.paths.overlay`
// +kubebuilder:printcolumn:name="Down",type=integer,JSONPath=`.status.paths.down`
// +kubebuilder:printcolumn:name="Problem",type=string,JSONPath=`.status.summary.problem`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`,priority=1
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.status.interface`,priority=1
// +kubebuilder:printcolumn:name="MTU",type=integer,JSONPath=`.status.mtu`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.agentVersion`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.summary.message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeNetwork struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// status is what the node's agent found and did.
	//
	// +optional
	Status NodeNetworkStatus `json:"status,omitempty,omitzero"`
}

// NodeNetworkList is a list of NodeNetworks.
//
// +kubebuilder:object:root=true
type NodeNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeNetwork `json:"items"`
}
