package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/internal/statuses"
)

// RouteModeReconciler says in a RouteMode's status whether it is in force, on how
// many of the nodes that it selects, and which other one decides instead.
type RouteModeReconciler struct {
	client.Client
	Clock clock.PassiveClock

	// written is when each status was last written. Every agent watches them.
	written map[string]time.Time
}

// SetupWithManager adds the reconciler to a manager.
func (r *RouteModeReconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.written = map[string]time.Time{}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("routemode").
		For(&podnetv1alpha1.RouteMode{}, builder.WithPredicates(specChanged())).
		// One that changes may decide for the others' nodes too.
		Watches(&podnetv1alpha1.RouteMode{}, summarised(r.all), builder.WithPredicates(specChanged())).
		Watches(&corev1.Node{}, summarised(r.all), builder.WithPredicates(nodeChanged())).
		Watches(&podnetv1alpha1.NodeNetwork{}, summarised(r.all), builder.WithPredicates(routeModesChanged())).
		// It remembers when it wrote.
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the RouteMode controller: %w", err)
	}
	return nil
}

// all returns a request for each RouteMode.
func (r *RouteModeReconciler) all(ctx context.Context) []ctrl.Request {
	list := &podnetv1alpha1.RouteModeList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "cannot list RouteModes")
		return nil
	}
	requests := make([]ctrl.Request, len(list.Items))
	for i := range list.Items {
		requests[i].Name = list.Items[i].Name
	}
	return requests
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=routemodes;nodenetworks,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=routemodes/status,verbs=patch

// Reconcile computes the status of one RouteMode and writes it if it changed.
func (r *RouteModeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	mode := &podnetv1alpha1.RouteMode{}
	if err := r.Get(ctx, req.NamespacedName, mode); err != nil {
		delete(r.written, req.Name)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	nodes, modes, reports := &corev1.NodeList{}, &podnetv1alpha1.RouteModeList{}, &podnetv1alpha1.NodeNetworkList{}
	for _, list := range []client.ObjectList{nodes, modes, reports} {
		if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return ctrl.Result{}, fmt.Errorf("list what RouteMode %s sums up: %w", mode.Name, err)
		}
	}
	status := mode.Status.DeepCopy()
	routeModeView{mode: mode, others: modes.Items, nodes: nodes.Items, reports: reports.Items}.summarise(status)
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = mode.Generation
	}
	if apiequality.Semantic.DeepEqual(*status, mode.Status) {
		return ctrl.Result{}, nil
	}
	if wait := countsInterval - r.Clock.Since(r.written[mode.Name]); wait > 0 && sameReasons(status.Conditions, mode.Status.Conditions) {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	of := podnetv1alpha1ac.RouteModeStatus().WithConditions(conditions(status.Conditions)...).
		WithNodesSelected(*status.NodesSelected).WithNodesConverged(*status.NodesConverged)
	for _, e := range status.Exceptions {
		of.WithExceptions(podnetv1alpha1ac.NodeException().WithNode(e.Node).WithMessage(e.Message))
	}
	_, err := statuses.Apply(ctx, r, podnetv1alpha1ac.RouteMode(mode.Name).WithStatus(of), FieldOwner)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write the status of RouteMode %s: %w", mode.Name, err)
	}
	r.written[mode.Name] = r.Clock.Now()
	return ctrl.Result{}, nil
}

// selectorsOf returns what a RouteMode selects nodes by: nothing where one of its
// selectors does not parse, which the error names.
func selectorsOf(mode *podnetv1alpha1.RouteMode) ([]labels.Selector, error) {
	var selectors []labels.Selector
	var errs []error
	for i := range mode.Spec.Between {
		selector, err := metav1.LabelSelectorAsSelector(&mode.Spec.Between[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("between[%d]: %w", i, err))
			continue
		}
		selectors = append(selectors, selector)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return selectors, nil
}
