// Package objects reads the API's objects as all parts of the manager do: which network is
// served, which node is meant, and whose a report is. What follows from them is left to others.
package objects

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// NodeField is the field by which the NodeSubnets of a node are found.
const NodeField = "spec.node"

// ServedNetwork returns the PodNetwork that this version serves, or nil where
// there is none or it is on its way out.
func ServedNetwork(ctx context.Context, reader client.Reader) (*podnetv1alpha1.PodNetwork, error) {
	network := &podnetv1alpha1.PodNetwork{}
	err := reader.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)
	switch {
	case err == nil && network.DeletionTimestamp.IsZero():
		return network, nil
	case client.IgnoreNotFound(err) != nil:
		return nil, fmt.Errorf("read PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	}
	return nil, client.IgnoreNotFound(err)
}

// LiveNode returns a node as the API server has it now, or nil where there is none.
func LiveNode(ctx context.Context, live client.Reader, name string) (*corev1.Node, error) {
	node := &corev1.Node{}
	err := live.Get(ctx, client.ObjectKey{Name: name}, node)
	switch {
	case err == nil:
		return node, nil
	case client.IgnoreNotFound(err) != nil:
		return nil, fmt.Errorf("read Node %s: %w", name, err)
	}
	return nil, client.IgnoreNotFound(err)
}

// Carries reports whether podnet's agent can run on a node: not on Windows.
func Carries(node *corev1.Node) bool {
	system := node.Labels[corev1.LabelOSStable]
	return system == "" || system == string(corev1.Linux)
}

// Ready reports whether a node's kubelet says that the node is ready.
func Ready(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// OwnedBy reports whether a NodeNetwork is that of this very node.
func OwnedBy(report *podnetv1alpha1.NodeNetwork, node *corev1.Node) bool {
	for _, owner := range report.OwnerReferences {
		if owner.UID == node.UID {
			return true
		}
	}
	return false
}

// Block is what an agent says of a block, and whether it says anything. The report may be nil.
func Block(report *podnetv1alpha1.NodeNetwork, cidr string) (podnetv1alpha1.BlockStatus, bool) {
	if report == nil {
		return podnetv1alpha1.BlockStatus{}, false
	}
	i := slices.IndexFunc(report.Status.Blocks, func(b podnetv1alpha1.BlockStatus) bool { return b.CIDR == cidr })
	if i < 0 {
		return podnetv1alpha1.BlockStatus{}, false
	}
	return report.Status.Blocks[i], true
}
