package envtest

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/podnet/podnet/agent/heartbeat"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

var _ = Describe("A node whose agent does not respond", func() {
	// apply writes, as the node's agent, conditions of these types and nothing else.
	apply := func(ctx context.Context, node string, kinds ...string) {
		GinkgoHelper()
		status := podnetv1alpha1ac.NodeNetworkStatus().WithEndpoints("192.0.2.9").
			WithSummary(podnetv1alpha1ac.NodeNetworkSummary().WithMessage("By the agent."))
		for _, kind := range kinds {
			status.WithConditions(metav1ac.Condition().WithType(kind).WithStatus(metav1.ConditionTrue).WithReason(kind).
				WithMessage("By the agent.").WithLastTransitionTime(metav1.Now()))
		}
		Expect(api.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(node).WithStatus(status),
			client.FieldOwner(podnetv1alpha1.AgentFieldOwner), client.ForceOwnership)).To(Succeed())
	}
	get := func(ctx context.Context, name string) podnetv1alpha1.NodeNetworkStatus {
		GinkgoHelper()
		nn := &podnetv1alpha1.NodeNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: name}, nn)).To(Succeed())
		return nn.Status
	}
	problem := func(ctx context.Context, name string) string { return get(ctx, name).Summary.Problem }
	// cutOff lets a node's kubelet end.
	cutOff := func(ctx context.Context, name string) {
		GinkgoHelper()
		node := &corev1.Node{}
		Expect(api.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
		for i := range node.Status.Conditions {
			if node.Status.Conditions[i].Type == corev1.NodeReady {
				node.Status.Conditions[i].Status = corev1.ConditionUnknown
			}
		}
		Expect(api.Status().Update(ctx, node)).To(Succeed())
	}

	BeforeEach(func(ctx context.Context) {
		cleanAfterwards(ctx)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		makeNodes(ctx, 2)
		startManager()
		for _, node := range []string{"node-1", "node-2"} {
			report(ctx, node, metav1.ConditionTrue, podnetv1alpha1.ReasonProgrammed, "192.0.2.9")
			apply(ctx, node, podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionPathsProven)
		}
	})

	It("is Unknown and not ready, and the agent overwrites that when it is back", func(ctx context.Context) {
		network := func() *podnetv1alpha1.PodNetwork {
			network := &podnetv1alpha1.PodNetwork{}
			Expect(api.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(Succeed())
			return network
		}
		Eventually(func() string { return network().Status.Summary.Nodes }).Should(Equal("2/2"))
		cutOff(ctx, "node-2")
		Eventually(problem).WithArguments(ctx, "node-2").Should(Equal(podnetv1alpha1.ReasonAgentNotResponding))
		for _, kind := range []string{podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionPathsProven} {
			Expect(apimeta.FindStatusCondition(get(ctx, "node-2").Conditions, kind).Status).To(Equal(metav1.ConditionUnknown))
		}
		Expect(get(ctx, "node-2").Endpoints).To(ConsistOf("192.0.2.9"), "all else is as the agent wrote it")
		Eventually(func() string { return network().Status.Summary.Nodes }).Should(Equal("1/2"))
		Expect(network().Status.Summary.Message).To(ContainSubstring("do not respond: node-2"))
		Expect(problem(ctx, "node-1")).To(BeEmpty())

		notResponding := func() []bool {
			subnets := &podnetv1alpha1.NodeSubnetList{}
			Expect(api.List(ctx, subnets)).To(Succeed())
			var of []bool
			for _, s := range subnets.Items {
				if s.Spec.Node == "node-2" {
					of = append(of, s.Spec.AgentNotResponding != nil && *s.Spec.AgentNotResponding)
				} else {
					Expect(s.Spec.AgentNotResponding).To(BeNil())
				}
			}
			return of
		}
		Eventually(notResponding).Should(Equal([]bool{true}), "other agents are told")
		node := &corev1.Node{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "node-2"}, node)).To(Succeed())
		Expect(node.Status.Conditions).To(ContainElement(And(
			HaveField("Type", corev1.NodeNetworkUnavailable), HaveField("Status", corev1.ConditionFalse))), "its running pods are carried on")

		// What the manager wrote goes with what the agent says no longer.
		node.Status.Conditions[0].Status = corev1.ConditionTrue
		Expect(api.Status().Update(ctx, node)).To(Succeed())
		apply(ctx, "node-2", podnetv1alpha1.ConditionProgrammed)
		status := get(ctx, "node-2")
		Expect(status.Conditions).To(ConsistOf(And(
			HaveField("Type", podnetv1alpha1.ConditionProgrammed), HaveField("Status", metav1.ConditionTrue))))
		Expect(status.Summary).To(Equal(podnetv1alpha1.NodeNetworkSummary{Message: "By the agent."}))
		Eventually(notResponding).Should(Equal([]bool{false}))
		Eventually(func() string { return network().Status.Summary.Nodes }).Should(Equal("2/2"))
	})

	It("is told from one that renews its Lease", func(ctx context.Context) {
		agent := clientAs(agentUser, "node-1")
		heart := heartbeat.New(heartbeat.Config{
			Reader: agent, Client: agent, Clock: clock.RealClock{}, Namespace: namespace, Node: "node-1", Removed: func() bool { return false },
		})
		beating, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- heart.Run(beating) }()
		DeferCleanup(func(ctx context.Context) {
			stop()
			Eventually(ended).Should(Receive(BeNil()))
			Expect(client.IgnoreNotFound(api.DeleteAllOf(ctx, &coordinationv1.Lease{}, client.InNamespace(namespace)))).To(Succeed())
		})
		Eventually(func() error {
			return api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "node-1"}, &coordinationv1.Lease{})
		}).Should(Succeed())
		cutOff(ctx, "node-1")
		cutOff(ctx, "node-2")
		Eventually(problem).WithArguments(ctx, "node-2").Should(Equal(podnetv1alpha1.ReasonAgentNotResponding))
		Expect(problem(ctx, "node-1")).To(BeEmpty(), "its agent is there, whatever its kubelet does")
	})
})

var _ = Describe("An agent's Lease", func() {
	It("is that of its own node", func(ctx context.Context) {
		create := func(claim, name string) error {
			return clientAs(agentUser, claim).Create(ctx,
				&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, client.DryRunAll)
		}
		Eventually(create).WithArguments("one", "two").Should(beRefusedWith("an agent may renew the Lease of its own node only, not two"))
		Expect(create("one", "one")).To(Succeed())
		Expect(create("podnet-manager", "podnet-manager")).To(beRefusedWith("by which podnet's managers elect a leader"))
	})
})
