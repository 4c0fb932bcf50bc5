package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// claims are the blocks of the ranges that a node's agent says that it uses: those
// that pods have addresses of, and those that it gives addresses of. An agent may
// not have heard yet that the object of such a block is gone, and a block goes
// without its agent's knowledge only where it was not released.
func claims(report *podnetv1alpha1.NodeNetwork, ranges pool) []netip.Prefix {
	var out []netip.Prefix
	for _, b := range report.Status.Blocks {
		cidr, err := netip.ParsePrefix(b.CIDR)
		if err != nil || b.State != podnetv1alpha1.SubnetActive && countOf(b.AddressesUsed) == 0 {
			continue
		}
		// One that was made by hand may have any length.
		if _, found := ranges.containing(cidr); found && cidr == cidr.Masked() {
			out = append(out, cidr)
		}
	}
	return out
}

// claim makes the NodeSubnets anew whose blocks the node uses although they are not
// there: lost by a restore of etcd, or deleted by force. The name is the lock here
// too: where another node holds the block by now, and pods have addresses of it,
// that is a dispute.
func (r *NodeReconciler) claim(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork,
) error {
	if report == nil {
		return nil
	}
	ranges, _ := poolOf(network) // What does not parse is said in the network's conditions.
	var errs []error
	var disputed []*podnetv1alpha1.NodeSubnet
	for _, cidr := range claims(report, ranges) {
		holder, err := r.claimOne(ctx, node, network, report, cidr)
		errs = append(errs, err)
		if holder != nil {
			disputed = append(disputed, holder)
		}
	}
	r.Disputes.set(node.Name, disputed)
	return errors.Join(errs...)
}

// claimOne returns the NodeSubnet of another node that stands in the way; nil where none does.
func (r *NodeReconciler) claimOne(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork, cidr netip.Prefix,
) (*podnetv1alpha1.NodeSubnet, error) {
	name, err := ipam.BlockName(cidr)
	if err != nil {
		return nil, fmt.Errorf("naming a block of Node %s: %w", node.Name, err)
	}
	holder := &podnetv1alpha1.NodeSubnet{}
	err = r.Get(ctx, client.ObjectKey{Name: name}, holder)
	switch {
	case apierrors.IsNotFound(err):
		return nil, r.reclaim(ctx, node, network, cidr)
	case err != nil:
		return nil, fmt.Errorf("reading NodeSubnet %s: %w", name, err)
	}
	if b, _ := reportedBlock(report, cidr.String()); holder.Spec.Node == node.Name || countOf(b.AddressesUsed) == 0 {
		return nil, nil
	}
	r.Events.Eventf(network, holder, corev1.EventTypeWarning, eventBlockDisputed, actionAllocate,
		"Pods of Node %s use the block %s, which NodeSubnet %s gives to Node %s: it gives no more addresses there, and becomes that of Node %s"+
			" when the pods of Node %s have gone. Delete the pods on either side, so that they get other addresses.",
		node.Name, cidr, name, holder.Spec.Node, node.Name, holder.Spec.Node)
	return holder, nil
}

// reclaim makes a NodeSubnet anew, at a moment at which no range is being counted.
func (r *NodeReconciler) reclaim(ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, cidr netip.Prefix) error {
	r.Allocation.RLock()
	defer r.Allocation.RUnlock()
	// The objects decide, and not the ledger: it may still hold the one that is gone.
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, subnets, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing NodeSubnets: %w", err)
	}
	if takenBy(subnets.Items).Overlaps(cidr) {
		r.Events.Eventf(network, node, corev1.EventTypeWarning, eventBlockDisputed, actionAllocate,
			"Pods of Node %s use the block %s, whose NodeSubnet is gone, and others overlap it: delete these pods, so that they get other addresses.",
			node.Name, cidr)
		return nil
	}
	subnet, err := r.createSubnet(ctx, node, cidr)
	if apierrors.IsAlreadyExists(err) {
		return nil // Its creation comes back here.
	}
	if err == nil {
		r.Events.Eventf(network, subnet, corev1.EventTypeWarning, eventBlockReclaimed, actionAllocate,
			"Node %s uses the block %s, whose NodeSubnet was gone without having been released: it was made again.", node.Name, cidr)
	}
	return err
}

// unhealed returns the names of the nodes that claim blocks whose NodeSubnets are
// still to be made anew.
func unhealed(
	ctx context.Context, reader client.Reader, nodes map[string]*corev1.Node, reports []podnetv1alpha1.NodeNetwork,
) ([]string, error) {
	network, err := servedNetwork(ctx, reader)
	if err != nil || network == nil {
		return nil, err
	}
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := reader.List(ctx, subnets, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing NodeSubnets: %w", err)
	}
	taken := takenBy(subnets.Items)
	ranges, _ := poolOf(network) // What does not parse is said in the network's conditions.
	var names []string
	for i := range reports {
		report := &reports[i]
		node := nodes[report.Name]
		if node == nil || !ownedBy(report, node) || !node.DeletionTimestamp.IsZero() || !carries(node) {
			continue
		}
		for _, cidr := range claims(report, ranges) {
			if !taken.Overlaps(cidr) {
				names = append(names, report.Name)
				break
			}
		}
	}
	return names, nil
}
