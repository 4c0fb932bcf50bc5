// Package policy computes the nftables tables that enforce network policy on a
// node, from policies, namespaces and pods. It is pure: values in, values out. How
// objects become values is left to agent/source, and how tables get into the
// kernel to agent/policy and agent/kernel.
//
// The tables are a decision compiled in advance, so that a packet meets the same
// few rules however many pods and policies there are. An address is looked up in
// one map for the whole node, which leads to the chain of its identity: the set of
// rules whose peers it is one of. That chain has one map, of the node's pods, which
// leads to the ports that the pod and the identity have in common. See
// docs/adr/0017-policy-by-identity.md.
package policy
