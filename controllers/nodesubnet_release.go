package controllers

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
)

// release says that a block is nobody's any more: every agent withdraws its
// routes. The block rests from now on; what follows is done by rest.
func (r *NodeSubnetReconciler) release(ctx context.Context, subnet *podnetv1alpha1.NodeSubnet) error {
	released := subnet.DeepCopy()
	released.Spec.State = podnetv1alpha1.SubnetReleased
	if released.Annotations == nil {
		released.Annotations = map[string]string{}
	}
	released.Annotations[podnetv1alpha1.ReleasedAtAnnotation] = r.Clock.Now().UTC().Format(time.RFC3339)
	if released.DeletionTimestamp.IsZero() {
		controllerutil.AddFinalizer(released, podnetv1alpha1.NodeSubnetFinalizer)
	}
	if err := r.Update(ctx, released); err != nil {
		return fmt.Errorf("release NodeSubnet %s: %w", subnet.Name, err)
	}
	return nil
}

// rest deletes a released NodeSubnet, and lets go of it, which frees the block
// for others, when its quarantine is over and no earlier. As long as pods use the
// block it does not begin, so that those of a node that goes for good have time to
// end however long ago the block was released.
func (r *NodeSubnetReconciler) rest(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, network *podnetv1alpha1.PodNetwork,
) (ctrl.Result, error) {
	releasedAt, err := time.Parse(time.RFC3339, subnet.Annotations[podnetv1alpha1.ReleasedAtAnnotation])
	if err != nil {
		// Somebody else set the state: the rest begins now.
		return ctrl.Result{}, r.release(ctx, subnet)
	}
	if subnet.DeletionTimestamp.IsZero() {
		err := r.Delete(ctx, subnet, client.Preconditions{UID: &subnet.UID})
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return ctrl.Result{}, fmt.Errorf("delete NodeSubnet %s: %w", subnet.Name, err)
		}
		return ctrl.Result{}, nil
	}
	inUse, err := r.inUse(ctx, subnet)
	if err != nil {
		return ctrl.Result{}, err
	}
	r.unused.look(subnet.UID, inUse, r.Clock.Now())
	if inUse {
		return ctrl.Result{RequeueAfter: inUseInterval}, nil
	}
	since := subnet.DeletionTimestamp.Time
	for _, later := range []time.Time{releasedAt, r.unused[subnet.UID]} {
		if later.After(since) {
			since = later
		}
	}
	if left := since.Add(quarantine(network)).Sub(r.Clock.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	rested := subnet.DeepCopy()
	if !controllerutil.RemoveFinalizer(rested, podnetv1alpha1.NodeSubnetFinalizer) {
		return ctrl.Result{}, nil
	}
	if err := r.Update(ctx, rested); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("give back the block of NodeSubnet %s: %w", subnet.Name, err)
	}
	delete(r.unused, subnet.UID)
	return ctrl.Result{}, nil
}

// inUseInterval is the time between looks at whether pods have left a block.
const inUseInterval = 10 * time.Second

// inUse reports whether pods may have addresses of the block: a node that was deleted
// and made again keeps the pods that it runs, and their addresses are not given to
// others meanwhile. What the agent of a node of that name has not said is unknown;
// and as long as it names a state of the block, it may give addresses of it.
func (r *NodeSubnetReconciler) inUse(ctx context.Context, subnet *podnetv1alpha1.NodeSubnet) (bool, error) {
	node, err := objects.LiveNode(ctx, r.Live, subnet.Spec.Node)
	if err != nil || node == nil {
		return false, err
	}
	var nn podnetv1alpha1.NodeNetwork
	if err := r.Get(ctx, client.ObjectKeyFromObject(node), &nn); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read NodeNetwork %s: %w", node.Name, err)
	}
	if objects.Carries(node) && (!objects.OwnedBy(&nn, node) || !reported(&nn)) {
		return !agentless(&nn, subnet, node), nil
	}
	b, _ := objects.Block(&nn, subnet.Spec.CIDR)
	return b.State != "" || ptr.Deref(b.AddressesUsed, 0) > 0, nil
}

// quarantine is how long a block rests. Times in objects are cut to seconds, so
// a second more makes sure that the rest is never shorter than asked.
func quarantine(network *podnetv1alpha1.PodNetwork) time.Duration {
	seconds := int32(podnetv1alpha1.DefaultBlockQuarantineSeconds)
	if network != nil && network.Spec.BlockQuarantineSeconds != nil {
		seconds = *network.Spec.BlockQuarantineSeconds
	}
	if seconds == 0 {
		return 0
	}
	return time.Duration(seconds)*time.Second + time.Second
}

// idleness remembers since when blocks have had no pod. A manager that begins to
// lead begins to remember: a block goes back later than it might, never earlier.
type idleness map[types.UID]time.Time

// look takes note of whether a block has pods.
func (i idleness) look(block types.UID, inUse bool, now time.Time) {
	if _, known := i[block]; inUse {
		delete(i, block)
	} else if !known {
		i[block] = now
	}
}
