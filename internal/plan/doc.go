// Package plan computes what a node's kernel shall be, out of all that the node
// knows: it turns a model.Cluster into a model.Plan. Whether packets to a block
// are routed or go through the overlay is a case in here, not a package each.
//
// It is pure. The order of its inputs changes nothing, and it modifies none of
// them. It leaves to others how the cluster is learnt (agent/source), which of
// the possible paths is taken (internal/paths), and how the kernel is brought to
// the plan (agent/diff and agent/kernel).
package plan
