package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// RouteModeReconciler says in a RouteMode's status whether it is in force and
// how many nodes it selects.
type RouteModeReconciler struct {
	client.Client
}

// SetupWithManager adds the reconciler to a manager.
func (r *RouteModeReconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("routemode").
		For(&podnetv1alpha1.RouteMode{}, builder.WithPredicates(specChanged())).
		Watches(&corev1.Node{}, summarised(r.all), builder.WithPredicates(nodeChanged())).
		Complete(r)
	if err != nil {
		return fmt.Errorf("adding the RouteMode controller: %w", err)
	}
	return nil
}

// all returns a request for each RouteMode.
func (r *RouteModeReconciler) all(ctx context.Context) []ctrl.Request {
	list := &podnetv1alpha1.RouteModeList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "listing RouteModes")
		return nil
	}
	requests := make([]ctrl.Request, len(list.Items))
	for i := range list.Items {
		requests[i].Name = list.Items[i].Name
	}
	return requests
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=routemodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=podnet.dev,resources=routemodes/status,verbs=patch

// Reconcile computes the status of one RouteMode and writes it if it changed.
func (r *RouteModeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	mode := &podnetv1alpha1.RouteMode{}
	if err := r.Get(ctx, req.NamespacedName, mode); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	nodes := &corev1.NodeList{}
	if err := r.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing nodes: %w", err)
	}
	status := mode.Status.DeepCopy()
	accepted := metav1.Condition{
		Type: podnetv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonAccepted,
		Message: "The RouteMode is in force.", ObservedGeneration: mode.Generation,
	}
	selectors, err := selectorsOf(mode)
	if err != nil {
		accepted.Status, accepted.Reason = metav1.ConditionFalse, podnetv1alpha1.ReasonInvalidSelector
		accepted.Message = limited(fmt.Sprintf("Nothing is done about this RouteMode until its selectors are mended: %s.", oneLine(err)))
	}
	apimeta.SetStatusCondition(&status.Conditions, accepted)
	status.NodesSelected = ptr.To(count(slices.DeleteFunc(slices.Clone(nodes.Items), func(n corev1.Node) bool {
		return !slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(n.Labels)) })
	})))
	if apiequality.Semantic.DeepEqual(*status, mode.Status) {
		return ctrl.Result{}, nil
	}
	apply := podnetv1alpha1ac.RouteMode(mode.Name).WithStatus(podnetv1alpha1ac.RouteModeStatus().
		WithConditions(conditions(status.Conditions)...).WithNodesSelected(*status.NodesSelected))
	err = r.Status().Apply(ctx, apply, client.FieldOwner(FieldOwner), client.ForceOwnership)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("writing the status of RouteMode %s: %w", mode.Name, err)
	}
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
