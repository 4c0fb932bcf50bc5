package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultPodNetwork is the name of the one PodNetwork that this version serves.
const DefaultPodNetwork = "default"

// RangeState reports whether new blocks are taken from a range.
//
// +kubebuilder:validation:Enum=Active;Draining
type RangeState string

const (
	// RangeActive gives blocks to nodes.
	RangeActive RangeState = "Active"
	// RangeDraining gives no new blocks; those in use stay until their pods have gone.
	RangeDraining RangeState = "Draining"
)

// Attachment is the way in which a pod hangs on its node.
//
// +kubebuilder:validation:Enum=PointToPoint;Bridge
type Attachment string

const (
	// PointToPoint gives each pod a veth pair of its own and a host route.
	PointToPoint Attachment = "PointToPoint"
	// Bridge puts the pods of a node on one shared L2 segment.
	Bridge Attachment = "Bridge"
)

// Mode is the kind of path that packets between two nodes take.
//
// +kubebuilder:validation:Enum=Auto;Routed;Overlay
type Mode string

const (
	// ModeAuto prefers routed paths where they are proven, else the overlay.
	ModeAuto Mode = "Auto"
	// ModeRouted hands pod packets to the underlay as they are.
	ModeRouted Mode = "Routed"
	// ModeOverlay carries pod packets inside a tunnel between nodes.
	ModeOverlay Mode = "Overlay"
)

// Encapsulation is the tunnel protocol of the overlay.
//
// +kubebuilder:validation:Enum=VXLAN
type Encapsulation string

// EncapsulationVXLAN is VXLAN, RFC 7348.
const EncapsulationVXLAN Encapsulation = "VXLAN"

// Range is a range of pod addresses out of which nodes get their blocks.
//
// +kubebuilder:validation:XValidation:rule="isCIDR(self.cidr)",message="cidr must be a CIDR like 10.244.0.0/16 or fd00:10:244::/48"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || cidr(self.cidr) == cidr(self.cidr).masked()",message="cidr has bits set beyond its prefix length: write its first address, such as 10.244.0.0/16 instead of 10.244.3.7/16"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || string(cidr(self.cidr)) == self.cidr",message="cidr must be written in its shortest form, in lower case, such as fd00:10:244::/48"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || !has(self.nodePrefixLength) || self.nodePrefixLength >= cidr(self.cidr).prefixLength()",message="nodePrefixLength is smaller than the range's own prefix length: a node's block would be larger than the range"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || has(self.nodePrefixLength) || cidr(self.cidr).prefixLength() <= (cidr(self.cidr).ip().family() == 4 ? 24 : 64)",message="the range is smaller than one block of the default length (/24 for IPv4, /64 for IPv6): set nodePrefixLength"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || !has(self.nodePrefixLength) || self.nodePrefixLength <= (cidr(self.cidr).ip().family() == 4 ? 30 : 126)",message="nodePrefixLength must leave room for pods: at most 30 for IPv4 and 126 for IPv6"
type Range struct {
	// cidr is the range in its shortest form, such as 10.244.0.0/16 or fd00:10:244::/48,
	// and no larger than a /8 of IPv4 or a /16 of IPv6. It never changes.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '::/8', 'fe80::/10', 'ff00::/8'].all(r, !cidr(r).containsCIDR(self) && !cidr(self).containsCIDR(r))",message="cidr overlaps addresses that no pod can have (unspecified, loopback, link-local, multicast, class E, IPv4-mapped): choose others, such as 10.244.0.0/16 or fd00:10:244::/48"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).prefixLength() >= (cidr(self).ip().family() == 4 ? 8 : 16)",message="the range is larger than a network can use: its prefix length must be at least 8 for IPv4 and 16 for IPv6"
	CIDR string `json:"cidr,omitempty"`

	// nodePrefixLength is the prefix length of the block that one node gets.
	// Without it, 24 for IPv4 and 64 for IPv6. It never changes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=126
	NodePrefixLength int32 `json:"nodePrefixLength,omitempty"`

	// state says whether new blocks are taken from the range. Draining stops that;
	// a range may be removed once it is Draining and no block of it is in use.
	//
	// +optional
	// +kubebuilder:default=Active
	State RangeState `json:"state,omitempty"`

	// nodeSelector restricts the range to nodes with these labels. Without it, any
	// node may draw from the range.
	//
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// Overlay describes the tunnel between nodes. It never changes: the nodes would
// not understand each other while it did.
//
// +kubebuilder:validation:MinProperties=1
type Overlay struct {
	// encapsulation is the tunnel's protocol.
	//
	// +optional
	// +kubebuilder:default=VXLAN
	Encapsulation Encapsulation `json:"encapsulation,omitempty"`

	// vni is the VXLAN network identifier (RFC 7348, section 5).
	//
	// +optional
	// +kubebuilder:default=7466
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16777215
	VNI int32 `json:"vni,omitempty"`

	// port is the UDP port on which nodes take VXLAN packets. What pods send to it
	// reaches other pods alone.
	//
	// +optional
	// +kubebuilder:default=4789
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// Masquerade says which packets that leave the cluster get their node's address.
//
// +kubebuilder:validation:MinProperties=1
type Masquerade struct {
	// enabled gives packets from pods to addresses outside every range the address
	// of their node. Turn it off where the outside world routes pod addresses.
	//
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`

	// excludeCIDRs are destinations to which pods keep their own address.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="each of excludeCIDRs must be a CIDR like 192.168.0.0/16"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="a CIDR of excludeCIDRs has bits set beyond its prefix length"
	ExcludeCIDRs []string `json:"excludeCIDRs,omitempty"`
}

// NodeBlocks says how many blocks a node holds. All counts are per family.
//
// +kubebuilder:validation:MinProperties=1
type NodeBlocks struct {
	// max is the number of blocks of a family that a node may hold at most, beside
	// those that it leaves. With these, and with those that it gave back and that rest, it
	// keeps at most twice as many from other nodes.
	//
	// +optional
	// +kubebuilder:default=8
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	Max int32 `json:"max,omitempty"`

	// reserve is the number of free addresses below which a node gets another
	// block before a pod has to wait for one. More than half of a block's
	// addresses count as half of them. 0 adds blocks only for pods that wait.
	//
	// +optional
	// +kubebuilder:default=16
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	Reserve *int32 `json:"reserve,omitempty"`

	// idleSeconds is how long a block that its node does not need must have had no
	// pod before it is given back.
	//
	// +optional
	// +kubebuilder:default=1800
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	IdleSeconds int32 `json:"idleSeconds,omitempty"`
}

// DeniedPackets says how packets that network policy denies are reported.
//
// +kubebuilder:validation:Enum=Ignore;Log;Event
type DeniedPackets string

const (
	// DeniedIgnore reports none. They are counted all the same.
	DeniedIgnore DeniedPackets = "Ignore"
	// DeniedLog writes a sample to the agents' logs.
	DeniedLog DeniedPackets = "Log"
	// DeniedEvent makes Events on the pods whose policies deny them, of a sample.
	DeniedEvent DeniedPackets = "Event"
)

// Policy says what becomes of network policy beside being enforced.
//
// +kubebuilder:validation:MinProperties=1
type Policy struct {
	// denied says how packets that network policy denies are reported: Log writes them
	// to the log of the node's agent, and Event makes Events on the pod whose policies
	// deny them. Either reports a sample, of at most 5 packets a second on each node, and
	// of what is alike once a minute; a pod gets at most 3 Events a minute.
	//
	// +optional
	// +kubebuilder:default=Ignore
	Denied DeniedPackets `json:"denied,omitempty"`
}

// PodNetworkSpec says what the network shall be.
//
// +kubebuilder:validation:XValidation:rule="self.attachment == oldSelf.attachment",message="attachment cannot change on a live network: the pods that run keep the one that they were born with. Recreate the cluster's PodNetwork"
// +kubebuilder:validation:XValidation:rule="self.overlay == oldSelf.overlay",message="overlay cannot change on a live network: nodes with different settings would not reach each other"
type PodNetworkSpec struct {
	// ranges are the pod addresses of the network, of one family or both. Add one
	// to grow; set one to Draining, and remove it once empty, to shrink.
	//
	// +required
	// +listType=map
	// +listMapKey=cidr
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.all(b, a.cidr == b.cidr || !isCIDR(a.cidr) || !isCIDR(b.cidr) || !cidr(a.cidr).containsCIDR(cidr(b.cidr))))",message="two of the ranges overlap"
	Ranges []Range `json:"ranges,omitempty"`

	// attachment is the way in which pods hang on their node. It never changes.
	//
	// +optional
	// +kubebuilder:default=PointToPoint
	Attachment Attachment `json:"attachment,omitempty"`

	// routeMode is the path between nodes that no RouteMode selects.
	//
	// +optional
	// +kubebuilder:default=Auto
	RouteMode Mode `json:"routeMode,omitempty"`

	// overlay describes the tunnel. It never changes.
	//
	// +optional
	// +kubebuilder:default={encapsulation: VXLAN}
	Overlay Overlay `json:"overlay,omitempty,omitzero"`

	// mtu is the largest IP packet, in bytes, that pods may send. 0 means that of
	// the node's interface.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == 0 || self >= 1280",message="mtu must be 0 (detect it) or at least 1280, the least that IPv6 asks for"
	MTU *int32 `json:"mtu,omitempty"`

	// masquerade says which packets that leave the cluster get their node's address.
	//
	// +optional
	// +kubebuilder:default={enabled: true}
	Masquerade Masquerade `json:"masquerade,omitempty,omitzero"`

	// nodeBlocks says how many blocks a node holds, and when it gets or gives back one.
	//
	// +optional
	// +kubebuilder:default={max: 8}
	NodeBlocks NodeBlocks `json:"nodeBlocks,omitempty,omitzero"`

	// policy says what becomes of network policy beside being enforced.
	//
	// +optional
	// +kubebuilder:default={denied: Ignore}
	Policy Policy `json:"policy,omitempty,omitzero"`

	// blockQuarantineSeconds is how long a block rests, after its node has gone,
	// before another node may get it.
	//
	// +optional
	// +kubebuilder:default=120
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	BlockQuarantineSeconds *int32 `json:"blockQuarantineSeconds,omitempty"`
}

// NodePods counts pods of a node.
type NodePods struct {
	// node is the name of the node.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// pods is the number of its pods.
	//
	// +optional
	Pods *int64 `json:"pods,omitempty"`
}

// RangeStatus says how much of a range is in use.
type RangeStatus struct {
	// cidr is the range.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr,omitempty"`

	// state is the range's state as the manager last saw it.
	//
	// +optional
	State RangeState `json:"state,omitempty"`

	// blocksTotal is the number of blocks that the range has.
	//
	// +optional
	BlocksTotal *int64 `json:"blocksTotal,omitempty"`

	// blocksAllocated is the number of blocks that nodes hold, those that rest before release included.
	//
	// +optional
	BlocksAllocated *int64 `json:"blocksAllocated,omitempty"`

	// blocksFree is the number of blocks that nodes can still get.
	//
	// +optional
	BlocksFree *int64 `json:"blocksFree,omitempty"`

	// addressesTotal is the number of addresses of the range that pods can have.
	//
	// +optional
	AddressesTotal *int64 `json:"addressesTotal,omitempty"`

	// addressesAllocated is the number of addresses that pods have, as the nodes' agents last reported.
	//
	// +optional
	AddressesAllocated *int64 `json:"addressesAllocated,omitempty"`

	// addressesFree is the number of addresses that pods can still get, those of free blocks included.
	//
	// +optional
	AddressesFree *int64 `json:"addressesFree,omitempty"`

	// nodes is the number of nodes that hold blocks of the range.
	//
	// +optional
	Nodes *int32 `json:"nodes,omitempty"`

	// remaining are the nodes whose pods still have addresses of a Draining range:
	// the first few, those with most pods first.
	//
	// +optional
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=10
	Remaining []NodePods `json:"remaining,omitempty"`
}

// PodNetworkSummary is the rest of a status in the form in which kubectl prints it.
// What it says of ranges is in their order, separated by commas.
//
// +kubebuilder:validation:MinProperties=1
type PodNetworkSummary struct {
	// problem is the reason of the worst condition; empty where nothing is wrong.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Problem string `json:"problem,omitempty"`

	// message is the message of the worst condition, its first 1,024 bytes.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// ranges are the ranges; those that are Draining are marked.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Ranges string `json:"ranges,omitempty"`

	// blocks are the blocks of each range that are allocated, of those that it has, such as 3/256.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Blocks string `json:"blocks,omitempty"`

	// addresses are the addresses of each range that pods have, of those that it has, such as 40/64512 or 40/2^80.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Addresses string `json:"addresses,omitempty"`

	// nodes are the nodes whose agent has programmed the network, of those that there are, such as 3/3.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	Nodes string `json:"nodes,omitempty"`
}

// PodNetworkStatus says what the network is.
//
// +kubebuilder:validation:MinProperties=1
type PodNetworkStatus struct {
	// conditions are Accepted, Ready, Converged, Allocating, Exhausted, RunningLow, SubnetsConflict, RangesOverlap and
	// EndpointsRefused.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// ranges says how much of each range is in use.
	//
	// +optional
	// +listType=map
	// +listMapKey=cidr
	// +kubebuilder:validation:MaxItems=64
	Ranges []RangeStatus `json:"ranges,omitempty"`

	// rollCall is the manager's last request to all agents to report which blocks
	// they use. A manager makes one when it begins to lead, and gives out no block
	// before the agents have answered: the objects that it reads may be older than
	// what the nodes hold, as after a restore of etcd from a backup.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	RollCall string `json:"rollCall,omitempty"`

	// nodesTotal is the number of nodes of the cluster.
	//
	// +optional
	NodesTotal *int32 `json:"nodesTotal,omitempty"`

	// nodesReady is the number of nodes whose agent has programmed the network, and responds.
	//
	// +optional
	NodesReady *int32 `json:"nodesReady,omitempty"`

	// summary is what kubectl prints of all this.
	//
	// +optional
	Summary PodNetworkSummary `json:"summary,omitempty,omitzero"`
}

// PodNetwork is one flat network of pods. This version serves one, named default.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=pnet,categories=podnet
// +kubebuilder:printcolumn:name="Ranges",type=string,JSONPath=`.status.summary.ranges`
// +kubebuilder:printcolumn:name="Blocks",type=string,JSONPath=`.status.summary.blocks`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.routeMode`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.summary.nodes`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Converged",type=string,JSONPath=`.status.conditions[?(@.type=="Converged")].status`
// +kubebuilder:printcolumn:name="Exhausted",type=string,JSONPath=`.status.conditions[?(@.type=="Exhausted")].status`
// +kubebuilder:printcolumn:name="Problem",type=string,JSONPath=`.status.summary.problem`
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.status.summary.addresses`,priority=1
// +kubebuilder:printcolumn:name="Attachment",type=string,JSONPath=`.spec.attachment`,priority=1
// +kubebuilder:printcolumn:name="MTU",type=integer,JSONPath=`.spec.mtu`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.summary.message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="oldSelf.spec.ranges.all(o, self.spec.ranges.exists(n, n.cidr == o.cidr) || (has(o.state) && o.state == 'Draining' && has(oldSelf.status) && has(oldSelf.status.ranges) && oldSelf.status.ranges.exists(s, s.cidr == o.cidr && has(s.state) && s.state == 'Draining' && has(s.blocksAllocated) && s.blocksAllocated == 0)))",messageExpression="oldSelf.spec.ranges.map(o, !self.spec.ranges.exists(n, n.cidr == o.cidr) && !(has(o.state) && o.state == 'Draining' && has(oldSelf.status) && has(oldSelf.status.ranges) && oldSelf.status.ranges.exists(s, s.cidr == o.cidr && has(s.state) && s.state == 'Draining' && has(s.blocksAllocated) && s.blocksAllocated == 0)), 'range ' + o.cidr + ' cannot be removed: ' + (!has(o.state) || o.state != 'Draining' ? 'it is Active. Set its state to Draining first, and wait until its status says that no block of it is allocated' : has(oldSelf.status) && has(oldSelf.status.ranges) && oldSelf.status.ranges.exists(s, s.cidr == o.cidr && has(s.state) && s.state == 'Draining' && has(s.blocksAllocated)) ? 'nodes hold blocks of it. End the pods that have addresses of it, and wait: status.ranges counts the blocks and names nodes' : 'its status does not say yet that it drains. Wait for the manager'))[0]",message="a range can be removed only when it is Draining and its status says that no block of it is allocated: set its state to Draining first and wait"
// +kubebuilder:validation:XValidation:rule="self.spec.ranges.all(n, oldSelf.spec.ranges.all(o, n.cidr != o.cidr || (has(n.nodePrefixLength) ? (has(o.nodePrefixLength) && n.nodePrefixLength == o.nodePrefixLength) : !has(o.nodePrefixLength))))",message="nodePrefixLength of a range never changes: add another range and drain this one"
type PodNetwork struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec says what the network shall be.
	//
	// +required
	Spec PodNetworkSpec `json:"spec,omitempty,omitzero"`

	// status says what it is.
	//
	// +optional
	Status PodNetworkStatus `json:"status,omitempty,omitzero"`
}

// PodNetworkList is a list of PodNetworks.
//
// +kubebuilder:object:root=true
type PodNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PodNetwork `json:"items"`
}
