package controllers

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/internal/statuses"
)

// PodNetworkReconciler says in a PodNetwork's status what became of it.
type PodNetworkReconciler struct {
	client.Client
	// Allocator gives out no block while blocks are counted.
	Allocator *allocation.Allocator
	Clock     clock.PassiveClock

	// Events records what users need to know.
	Events events.EventRecorder

	// written is when the status was last written. Every agent watches it.
	written time.Time
	// told are the overlaps that Events have reported.
	told reportedOverlaps
}

// countsInterval is the least time between two writes of a status of which only
// counts have changed.
const countsInterval = 10 * time.Second

// SetupWithManager adds the reconciler to a manager.
func (r *PodNetworkReconciler) SetupWithManager(mgr ctrl.Manager) error {
	served := summarised(func(context.Context) []ctrl.Request {
		return []ctrl.Request{{NamespacedName: types.NamespacedName{Name: podnetv1alpha1.DefaultPodNetwork}}}
	})
	err := ctrl.NewControllerManagedBy(mgr).
		Named("podnetwork").
		For(&podnetv1alpha1.PodNetwork{}, builder.WithPredicates(specChanged())).
		Watches(&podnetv1alpha1.NodeSubnet{}, served, builder.WithPredicates(specChanged())).
		Watches(&podnetv1alpha1.NodeNetwork{}, served, builder.WithPredicates(usageChanged())).
		Watches(&podnetv1alpha1.NodeNetwork{}, served, builder.WithPredicates(overlapFindingsChanged())).
		Watches(&podnetv1alpha1.NodeNetwork{}, served, builder.WithPredicates(divergenceChanged())).
		Watches(&networkingv1.ServiceCIDR{}, served, builder.WithPredicates(specChanged())).
		Watches(&corev1.Node{}, served, builder.WithPredicates(nodeChanged())).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the PodNetwork controller: %w", err)
	}
	return nil
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=podnetworks;nodesubnets;nodenetworks,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=podnetworks/status,verbs=patch

// Reconcile computes the status of one PodNetwork and writes it if it changed.
func (r *PodNetworkReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	network, view, err := r.look(ctx, req.Name)
	if err != nil || network == nil {
		return ctrl.Result{}, err
	}
	status := network.Status.DeepCopy()
	if network.Name == podnetv1alpha1.DefaultPodNetwork {
		if view.missing, err = r.Allocator.Missing(ctx); err != nil {
			return ctrl.Result{}, err
		}
		status.RollCall = r.Allocator.RollCall()
		view.summarise(status)
	} else {
		*status = podnetv1alpha1.PodNetworkStatus{Conditions: status.Conditions}
		apimeta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: podnetv1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonNotServed,
			Message: fmt.Sprintf("This version of podnet serves one network, the PodNetwork named %s: this one has no effect.",
				podnetv1alpha1.DefaultPodNetwork),
		})
	}
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = network.Generation
	}
	if apiequality.Semantic.DeepEqual(*status, network.Status) {
		r.tellOverlaps(network, view.overlaps)
		return view.again(), nil
	}
	if wait := countsInterval - r.Clock.Since(r.written); wait > 0 && sameButCounts(status, &network.Status) {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	apply := podnetv1alpha1ac.PodNetwork(network.Name).WithStatus(networkStatus(status))
	_, err = statuses.Apply(ctx, r, apply, FieldOwner)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write the status of PodNetwork %s: %w", network.Name, err)
	}
	r.written = r.Clock.Now()
	r.tellOverlaps(network, view.overlaps)
	return view.again(), nil
}

// again asks for another look while agents have still to answer the roll call, or to
// report for the first time.
func (v *view) again() ctrl.Result {
	if len(v.missing) > 0 {
		return ctrl.Result{RequeueAfter: summaryInterval}
	}
	return ctrl.Result{RequeueAfter: v.waits}
}

// sameButCounts reports whether two statuses differ in nothing that anybody acts on.
func sameButCounts(a, b *podnetv1alpha1.PodNetworkStatus) bool {
	type gist struct {
		state       podnetv1alpha1.RangeState
		empty, full bool
	}
	gists := func(s *podnetv1alpha1.PodNetworkStatus) map[string]gist {
		out := map[string]gist{}
		for _, r := range s.Ranges {
			out[r.CIDR] = gist{r.State, ptr.Deref(r.BlocksAllocated, 0) == 0, ptr.Deref(r.BlocksFree, 0) == 0}
		}
		return out
	}
	return a.RollCall == b.RollCall && maps.Equal(gists(a), gists(b)) && sameReasons(a.Conditions, b.Conditions)
}

// sameReasons reports whether conditions differ in their messages at most.
func sameReasons(a, b []metav1.Condition) bool {
	gists := func(list []metav1.Condition) map[string]metav1.Condition {
		out := map[string]metav1.Condition{}
		for _, c := range list {
			out[c.Type] = metav1.Condition{Status: c.Status, Reason: c.Reason, ObservedGeneration: c.ObservedGeneration}
		}
		return out
	}
	return maps.Equal(gists(a), gists(b))
}

// look reads a PodNetwork, nil where there is none, and all that its status sums up.
func (r *PodNetworkReconciler) look(ctx context.Context, name string) (*podnetv1alpha1.PodNetwork, *view, error) {
	network := &podnetv1alpha1.PodNetwork{}
	subnets, nodes, reports := &podnetv1alpha1.NodeSubnetList{}, &corev1.NodeList{}, &podnetv1alpha1.NodeNetworkList{}
	if err := r.read(ctx, name, network, subnets, nodes, reports); err != nil {
		return nil, nil, client.IgnoreNotFound(err)
	}
	services, err := r.serviceCIDRs(ctx)
	if err != nil {
		return nil, nil, err
	}
	v := &view{
		Census: allocation.CensusOf(network, subnets.Items), everyNode: nodes.Items, services: services,
		used:    usedAddresses(reports.Items),
		reports: map[string]*podnetv1alpha1.NodeNetwork{},
	}
	for i := range reports.Items {
		v.reports[reports.Items[i].Name] = &reports.Items[i]
	}
	v.claimed = r.Allocator.Owed(v.Census, nodes.Items, reports.Items)
	v.sortNodes(r.Clock.Now())
	return network, v, nil
}

// read reads a PodNetwork and lists, at a moment at which no block is being given out.
func (r *PodNetworkReconciler) read(ctx context.Context, name string, network *podnetv1alpha1.PodNetwork, lists ...client.ObjectList) error {
	r.Allocator.Counting.Lock()
	defer r.Allocator.Counting.Unlock()
	if err := r.Get(ctx, client.ObjectKey{Name: name}, network); err != nil {
		return fmt.Errorf("read PodNetwork %s: %w", name, err)
	}
	for _, list := range lists {
		if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list what PodNetwork %s sums up: %w", name, err)
		}
	}
	return nil
}

// summarise writes what the view shows into the status.
func (v *view) summarise(status *podnetv1alpha1.PodNetworkStatus) {
	status.Ranges = make([]podnetv1alpha1.RangeStatus, len(v.Ranges))
	for i, r := range v.Ranges {
		status.Ranges[i] = v.rangeStatus(r)
	}
	ready, notReady, silent := v.readiness()
	status.NodesTotal, status.NodesReady = ptr.To(count(v.nodes)), ptr.To(ready)
	for _, condition := range []metav1.Condition{
		v.accepted(), v.ready(notReady, silent), v.converged(), v.allocating(), v.exhausted(), v.runningLow(), v.conflicting(), v.overlapping(),
		v.refusedEndpoints(),
	} {
		apimeta.SetStatusCondition(&status.Conditions, condition)
	}
	status.Summary = summaryOf(status)
	record(status)
}

// networkStatus is the status as it is applied.
func networkStatus(status *podnetv1alpha1.PodNetworkStatus) *podnetv1alpha1ac.PodNetworkStatusApplyConfiguration {
	out := podnetv1alpha1ac.PodNetworkStatus().WithConditions(conditions(status.Conditions)...)
	out.NodesTotal, out.NodesReady = status.NodesTotal, status.NodesReady
	if status.RollCall != "" {
		out.WithRollCall(status.RollCall)
	}
	if s := status.Summary; s != (podnetv1alpha1.PodNetworkSummary{}) {
		out.WithSummary(networkSummary(s))
	}
	for _, r := range status.Ranges {
		of := podnetv1alpha1ac.RangeStatus().WithCIDR(r.CIDR).WithState(r.State).
			WithBlocksTotal(*r.BlocksTotal).WithBlocksAllocated(*r.BlocksAllocated).WithBlocksFree(*r.BlocksFree).
			WithAddressesTotal(*r.AddressesTotal).WithAddressesAllocated(*r.AddressesAllocated).WithAddressesFree(*r.AddressesFree).
			WithNodes(*r.Nodes)
		for _, node := range r.Remaining {
			of.WithRemaining(podnetv1alpha1ac.NodePods().WithNode(node.Node).WithPods(*node.Pods))
		}
		out.WithRanges(of)
	}
	return out
}
