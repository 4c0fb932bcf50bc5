// Package cni attaches pods at a container runtime's request. It serves the verbs
// of the CNI specification on a Unix socket (Server), records which pod has which
// addresses (Book), and puts the plugin's binaries and its configuration in place
// (Install). How links, routes and rules come to be in the kernel is left to
// whoever implements Network, which blocks the node has too.
package cni
