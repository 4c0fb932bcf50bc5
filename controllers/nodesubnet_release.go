package controllers

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
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
		return fmt.Errorf("releasing NodeSubnet %s: %w", subnet.Name, err)
	}
	return nil
}

// rest deletes a released NodeSubnet, and lets go of it, which frees the block
// for others, when its quarantine is over and no earlier.
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
			return ctrl.Result{}, fmt.Errorf("deleting NodeSubnet %s: %w", subnet.Name, err)
		}
		return ctrl.Result{}, nil
	}
	since := subnet.DeletionTimestamp.Time
	if releasedAt.After(since) {
		since = releasedAt
	}
	if left := since.Add(quarantine(network)).Sub(r.Clock.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	inUse, err := r.inUse(ctx, subnet)
	if err != nil {
		return ctrl.Result{}, err
	}
	if inUse {
		return ctrl.Result{RequeueAfter: inUseInterval}, nil
	}
	rested := subnet.DeepCopy()
	if !controllerutil.RemoveFinalizer(rested, podnetv1alpha1.NodeSubnetFinalizer) {
		return ctrl.Result{}, nil
	}
	if err := r.Update(ctx, rested); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("giving back the block of NodeSubnet %s: %w", subnet.Name, err)
	}
	return ctrl.Result{}, nil
}

// inUseInterval is the time between looks at whether pods have left a block.
const inUseInterval = 10 * time.Second

// inUse says whether a node of the block's node's name reports pods with addresses
// of the block: a node that was deleted and made again keeps the pods that it runs,
// and their addresses are not given to others meanwhile.
func (r *NodeSubnetReconciler) inUse(ctx context.Context, subnet *podnetv1alpha1.NodeSubnet) (bool, error) {
	var nn podnetv1alpha1.NodeNetwork
	if err := r.Get(ctx, client.ObjectKey{Name: subnet.Spec.Node}, &nn); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("reading NodeNetwork %s: %w", subnet.Spec.Node, err)
	}
	for _, b := range nn.Status.Blocks {
		if b.CIDR == subnet.Spec.CIDR && b.AddressesUsed != nil && *b.AddressesUsed > 0 {
			return true, nil
		}
	}
	return false, nil
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
