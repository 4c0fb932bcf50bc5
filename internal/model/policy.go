package model

import (
	"net/netip"
)

// PolicyObjects are the objects of the cluster that network policy goes by, each
// list in any order.
type PolicyObjects struct {
	NetworkPolicies []NetworkPolicy
	ClusterPolicies []ClusterPolicy
	Namespaces      []Namespace
	Pods            []ClusterPod
	// Ranges are the networks that pods have addresses of, beside the blocks.
	Ranges []netip.Prefix
	// Sample says that the kernel shall give a sample of the packets that it denies to
	// DeniedGroup.
	Sample bool
}

// Namespace is a namespace of the cluster.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// ClusterPod is a pod of the cluster that has not ended, reduced to what network
// policy goes by.
type ClusterPod struct {
	Namespace, Name string
	// UID is the one that the runtime knows the pod by: of a static pod not that
	// of the object that mirrors it.
	UID    string
	Labels map[string]string
	// Addrs are those of its status; none as long as it has none.
	Addrs []netip.Addr
	// Ports are the ports of its containers that have a name, in their order.
	Ports []NamedPort
	// Node is the name of the node that the pod was given to; empty before.
	Node string
	// HostNetwork says that the pod has the addresses of its node.
	HostNetwork bool
	// Terminating says that the pod is being deleted: where another pod has its address too,
	// it is the other's.
	Terminating bool
}

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name string
	// Protocol is TCP, UDP or SCTP; empty stands for TCP.
	Protocol string
	Port     uint16
}

// PolicyType is a direction that a NetworkPolicy is about, named as in the API.
type PolicyType string

// The policy types.
const (
	PolicyIngress PolicyType = "Ingress"
	PolicyEgress  PolicyType = "Egress"
)

// NetworkPolicy is a NetworkPolicy of networking.k8s.io/v1.
type NetworkPolicy struct {
	Namespace, Name string
	// Pods selects the pods of the namespace that the policy applies to.
	Pods    Selector
	Ingress []PolicyRule
	Egress  []PolicyRule
	// Types are the directions that the policy isolates; none stands for ingress,
	// and egress too where there are rules for it.
	Types []PolicyType
	// Count says that the packets of each rule are to be counted.
	Count bool
}

// PolicyRule allows what comes from, or goes to, any of its peers by any of its ports.
type PolicyRule struct {
	// Peers are the other ends; none stands for everybody.
	Peers []PolicyPeer
	// Ports are those of the end that is connected to; none stands for all ports
	// of all protocols.
	Ports []PolicyPort
}

// PolicyPeer is either a Block, or Nodes, or pods; one without any field is nobody.
type PolicyPeer struct {
	// Namespaces selects namespaces; nil stands for the policy's own.
	Namespaces *Selector
	// Pods selects pods in these namespaces; nil stands for all of them.
	Pods *Selector
	// Block is a block of addresses; where it is set the selectors are nil.
	Block *IPBlock
	// Nodes selects nodes, by those of their labels that blocks have. Only
	// ClusterPolicies have such peers.
	Nodes *Selector
}

// Tier says when a ClusterPolicy is asked.
type Tier int

// The tiers, in the order in which they are asked: NetworkPolicies come between them.
const (
	AdminTier Tier = iota
	BaselineTier
)

// PolicyAction is what becomes of connections that a TierRule matches, named as in
// the API.
type PolicyAction string

// The actions.
const (
	// PolicyAccept allows them, whatever comes after.
	PolicyAccept PolicyAction = "Accept"
	// PolicyDeny forbids them, whatever comes after.
	PolicyDeny PolicyAction = "Deny"
	// PolicyPass leaves them to the next tier.
	PolicyPass PolicyAction = "Pass"
)

// ClusterPolicy is a ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2.
type ClusterPolicy struct {
	Name string
	Tier Tier
	// Priority says which of a tier's policies comes first: the one of the lowest
	// number. Of equal ones that comes first whose name sorts first.
	Priority int32
	// Namespaces and Pods select the pods that the policy applies to.
	Namespaces, Pods Selector
	// Ingress and Egress are in the order in which they are asked.
	Ingress, Egress []TierRule
	// Count says that the packets of each rule are to be counted.
	Count bool
}

// TierRule says what becomes of connections with any of its peers by any of its ports.
type TierRule struct {
	// Field is where the rule stands in the object, such as egress[1].
	Field  string
	Action PolicyAction
	// Peers are the other ends. Their Namespaces are not nil where they are pods.
	Peers []PolicyPeer
	// Ports are as those of a PolicyRule.
	Ports []PolicyPort
}

// IPBlock holds the addresses of CIDR that are in none of Except.
type IPBlock struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// PolicyPort is a port, a range of ports, or all ports of a protocol.
type PolicyPort struct {
	// Protocol is TCP, UDP or SCTP; empty stands for TCP.
	Protocol string
	// Name is that of a port of the pod that is connected to; where it is set the
	// numbers do not count.
	Name string
	// Port is the only or the first port, or nil for all ports of the protocol.
	Port *int32
	// EndPort is the last port of a range that begins at Port, or nil.
	EndPort *int32
}
