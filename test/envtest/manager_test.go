package envtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	managerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/controllers"
)

// startManager runs the controllers, and agents that have only just started, until the spec ends, or until stop is called,
// with the rights that their role gives and no others.
func startManager(change ...func(*ctrl.Options)) (stop func()) {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = managerUser
	options := ctrl.Options{
		Scheme:  controllers.Scheme(),
		Client:  client.Options{Cache: controllers.CacheOptions()},
		Cache:   cache.Options{ByObject: map[client.Object]cache.ByObject{&coordinationv1.Lease{}: controllers.LeaseCache(namespace)}},
		Metrics: metricsserver.Options{BindAddress: "0"},
		// Several managers run in this process, one after the other and at once.
		Controller: managerconfig.Controller{SkipNameValidation: ptr.To(true)},
	}
	for _, c := range change {
		c(&options)
	}
	mgr, err := ctrl.NewManager(as, options)
	Expect(err).NotTo(HaveOccurred())
	Expect(controllers.Setup(ctx, mgr, namespace)).To(Succeed())
	ended, reported := make(chan error, 1), make(chan struct{})
	go func() { ended <- mgr.Start(ctx) }()
	go func() {
		defer close(reported)
		reportFirst(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		Eventually(ended).Should(Receive(BeNil()))
		Eventually(reported).Should(BeClosed())
	})
	DeferCleanup(stop)
	return stop
}

// cleanAfterwards removes all that a spec made, after its managers have ended.
func cleanAfterwards(ctx context.Context) {
	DeferCleanup(func(ctx context.Context) {
		nodes := &corev1.NodeList{}
		Expect(api.List(ctx, nodes)).To(Succeed())
		for i := range nodes.Items {
			Expect(client.IgnoreNotFound(api.Delete(ctx, &nodes.Items[i]))).To(Succeed())
		}
		removeAll(ctx)
		Expect(api.DeleteAllOf(ctx, &eventsv1.Event{}, client.InNamespace("default"))).To(Succeed())
	})
	removeAll(ctx)
}

// makeNode creates a Node with these addresses.
func makeNode(ctx context.Context, name string, labels map[string]string, addresses ...string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	Expect(api.Create(ctx, node)).To(Succeed())
	for _, a := range addresses {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "NoNetwork"}}
	Expect(api.Status().Update(ctx, node)).To(Succeed())
	return node
}

// makeNodes creates that many nodes named node-1, node-2 and so on, with an address of each family.
func makeNodes(ctx context.Context, number int) {
	for i := 1; i <= number; i++ {
		makeNode(ctx, fmt.Sprintf("node-%d", i), nil, fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("2001:db8::%x", i))
	}
}

// report writes what the agent of a node would: a condition Programmed and endpoints.
func report(ctx context.Context, node string, programmed metav1.ConditionStatus, reason string, endpoints ...string) {
	GinkgoHelper()
	status := podnetv1alpha1ac.NodeNetworkStatus().WithEndpoints(endpoints...).WithConditions(metav1ac.Condition().
		WithType(podnetv1alpha1.ConditionProgrammed).WithStatus(programmed).WithReason(reason).
		WithMessage("Written by a test.").WithLastTransitionTime(metav1.Now()))
	Eventually(func() error {
		// Applying would make an object that the manager has not made yet.
		if err := api.Get(ctx, client.ObjectKey{Name: node}, &podnetv1alpha1.NodeNetwork{}); err != nil {
			return err
		}
		return api.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(node).WithStatus(status),
			client.FieldOwner("podnet-agent"), client.ForceOwnership)
	}).Should(Succeed())
}

// blocksOf returns the CIDRs of the blocks that a node holds, those at rest excepted.
func blocksOf(ctx context.Context, node string) []string {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	Expect(api.List(ctx, subnets, client.MatchingFields{"spec.node": node})).To(Succeed())
	var cidrs []string
	for _, s := range subnets.Items {
		if s.Spec.State != podnetv1alpha1.SubnetReleased {
			cidrs = append(cidrs, s.Spec.CIDR)
		}
	}
	return cidrs
}

func subnetOf(ctx context.Context, cidr string) (*podnetv1alpha1.NodeSubnet, error) {
	subnet := &podnetv1alpha1.NodeSubnet{}
	return subnet, api.Get(ctx, client.ObjectKey{Name: named(cidr)}, subnet)
}

// condition returns a condition of the PodNetwork.
func condition(ctx context.Context, network, conditionType string) *metav1.Condition {
	object := &podnetv1alpha1.PodNetwork{}
	Expect(api.Get(ctx, client.ObjectKey{Name: network}, object)).To(Succeed())
	for i := range object.Status.Conditions {
		if c := &object.Status.Conditions[i]; c.Type == conditionType {
			Expect(c.ObservedGeneration).To(BeNumerically("<=", object.Generation))
			return c
		}
	}
	return nil
}

// beCondition matches a condition.
func beCondition(status metav1.ConditionStatus, reason string, message OmegaMatcher) OmegaMatcher {
	return And(Not(BeNil()), HaveField("Status", status), HaveField("Reason", reason), HaveField("Message", message))
}

// nodeCondition returns the Node's condition NetworkUnavailable, or an empty one.
func nodeCondition(ctx context.Context, name string) corev1.NodeCondition {
	node := &corev1.Node{}
	Expect(api.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// eventsAbout returns the notes of the Events about an object.
func eventsAbout(ctx context.Context, kind, name, reason string) []string {
	list := &eventsv1.EventList{}
	Expect(api.List(ctx, list)).To(Succeed())
	var notes []string
	for _, e := range list.Items {
		if e.Regarding.Kind == kind && e.Regarding.Name == name && e.Reason == reason {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

// metric returns the value of a metric with these values of its labels.
func metric(name string, labels ...string) float64 {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var values []string
			for _, label := range m.GetLabel() {
				values = append(values, label.GetValue())
			}
			if family.GetName() == name && slices.Equal(values, labels) {
				return m.GetGauge().GetValue()
			}
		}
	}
	Fail(fmt.Sprintf("there is no metric %s with the labels %v", name, labels))
	return 0
}
