// Package ipam decides who gets which addresses: which block of a network's
// ranges a node gets next, and which address of its blocks a pod gets next. It
// computes from what it is told is taken, and keeps nothing for good: the API
// objects are the record of blocks, agent/cni's Book that of pods' addresses.
package ipam
