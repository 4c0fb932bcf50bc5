// Package policy does three jobs over one arrangement of policies, namespaces and pods
// (Index). It compiles them to the nftables tables that enforce network policy on a node
// (Build, compile*.go), has the packets of rules counted there (count*.go), and explains why
// a packet was denied (Explain, explain.go). What policies mean stands once, in semantics.go;
// that packets fare as they mean is shown by the simulator in policytest, which shares
// nothing with this package.
//
// It is pure: values in, values out. How objects become values is left to agent/source, and
// how tables get into the kernel to agent/policy and agent/kernel.
//
// The tables are a decision compiled in advance, so that a packet meets the same
// few rules however many pods and policies there are. An address is looked up in
// one map for the whole node, which leads to the chain of its identity: the set of
// rules whose peers it is one of. That chain has one map, of the node's pods, which
// leads to the ports that the pod and the identity have in common. See
// docs/adr/0017-policy-by-identity.md.
package policy
