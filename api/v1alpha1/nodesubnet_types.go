package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeSubnetFinalizer keeps a NodeSubnet until its block has rested.
const NodeSubnetFinalizer = "podnet.dev/quarantine"

// ReleasedAtAnnotation on a NodeSubnet holds the time (RFC 3339) at which the
// manager released the block. Its rest begins then, which is later than the
// object's deletion where a user deleted it while its node was alive.
const ReleasedAtAnnotation = "podnet.dev/released-at"

// DefaultBlockQuarantineSeconds is how long a block rests where no PodNetwork says it.
const DefaultBlockQuarantineSeconds = 120

// SubnetState says what becomes of a block.
//
// +kubebuilder:validation:Enum=Active;Draining;Released
type SubnetState string

const (
	// SubnetActive gives addresses to pods.
	SubnetActive SubnetState = "Active"
	// SubnetDraining gives no new addresses; the pods that have one keep it.
	SubnetDraining SubnetState = "Draining"
	// SubnetReleased rests: its node has gone, every agent withdraws its routes, and
	// nobody but a node that was recreated under that name, and whose pods use it, gets
	// the block before its quarantine is over.
	SubnetReleased SubnetState = "Released"
)

// NodeSubnetSpec ties a block of pod addresses to a node and its addresses.
//
// +kubebuilder:validation:XValidation:rule="self.network == oldSelf.network",message="network never changes"
// +kubebuilder:validation:XValidation:rule="self.node == oldSelf.node",message="node never changes: a block is given back and taken again"
// +kubebuilder:validation:XValidation:rule="self.cidr == oldSelf.cidr",message="cidr never changes"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.nodeUID) || has(self.nodeUID)",message="nodeUID is never taken away once it is set: a block is given back and taken again"
// +kubebuilder:validation:XValidation:rule="oldSelf.state != 'Released' || self.state == 'Released' || (has(oldSelf.nodeUID) && has(self.nodeUID) && self.nodeUID != oldSelf.nodeUID)",message="a released block cannot be taken back, but by a node of the same name that was recreated: it rests, and is then given out again"
type NodeSubnetSpec struct {
	// network is the PodNetwork that the block belongs to.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Network string `json:"network,omitempty"`

	// node is the name of the node that holds the block.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// nodeUID is the UID of that node, so that a node that was deleted and
	// recreated under its name is not taken for the one that it replaces. It changes when
	// such a node takes the block back, as its pods use it.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NodeUID types.UID `json:"nodeUID,omitempty"`

	// cidr is the block, in its shortest form.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr must be a CIDR like 10.244.3.0/24"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="cidr has bits set beyond its prefix length"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || string(cidr(self)) == self",message="cidr must be written in its shortest form, in lower case"
	CIDR string `json:"cidr,omitempty"`

	// endpoints are the node's own addresses, at most one of each family, to which
	// other nodes send packets for the block.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=39
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",message="each of endpoints must be an IP address"
	// +kubebuilder:validation:XValidation:rule="self.size() < 2 || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",message="endpoints holds at most one address of each family"
	Endpoints []string `json:"endpoints,omitempty"`

	// state says what becomes of the block.
	//
	// +optional
	// +kubebuilder:default=Active
	State SubnetState `json:"state,omitempty"`

	// nodeLabels are those labels of the node that a RouteMode or a policy uses.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`

	// nodeAddresses are the addresses that the node's status has and endpoints has
	// not, where a policy selects nodes; of more than 32 the lowest.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=39
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",message="each of nodeAddresses must be an IP address"
	NodeAddresses []string `json:"nodeAddresses,omitempty"`

	// agentNotResponding says that the node's agent has stopped reporting. Then the
	// agents of other nodes, whose probes it does not answer, hold that against this
	// node and not against their own.
	//
	// +optional
	AgentNotResponding *bool `json:"agentNotResponding,omitempty"`
}

// MaxNodeAddresses is how many nodeAddresses a NodeSubnet may have.
const MaxNodeAddresses = 32

// NodeSubnet is one block of addresses held by one node. Its name is its CIDR,
// which makes creating it the lock on the block: 10.244.3.0-24 for 10.244.3.0/24,
// and for IPv6 all 32 digits without colons. The rule for IPv6 stands in a
// ValidatingAdmissionPolicy, as the API server refuses it here for its cost.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nsub,categories=podnet
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:selectablefield:JSONPath=`.spec.network`
// +kubebuilder:printcolumn:name="CIDR",type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.endpoints[0]`
// +kubebuilder:printcolumn:name="Endpoint2",type=string,JSONPath=`.spec.endpoints[1]`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.spec.state`
// +kubebuilder:printcolumn:name="AgentNotResponding",type=boolean,JSONPath=`.spec.agentNotResponding`,priority=1
// +kubebuilder:printcolumn:name="Network",type=string,JSONPath=`.spec.network`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.spec.cidr) || cidr(self.spec.cidr).ip().family() == 6 || self.metadata.name == self.spec.cidr.replace('/', '-')",message="the name of a NodeSubnet must be its cidr with - for /, such as 10.244.3.0-24: the name is what keeps a block from being given out twice"
type NodeSubnet struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec ties the block to its node.
	//
	// +required
	Spec NodeSubnetSpec `json:"spec,omitempty,omitzero"`
}

// NodeSubnetList is a list of NodeSubnets.
//
// +kubebuilder:object:root=true
type NodeSubnetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeSubnet `json:"items"`
}
