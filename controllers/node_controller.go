package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
)

// Reasons of the Events about nodes.
const (
	eventNoFreeBlock    = "NoFreeBlock"
	eventNoAddress      = "NoAddress"
	eventBlockAllocated = "BlockAllocated"
	eventBlockReleased  = "BlockReleased"
	eventDeletedInUse   = "DeletedInUse"
	eventRefused        = "Refused"
	actionReport        = "Report"
	actionServe         = "Serve"
)

// NodeReconciler gives each node its NodeNetwork, and its blocks once an agent has
// reported there, and says on the Node whether its network is there.
type NodeReconciler struct {
	client.Client
	// Live reads from the API server.
	Live client.Reader
	// Events records what users need to know.
	Events events.EventRecorder
	// Allocator gives nodes their blocks.
	Allocator *allocation.Allocator
	Clock     clock.PassiveClock

	// waiting holds the names of nodes that no range has a block for.
	waiting sync.Map
}

// nodeWorkers is how many nodes are looked after at a time.
const nodeWorkers = 8

// SetupWithManager adds the reconciler to a manager.
func (r *NodeReconciler) SetupWithManager(mgr ctrl.Manager) error {
	byName := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []ctrl.Request {
		return []ctrl.Request{{NamespacedName: types.NamespacedName{Name: o.GetName()}}}
	})
	err := ctrl.NewControllerManagedBy(mgr).
		Named("node").
		For(&corev1.Node{}, builder.WithPredicates(nodeChanged())).
		Watches(&podnetv1alpha1.PodNetwork{}, handler.EnqueueRequestsFromMapFunc(r.allNodes), builder.WithPredicates(specChanged())).
		Watches(&podnetv1alpha1.NodeNetwork{}, byName, builder.WithPredicates(usageChanged())).
		Watches(&podnetv1alpha1.NodeSubnet{}, handler.EnqueueRequestsFromMapFunc(r.holderAndWaiting), builder.WithPredicates(specChanged())).
		// Most of an allocation is waiting for the API server.
		WithOptions(controller.Options{MaxConcurrentReconciles: nodeWorkers}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the node controller: %w", err)
	}
	return nil
}

// allNodes enqueues every node: a network that changed may have blocks for any of them.
func (r *NodeReconciler) allNodes(ctx context.Context, _ client.Object) []ctrl.Request {
	nodes := &corev1.NodeList{}
	if err := r.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "cannot list nodes")
		return nil
	}
	requests := make([]ctrl.Request, len(nodes.Items))
	for i := range nodes.Items {
		requests[i].Name = nodes.Items[i].Name
	}
	return requests
}

// holderAndWaiting enqueues the node that a NodeSubnet belongs to, and those that
// wait for a block, since this may have been the one that was in their way.
func (r *NodeReconciler) holderAndWaiting(_ context.Context, o client.Object) []ctrl.Request {
	var requests []ctrl.Request
	if s, ok := o.(*podnetv1alpha1.NodeSubnet); ok {
		requests = append(requests, ctrl.Request{NamespacedName: types.NamespacedName{Name: s.Spec.Node}})
	}
	r.waiting.Range(func(name, _ any) bool {
		if node, ok := name.(string); ok {
			requests = append(requests, ctrl.Request{NamespacedName: types.NamespacedName{Name: node}})
		}
		return true
	})
	return requests
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=nodes/status,verbs=patch
// +kubebuilder:rbac:groups=podnet.dev,resources=podnetworks,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=nodesubnets,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups=podnet.dev,resources=nodenetworks,verbs=get;list;watch;create;delete

// Reconcile brings one node's blocks, NodeNetwork and condition up to date.
func (r *NodeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	node := &corev1.Node{}
	if err := r.Get(ctx, req.NamespacedName, node); err != nil {
		r.waiting.Delete(req.Name)
		if apierrors.IsNotFound(err) {
			r.Allocator.Forget(req.Name)
		}
		// What a node leaves behind is the NodeSubnet controller's.
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	network, err := objects.ServedNetwork(ctx, r)
	if err != nil || network == nil {
		return ctrl.Result{}, err
	}
	if _, uninstall := network.Annotations[podnetv1alpha1.UninstallAnnotation]; uninstall || !node.DeletionTimestamp.IsZero() || !objects.Carries(node) {
		return ctrl.Result{}, nil
	}
	report, err := r.ensureNodeNetwork(ctx, node)
	if err != nil || !reported(report) {
		return ctrl.Result{}, err // A node without an agent needs no addresses.
	}
	// A block that cannot be made the node's again is no reason to keep others from it.
	waits, reportErr := r.Allocator.Claim(ctx, node, network, report)
	outcome, allocateErr := r.Allocator.Ensure(ctx, node, network, report)
	if outcome.Pending {
		return ctrl.Result{RequeueAfter: allocation.PendingInterval}, errors.Join(reportErr, allocateErr)
	}
	if allocateErr == nil {
		if outcome.Shortage == "" {
			r.waiting.Delete(node.Name)
		} else {
			r.waiting.Store(node.Name, nil)
		}
		allocateErr = r.setNetworkUnavailable(ctx, node, report, outcome)
		r.announce(ctx, network, node, outcome)
		if outcome.Shortage != "" {
			// The news of a block that became free may be here before the ledger's.
			return ctrl.Result{RequeueAfter: shortageInterval}, errors.Join(reportErr, allocateErr)
		}
	}
	if waits {
		return ctrl.Result{RequeueAfter: allocation.PendingInterval}, errors.Join(reportErr, allocateErr)
	}
	return ctrl.Result{}, errors.Join(reportErr, allocateErr)
}

// shortageInterval is how often a node that lacks a block asks whether there is one by now.
const shortageInterval = 30 * time.Second

// announce tells, by Events and in the log, what came out of an allocation.
func (r *NodeReconciler) announce(ctx context.Context, network *podnetv1alpha1.PodNetwork, node *corev1.Node, outcome allocation.Outcome) {
	if len(outcome.Created) > 0 {
		names := make([]string, len(outcome.Created))
		for i, block := range outcome.Created {
			names[i] = block.String()
		}
		ctrl.LoggerFrom(ctx).Info("a node got blocks", "node", node.Name, "blocks", names)
		r.Events.Eventf(node, nil, corev1.EventTypeNormal, eventBlockAllocated, allocation.ActionAllocate,
			"Node %s got pod addresses: %s.", node.Name, strings.Join(names, ", "))
	}
	if outcome.Shortage != "" {
		r.Events.Eventf(node, network, corev1.EventTypeWarning, eventNoFreeBlock, allocation.ActionAllocate, "%s", outcome.Shortage)
		r.Events.Eventf(network, node, corev1.EventTypeWarning, eventNoFreeBlock, allocation.ActionAllocate,
			"Node %s waits for a block. %s", node.Name, outcome.Shortage)
	}
}

// ensureNodeNetwork makes the object on which the node's agent reports, owned by
// the Node so that it goes with it. It returns nil until there is one for this
// very node: that of a node which had its name before says nothing about it.
func (r *NodeReconciler) ensureNodeNetwork(ctx context.Context, node *corev1.Node) (*podnetv1alpha1.NodeNetwork, error) {
	report := &podnetv1alpha1.NodeNetwork{}
	err := r.Get(ctx, client.ObjectKeyFromObject(node), report)
	switch {
	case err == nil && objects.OwnedBy(report, node):
		return report, nil
	case err == nil && !report.DeletionTimestamp.IsZero():
		return nil, nil // It is on its way out, and its deletion comes back here.
	case err == nil:
		err = r.Delete(ctx, report, client.Preconditions{UID: &report.UID})
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return nil, fmt.Errorf("delete NodeNetwork %s of a former node: %w", node.Name, err)
		}
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read NodeNetwork %s: %w", node.Name, err)
	}
	report = &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{
		Name: node.Name,
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
		}},
	}}
	if err := r.Create(ctx, report); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return nil, nil // Another manager was faster, and its creation comes back here.
		}
		return nil, fmt.Errorf("create NodeNetwork %s: %w", node.Name, err)
	}
	return report, nil
}

// reported reports whether an agent has written anything into a NodeNetwork: an agent
// that runs does so before its node holds a block.
func reported(report *podnetv1alpha1.NodeNetwork) bool {
	return report != nil && !apiequality.Semantic.DeepEqual(report.Status, podnetv1alpha1.NodeNetworkStatus{})
}

// carriesPods reports whether the agent reports that pods of its node can talk:
// also where something else that was asked could not be done.
func carriesPods(report *podnetv1alpha1.NodeNetwork) bool {
	if report == nil {
		return false
	}
	programmed := apimeta.FindStatusCondition(report.Status.Conditions, podnetv1alpha1.ConditionProgrammed)
	return programmed != nil &&
		(programmed.Status == metav1.ConditionTrue || programmed.Reason == podnetv1alpha1.ReasonDegraded)
}
