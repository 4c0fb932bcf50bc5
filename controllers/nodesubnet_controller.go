package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// refusedInterval is how often a NodeSubnet is looked at again that is refused, or whose
// endpoint only stays until a block contains it.
const refusedInterval = 30 * time.Second

// NodeSubnetReconciler keeps in each NodeSubnet what others must know of its
// node, and gives the block back, after a rest, when the node has gone.
type NodeSubnetReconciler struct {
	client.Client
	// Live reads from the API server.
	Live client.Reader
	// Events records what users need to know.
	Events events.EventRecorder
	Clock  clock.PassiveClock
	// Policies may select nodes, and PoliciesChanged tells that some policy has changed.
	Policies        clusterPolicyLister
	PoliciesChanged <-chan event.GenericEvent

	// What follows is the reconciler's alone: it works on one NodeSubnet at a time. Of
	// blocks that nodes hold idle knows since when these have no pod, unused of those
	// that were released, gone since when a block's node is not there as it was, and
	// agentless since when one is on which no agent ever ran.
	idle, unused, gone, agentless idleness
}

// SetupWithManager adds the reconciler to a manager.
func (r *NodeSubnetReconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.idle, r.unused, r.gone, r.agentless = idleness{}, idleness{}, idleness{}, idleness{}
	ofNode := handler.EnqueueRequestsFromMapFunc(r.withClaimants)
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []ctrl.Request {
		return r.subnets(ctx)
	})
	err := ctrl.NewControllerManagedBy(mgr).
		Named("nodesubnet").
		For(&podnetv1alpha1.NodeSubnet{}).
		Watches(&podnetv1alpha1.NodeSubnet{}, ofNode, builder.WithPredicates(specChanged())).
		Watches(&corev1.Node{}, ofNode, builder.WithPredicates(nodeChanged())).
		Watches(&podnetv1alpha1.NodeNetwork{}, ofNode, builder.WithPredicates(usageChanged())).
		Watches(&podnetv1alpha1.RouteMode{}, all, builder.WithPredicates(specChanged())).
		Watches(&podnetv1alpha1.PodNetwork{}, all, builder.WithPredicates(specChanged())).
		Watches(&networkingv1.ServiceCIDR{}, all, builder.WithPredicates(specChanged())).
		WatchesRawSource(source.Channel(r.PoliciesChanged, all)).
		// Of several blocks of a node that could go, one goes at a time.
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the NodeSubnet controller: %w", err)
	}
	return nil
}

// subnets returns a request for each NodeSubnet that the options select.
func (r *NodeSubnetReconciler) subnets(ctx context.Context, options ...client.ListOption) []ctrl.Request {
	list := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "cannot list NodeSubnets")
		return nil
	}
	requests := make([]ctrl.Request, len(list.Items))
	for i := range list.Items {
		requests[i].Name = list.Items[i].Name
	}
	return requests
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=podnetworks;nodenetworks;routemodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=nodesubnets,verbs=get;list;watch;update;delete

// Reconcile brings one NodeSubnet up to date with its node, or lets it rest.
func (r *NodeSubnetReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	subnet := &podnetv1alpha1.NodeSubnet{}
	if err := r.Get(ctx, req.NamespacedName, subnet); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if subnet.Spec.State == podnetv1alpha1.SubnetReleased {
		delete(r.idle, subnet.UID)
		delete(r.gone, subnet.UID)
	}
	if subnet.Spec.Network != podnetv1alpha1.DefaultPodNetwork {
		return ctrl.Result{}, nil
	}
	network, err := objects.ServedNetwork(ctx, r)
	if err != nil {
		return ctrl.Result{}, err
	}
	if subnet.Spec.State == podnetv1alpha1.SubnetReleased {
		return r.rest(ctx, subnet, network)
	}
	node, err := r.holder(ctx, subnet)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case node == nil && subnet.Spec.NodeUID == "":
		// Made by hand for a node that has not come yet.
		return ctrl.Result{}, nil
	case node == nil:
		return r.bereaved(ctx, subnet, network)
	}
	delete(r.gone, subnet.UID)
	left, released, err := r.untended(ctx, subnet, node)
	if err != nil || released {
		return ctrl.Result{}, err
	}
	if subnet.Spec.NodeUID == "" {
		if refused, err := r.refused(ctx, subnet, network); err != nil || refused {
			return ctrl.Result{RequeueAfter: refusedInterval}, err
		}
	}
	fate, wait, err := r.fate(ctx, subnet, node, network)
	if err != nil {
		return ctrl.Result{}, err
	}
	if fate == ipam.Release {
		if err := r.release(ctx, subnet); err != nil {
			return ctrl.Result{}, err
		}
		ctrl.LoggerFrom(ctx).Info("a node gave back a block", "node", node.Name, "block", subnet.Spec.CIDR)
		r.Events.Eventf(node, subnet, corev1.EventTypeNormal, eventBlockReleased, actionServe,
			"Node %s gives back the block %s: no pod uses it any more.", node.Name, subnet.Spec.CIDR)
		return ctrl.Result{}, nil
	}
	covered, err := r.keepCurrent(ctx, subnet, node, network, fate)
	if err != nil {
		return ctrl.Result{}, err
	}
	if covered && (wait == 0 || refusedInterval < wait) {
		wait = refusedInterval
	}
	if !subnet.DeletionTimestamp.IsZero() {
		r.Events.Eventf(subnet, node, corev1.EventTypeWarning, eventDeletedInUse, actionServe,
			"NodeSubnet %s was deleted while Node %s holds its block: the node keeps the block, and its pods keep their addresses."+
				" There is nothing to do: the object goes when the node is removed or no longer needs the block.", subnet.Name, node.Name)
	}
	if wait == 0 || left != 0 && left < wait {
		wait = left
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// holder returns the node that holds the block, or nil if that has gone. Before
// it says so, it asks the API server itself: a cache that lags behind the node's
// creation must not take the block from it.
func (r *NodeSubnetReconciler) holder(ctx context.Context, subnet *podnetv1alpha1.NodeSubnet) (*corev1.Node, error) {
	isHolder := func(n *corev1.Node) bool { return subnet.Spec.NodeUID == "" || n.UID == subnet.Spec.NodeUID }
	node := &corev1.Node{}
	err := r.Get(ctx, types.NamespacedName{Name: subnet.Spec.Node}, node)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read Node %s: %w", subnet.Spec.Node, err)
	}
	if err == nil && isHolder(node) {
		return node, nil
	}
	live, err := objects.LiveNode(ctx, r.Live, subnet.Spec.Node)
	if err != nil || live == nil || !isHolder(live) {
		return nil, err
	}
	return live, nil
}

// refused reports whether nobody serves a NodeSubnet that was made by hand, and
// tells its maker why.
func (r *NodeSubnetReconciler) refused(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, network *podnetv1alpha1.PodNetwork,
) (bool, error) {
	if network == nil {
		return true, nil
	}
	all := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list NodeSubnets: %w", err)
	}
	for _, conflict := range allocation.CensusOf(network, all.Items).Conflicts() {
		if conflict.Refused.Name == subnet.Name {
			r.Events.Eventf(subnet, nil, corev1.EventTypeWarning, eventRefused, actionServe, "%s.", conflict)
			return true, nil
		}
	}
	return false, nil
}

// keepCurrent writes what has changed of the node into its NodeSubnet, and reports whether an
// endpoint is in it that stays only until a block contains it. The update carries the
// resourceVersion that it was computed from.
func (r *NodeSubnetReconciler) keepCurrent(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, node *corev1.Node, network *podnetv1alpha1.PodNetwork, fate ipam.Fate,
) (covered bool, err error) {
	want := subnet.DeepCopy()
	want.Spec.NodeUID = node.UID
	if want.DeletionTimestamp.IsZero() {
		controllerutil.AddFinalizer(want, podnetv1alpha1.NodeSubnetFinalizer)
	}
	known, err := registryOf(ctx, r, network)
	if err != nil {
		return false, err
	}
	if covered, err = r.publish(ctx, want, node, known); err != nil {
		return false, err
	}
	keys, policiesSelect, err := r.nodeSelectors(ctx)
	if err != nil {
		return false, err
	}
	want.Spec.NodeLabels, want.Spec.NodeAddresses = labelsOf(node, keys), nil
	if policiesSelect {
		want.Spec.NodeAddresses = otherAddresses(node, want.Spec.Endpoints, known)
	}
	want.Spec.State = podnetv1alpha1.SubnetActive
	if fate == ipam.Drain {
		want.Spec.State = podnetv1alpha1.SubnetDraining
	}
	if apiequality.Semantic.DeepEqual(subnet, want) {
		return covered, nil
	}
	if err := r.Update(ctx, want); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("update NodeSubnet %s: %w", subnet.Name, err)
	}
	return covered, nil
}

// publish writes the addresses to which others send packets for the node, and whether
// its agent responds, and reports those addresses that it does not write, or that stay only until
// a block contains them; covered reports whether there are any of the latter.
func (r *NodeSubnetReconciler) publish(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, node *corev1.Node, known registry,
) (covered bool, err error) {
	report := &podnetv1alpha1.NodeNetwork{}
	if err := r.Get(ctx, client.ObjectKeyFromObject(node), report); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read NodeNetwork %s: %w", node.Name, err)
	}
	subnet.Spec.AgentNotResponding = nil
	if objects.OwnedBy(report, node) && !responds(report) {
		subnet.Spec.AgentNotResponding = ptr.To(true)
	}
	claimed := claimedEndpoints(node, report)
	if len(claimed) == 0 {
		if len(subnet.Spec.Endpoints) == 0 {
			r.Events.Eventf(node, subnet, corev1.EventTypeWarning, eventNoAddress, actionReport,
				"Node %s has no address that other nodes could send to: its status has no InternalIP, and its agent reports none."+
					" Set the kubelet's --node-ip, or agent.nodeInterface in the chart's values.", node.Name)
		}
		return false, nil
	}
	endpoints, refused, err := known.publish(node, claimed, subnet.Spec.Endpoints)
	if err != nil {
		return false, err
	}
	subnet.Spec.Endpoints = endpoints
	for _, no := range refused {
		covered = covered || no.kept
		r.Events.Eventf(node, subnet, corev1.EventTypeWarning, eventEndpointRefused, actionReport,
			"%s. Choose another address for the node (agent.nodeInterface, agent.nodeCIDRs), or correct its InternalIP.", no)
	}
	return covered, nil
}

// nodeSelectors returns the keys of labels that RouteModes and policies select nodes by,
// and whether any policy selects nodes.
func (r *NodeSubnetReconciler) nodeSelectors(ctx context.Context) ([]string, bool, error) {
	modes := &podnetv1alpha1.RouteModeList{}
	if err := r.List(ctx, modes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, false, fmt.Errorf("list RouteModes: %w", err)
	}
	policies, err := r.Policies.List(ctx)
	if err != nil {
		return nil, false, err
	}
	keys, selects := policyKeysOf(policies)
	keys = append(keys, labelKeysOf(modes.Items)...)
	slices.Sort(keys)
	return slices.Compact(keys), selects, nil
}

// labelKeysOf returns the keys of labels that RouteModes select nodes by, sorted.
func labelKeysOf(modes []podnetv1alpha1.RouteMode) []string {
	var keys []string
	for i := range modes {
		for _, selector := range modes[i].Spec.Between {
			for key := range selector.MatchLabels {
				keys = append(keys, key)
			}
			for _, e := range selector.MatchExpressions {
				keys = append(keys, e.Key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
