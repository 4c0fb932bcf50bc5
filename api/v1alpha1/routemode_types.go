package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PathProof reports whether a path has to be proven before it carries packets.
//
// +kubebuilder:validation:Enum=Required;Skipped
type PathProof string

const (
	// ProofRequired means that probes have to come back by a path before it is taken, and it is
	// left when they no longer do while those of the other path do.
	ProofRequired PathProof = "Required"
	// ProofSkipped means that the path is taken at once and kept, whatever its probes say.
	ProofSkipped PathProof = "Skipped"
)

// RouteModeSpec says which path the packets between two sets of nodes take.
//
// +kubebuilder:validation:XValidation:rule="!has(self.proof) || self.proof != 'Skipped' || self.mode != 'Auto'",message="proof can be Skipped only for Routed and Overlay: Auto takes the path that is proven"
type RouteModeSpec struct {
	// between selects the nodes: with one selector, every pair of nodes that it
	// selects; with two, every pair of one node of each, in both directions. An
	// empty selector selects every node.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Between []metav1.LabelSelector `json:"between,omitempty"`

	// mode is the path that packets between those nodes take.
	//
	// +required
	Mode Mode `json:"mode,omitempty"`

	// proof says whether the path has to be proven before it carries packets. With
	// Skipped packets are lost where the path does not work.
	//
	// +optional
	// +kubebuilder:default=Required
	Proof PathProof `json:"proof,omitempty"`

	// priority decides between RouteModes that select the same pair of nodes: the
	// highest wins, then the older object, then the name that sorts first.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=-1000000
	// +kubebuilder:validation:Maximum=1000000
	Priority *int32 `json:"priority,omitempty"`
}

// NodeException is a node on which something is not as it was asked for.
type NodeException struct {
	// node is the name of the node.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// message says what is otherwise, and why.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// RouteModeStatus says what became of a RouteMode.
//
// +kubebuilder:validation:MinProperties=1
type RouteModeStatus struct {
	// conditions are Accepted, Converged and Overridden.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// nodesSelected is the number of nodes that a selector of between selects.
	//
	// +optional
	NodesSelected *int32 `json:"nodesSelected,omitempty"`

	// nodesConverged is the number of those nodes whose paths are all as the
	// RouteMode asks, as their agents reported last.
	//
	// +optional
	NodesConverged *int32 `json:"nodesConverged,omitempty"`

	// exceptions are the first few nodes of which not all paths are.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Exceptions []NodeException `json:"exceptions,omitempty"`
}

// RouteMode says which path the packets between two sets of nodes take.
//
// +genclient
// +genclient:nonNamespaced
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rmode,categories=podnet
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodesSelected`
// +kubebuilder:printcolumn:name="NodesConverged",type=integer,JSONPath=`.status.nodesConverged`
// +kubebuilder:printcolumn:name="Converged",type=string,JSONPath=`.status.conditions[?(@.type=="Converged")].status`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Overridden",type=string,JSONPath=`.status.conditions[?(@.type=="Overridden")].status`
// +kubebuilder:printcolumn:name="Proof",type=string,JSONPath=`.spec.proof`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Converged")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RouteMode struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec says which path packets take.
	//
	// +required
	Spec RouteModeSpec `json:"spec,omitempty,omitzero"`

	// status says what became of it.
	//
	// +optional
	Status RouteModeStatus `json:"status,omitempty,omitzero"`
}

// RouteModeList is a list of RouteModes.
//
// +kubebuilder:object:root=true
type RouteModeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RouteMode `json:"items"`
}
