package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
)

const (
	// returnGrace is how long at most a block stays as it is after its Node is gone: its pods
	// run on and may come back with it, as where somebody deletes the Node of a
	// kubelet that runs. Kubernetes deletes the pods of a Node that is gone after
	// 40 s to a minute.
	returnGrace = time.Minute
	// agentPatience is how long a node has for the first report of its agent before it
	// counts as one on which none is to run.
	agentPatience = 10 * time.Minute
)

// bereaved decides what becomes of a block whose Node is gone, or is there with
// another UID. It stays as it is for a while. When a node of that name is back and its
// agent says that pods have addresses of the block, NodeReconciler makes it that node's.
// Until the agent has said anything the block is Draining, and where it says that no
// pod has any, it is released: a machine that was set up again shall not give
// addresses that others may still know as those of its predecessor's pods.
func (r *NodeSubnetReconciler) bereaved(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, network *podnetv1alpha1.PodNetwork,
) (ctrl.Result, error) {
	node, err := objects.LiveNode(ctx, r.Live, subnet.Spec.Node)
	if err != nil {
		return ctrl.Result{}, err
	}
	back := node != nil && objects.Carries(node)
	r.gone.look(subnet.UID, back, r.Clock.Now())
	if !back {
		grace := min(returnGrace, quarantine(network))
		if left := grace - r.Clock.Since(r.gone[subnet.UID]); left > 0 {
			return ctrl.Result{RequeueAfter: left}, nil
		}
		return ctrl.Result{}, r.release(ctx, subnet)
	}
	report, err := r.reportOf(ctx, node)
	if err != nil || report == nil {
		return ctrl.Result{RequeueAfter: inUseInterval}, err
	}
	b, named := objects.Block(report, subnet.Spec.CIDR)
	switch {
	case ptr.Deref(b.AddressesUsed, 0) > 0:
		return ctrl.Result{RequeueAfter: inUseInterval}, nil
	case !reported(report), b.State == podnetv1alpha1.SubnetActive:
		// A change of the block makes the agent report.
		return ctrl.Result{RequeueAfter: inUseInterval}, r.drain(ctx, subnet)
	case !named, b.State == podnetv1alpha1.SubnetDraining && b.ObservedGeneration == subnet.Generation:
		return ctrl.Result{}, r.release(ctx, subnet)
	}
	return ctrl.Result{RequeueAfter: inUseInterval}, nil
}

// reportOf returns what the agent of this very node reports; nil where there is
// nothing for it to report on yet.
func (r *NodeSubnetReconciler) reportOf(ctx context.Context, node *corev1.Node) (*podnetv1alpha1.NodeNetwork, error) {
	report := &podnetv1alpha1.NodeNetwork{}
	if err := r.Get(ctx, client.ObjectKeyFromObject(node), report); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read NodeNetwork %s: %w", node.Name, err)
	}
	// One that was not found is nobody's.
	if !objects.OwnedBy(report, node) {
		return nil, nil
	}
	return report, nil
}

// drain lets no new pod have an address of a block.
func (r *NodeSubnetReconciler) drain(ctx context.Context, subnet *podnetv1alpha1.NodeSubnet) error {
	if subnet.Spec.State == podnetv1alpha1.SubnetDraining {
		return nil
	}
	want := subnet.DeepCopy()
	want.Spec.State = podnetv1alpha1.SubnetDraining
	if err := r.Update(ctx, want); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("drain NodeSubnet %s: %w", subnet.Name, err)
	}
	return nil
}

// untended releases a block that was given to a node on which no agent ever ran, and
// reports whether it did; left is how long the node has for one, 0 where it has or had one.
func (r *NodeSubnetReconciler) untended(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, node *corev1.Node,
) (left time.Duration, released bool, err error) {
	report, err := r.reportOf(ctx, node)
	if err != nil {
		return 0, false, err
	}
	is := agentless(report, subnet, node)
	r.agentless.look(subnet.UID, !is, r.Clock.Now())
	if !is {
		return 0, false, nil
	}
	if left = agentPatience - r.Clock.Since(r.agentless[subnet.UID]); left > 0 {
		return left, false, nil
	}
	delete(r.agentless, subnet.UID)
	if err := r.release(ctx, subnet); err != nil {
		return 0, false, err
	}
	r.Events.Eventf(node, subnet, corev1.EventTypeNormal, eventBlockReleased, actionServe,
		"Node %s gives back the block %s: no agent of podnet ever ran there.", node.Name, subnet.Spec.CIDR)
	return 0, true, nil
}

// agentless reports whether no agent ran on the node for as long as it has held the
// block: its NodeNetwork is as old, and nobody has written into it.
func agentless(report *podnetv1alpha1.NodeNetwork, subnet *podnetv1alpha1.NodeSubnet, node *corev1.Node) bool {
	return report != nil && !reported(report) && objects.OwnedBy(report, node) && subnet.Spec.NodeUID == node.UID &&
		!report.CreationTimestamp.After(subnet.CreationTimestamp.Time)
}
