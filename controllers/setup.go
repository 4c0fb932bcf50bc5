package controllers

import (
	"context"
	"errors"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/clusterpolicies"
)

// FieldOwner is the name under which the manager writes fields.
const FieldOwner = "podnet-manager"

// Fields by which objects are found, beside objects.NodeField: NodeSubnets by the endpoints that they
// publish, NodeNetworks by those that they claim, and Nodes by their addresses.
const (
	publishedField = "spec.endpoints"
	endpointField  = "status.endpoints"
	addressField   = "status.addresses"
)

// index says which values of a field an object of a kind has.
type index struct {
	kind   client.Object
	field  string
	values func(client.Object) []string
}

var indices = []index{
	{&podnetv1alpha1.NodeSubnet{}, objects.NodeField, func(o client.Object) []string {
		if s, ok := o.(*podnetv1alpha1.NodeSubnet); ok {
			return []string{s.Spec.Node}
		}
		return nil
	}},
	{&podnetv1alpha1.NodeSubnet{}, publishedField, func(o client.Object) []string {
		if s, ok := o.(*podnetv1alpha1.NodeSubnet); ok {
			return s.Spec.Endpoints
		}
		return nil
	}},
	{&podnetv1alpha1.NodeNetwork{}, endpointField, func(o client.Object) []string {
		if n, ok := o.(*podnetv1alpha1.NodeNetwork); ok {
			return oneOfEachFamily(n.Status.Endpoints)
		}
		return nil
	}},
	{&corev1.Node{}, addressField, func(o client.Object) []string {
		if n, ok := o.(*corev1.Node); ok {
			return statusAddresses(n)
		}
		return nil
	}},
}

// Scheme returns a scheme with the kinds that the manager reads and writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(podnetv1alpha1.AddToScheme(scheme))
	utilruntime.Must(policyv1alpha2.Install(scheme))
	return scheme
}

// CacheOptions are what the manager's client needs of its cache: a read waits
// until it sees what the same process wrote before. Without that a block that was
// just created would look free, and a range that was just counted would look
// empty.
func CacheOptions() *client.CacheOptions {
	enable := true
	return &client.CacheOptions{EnableReadYourWritesConsistency: &enable}
}

// Setup adds every reconciler to a manager. The namespace is podnet's own, in which agents
// renew Leases; where it is empty there are none.
func Setup(ctx context.Context, mgr ctrl.Manager, namespace string) error {
	for _, by := range indices {
		if err := mgr.GetFieldIndexer().IndexField(ctx, by.kind, by.field, by.values); err != nil {
			return fmt.Errorf("index %T by %s: %w", by.kind, by.field, err)
		}
	}
	// Made now, so that the caches count as synced only when all of these are.
	kinds := []client.Object{
		&corev1.Node{}, &networkingv1.ServiceCIDR{}, &podnetv1alpha1.PodNetwork{}, &podnetv1alpha1.NodeSubnet{}, &podnetv1alpha1.NodeNetwork{}, &podnetv1alpha1.RouteMode{},
	}
	if namespace != "" {
		kinds = append(kinds, &coordinationv1.Lease{})
	}
	for _, kind := range kinds {
		if _, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watch %T: %w", kind, err)
		}
	}
	events := mgr.GetEventRecorder("podnet-manager")
	allocator := allocation.New(allocation.Config{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: events, Clock: clock.RealClock{}, Log: mgr.GetLogger(),
		Endpoints: func(ctx context.Context, node *corev1.Node) ([]string, error) {
			return firstEndpoints(ctx, mgr.GetClient(), node)
		},
	})
	informer, err := mgr.GetCache().GetInformer(ctx, &podnetv1alpha1.NodeSubnet{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch NodeSubnets: %w", err)
	}
	if err := allocator.Follow(informer); err != nil {
		return err
	}
	// Each hears that something has changed; one that has not looked yet will see all.
	forPolicies, forSubnets := make(chan event.GenericEvent, 1), make(chan event.GenericEvent, 1)
	policies := clusterpolicies.New(mgr.GetAPIReader(), mgr.GetCache(), func() {
		for _, c := range []chan event.GenericEvent{forPolicies, forSubnets} {
			select {
			case c <- event.GenericEvent{Object: &policyv1alpha2.ClusterNetworkPolicy{}}:
			default:
			}
		}
	})
	return errors.Join(
		mgr.Add(everywhere(policies.Run)),
		(&NodeReconciler{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: events, Allocator: allocator, Clock: clock.RealClock{},
		}).SetupWithManager(mgr),
		(&NodeSubnetReconciler{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: events, Clock: clock.RealClock{},
			Policies: policies, PoliciesChanged: forSubnets,
		}).SetupWithManager(mgr),
		(&PodNetworkReconciler{
			Client: mgr.GetClient(), Events: events, Allocator: allocator, Clock: clock.RealClock{},
		}).SetupWithManager(mgr),
		mgr.Add(&Heartbeats{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: events, Clock: clock.RealClock{}, Namespace: namespace,
		}),
		(&RouteModeReconciler{Client: mgr.GetClient(), Clock: clock.RealClock{}}).SetupWithManager(mgr),
		(&ClusterNetworkPolicyReconciler{Client: mgr.GetClient(), Policies: policies, Events: events, Changed: forPolicies}).SetupWithManager(mgr),
	)
}

// everywhere is run by standbys too.
type everywhere func(ctx context.Context)

// Start implements manager.Runnable.
func (e everywhere) Start(ctx context.Context) error {
	e(ctx)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (everywhere) NeedLeaderElection() bool { return false }
