package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/source"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/internal/policy/policyapi"
)

// Of the Events about ClusterNetworkPolicies.
const (
	eventNotAccepted = "NotAccepted"
	actionEnforce    = "Enforce"
)

// clusterPolicyLister lists the cluster's ClusterNetworkPolicies, which nobody may
// change; none where the API server has no such kind. It fails as long as it does not
// know which there are. A client would make an informer, which is never complete where
// the kind is not served.
type clusterPolicyLister interface {
	List(ctx context.Context) ([]policyv1alpha2.ClusterNetworkPolicy, error)
}

// ClusterNetworkPolicyReconciler says in a ClusterNetworkPolicy's status whether podnet
// enforces all of it. The agents enforce it.
type ClusterNetworkPolicyReconciler struct {
	client.Client
	Policies clusterPolicyLister
	// Events records what users need to know.
	Events events.EventRecorder
	// Changed tells that some policy has changed.
	Changed <-chan event.GenericEvent
}

// SetupWithManager adds the reconciler to a manager.
func (r *ClusterNetworkPolicyReconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("clusternetworkpolicy").
		// One that changes may get the priority of others, or give it up.
		WatchesRawSource(source.Channel(r.Changed, summarised(r.all))).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("add the ClusterNetworkPolicy controller: %w", err)
	}
	return nil
}

// all returns a request for each ClusterNetworkPolicy.
func (r *ClusterNetworkPolicyReconciler) all(ctx context.Context) []ctrl.Request {
	policies, err := r.Policies.List(ctx)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "cannot list ClusterNetworkPolicies")
		return nil
	}
	requests := make([]ctrl.Request, len(policies))
	for i := range policies {
		requests[i].Name = policies[i].Name
	}
	return requests
}

// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies/status,verbs=patch

// Reconcile reads one ClusterNetworkPolicy and writes its condition if it changed.
func (r *ClusterNetworkPolicyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	policies, err := r.Policies.List(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	i := slices.IndexFunc(policies, func(p policyv1alpha2.ClusterNetworkPolicy) bool { return p.Name == req.Name })
	if i < 0 {
		return ctrl.Result{}, nil
	}
	policy := &policies[i]
	before := apimeta.FindStatusCondition(policy.Status.Conditions, podnetv1alpha1.ConditionPolicyAccepted)
	own := []metav1.Condition{}
	if before != nil {
		own = append(own, *before)
	}
	apimeta.SetStatusCondition(&own, accepted(policy, policies))
	if before != nil && apiequality.Semantic.DeepEqual(own[0], *before) {
		return ctrl.Result{}, nil
	}
	if err := r.apply(ctx, policy.Name, own[0]); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write the status of ClusterNetworkPolicy %s: %w", policy.Name, err)
	}
	if own[0].Status == metav1.ConditionFalse && (before == nil || before.Message != own[0].Message) {
		r.Events.Eventf(policy, nil, corev1.EventTypeWarning, eventNotAccepted, actionEnforce, "%s", messages.Clip(messages.Note, own[0].Message))
	}
	return ctrl.Result{}, nil
}

// apply writes podnet's condition. Conditions are told apart by their types, so that
// those of others who enforce the policy stay.
func (r *ClusterNetworkPolicyReconciler) apply(ctx context.Context, name string, condition metav1.Condition) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&condition)
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	object.SetAPIVersion(policyv1alpha2.GroupVersion.String())
	object.SetKind("ClusterNetworkPolicy")
	object.SetName(name)
	if err := unstructured.SetNestedSlice(object.Object, []any{content}, "status", "conditions"); err != nil {
		return err
	}
	return r.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(FieldOwner), client.ForceOwnership,
		// To be consistent it would make an informer.
		client.DisableReadYourWritesConsistency)
}

// accepted reports whether a policy is enforced as it stands. Others are all policies of the cluster.
func accepted(policy *policyv1alpha2.ClusterNetworkPolicy, others []policyv1alpha2.ClusterNetworkPolicy) metav1.Condition {
	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionPolicyAccepted, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonAccepted,
		ObservedGeneration: policy.Generation,
	}
	read := policyapi.ClusterPolicy(policy)
	sentences := []string{"The policy is in force."}
	if len(read.Problems) > 0 {
		c.Status, c.Reason, sentences = metav1.ConditionFalse, podnetv1alpha1.ReasonUnsupported, nil
		for _, p := range read.Problems {
			if !p.Unsupported {
				c.Reason = podnetv1alpha1.ReasonInvalid
			}
			sentences = append(sentences, p.Message)
		}
		if read.Policy != nil {
			sentences = append(sentences, "The rest of the policy is in force.")
		}
	}
	if read.Policy != nil {
		sentences = append(sentences, sharesPriority(policy, others)...)
	}
	c.Message = messages.Clip(messages.Condition, strings.Join(sentences, " "))
	return c
}

// sharesPriority names the policies that are asked at the same time as this one, of
// which the API leaves open which comes first.
func sharesPriority(policy *policyv1alpha2.ClusterNetworkPolicy, others []policyv1alpha2.ClusterNetworkPolicy) []string {
	var names []string
	for i := range others {
		if o := &others[i]; o.Name != policy.Name && o.Spec.Tier == policy.Spec.Tier && o.Spec.Priority == policy.Spec.Priority {
			names = append(names, o.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Other policies of the tier %s have the priority %d too: %s. The one whose name sorts first is asked first.",
		policy.Spec.Tier, policy.Spec.Priority, messages.Some(names))}
}
