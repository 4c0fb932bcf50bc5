package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var _ = Describe("A node's life", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	oneBlock := func(quarantineSeconds int32) *podnetv1alpha1.PodNetwork {
		n := podNetwork(blockRange("10.244.0.0/24", 24))
		n.Spec.BlockQuarantineSeconds = &quarantineSeconds
		return n
	}

	It("lets the block of a deleted node rest before another gets it", func(ctx context.Context) {
		const rest = 2 * time.Second
		node := makeNode(ctx, "old", nil, "192.0.2.1")
		Expect(api.Create(ctx, oneBlock(int32(rest.Seconds())))).To(Succeed())
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "old").Should(ConsistOf("10.244.0.0/24"))

		// What a watch shows, in order, leaves no gap in which the block could have been given too early.
		changes, err := api.Watch(ctx, &podnetv1alpha1.NodeSubnetList{})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(changes.Stop)
		makeNode(ctx, "new", nil, "192.0.2.2")
		Expect(api.Delete(ctx, node)).To(Succeed())
		deleted := time.Now()

		var released bool
		var given time.Time
		Eventually(changes.ResultChan()).Should(Receive(Satisfy(func(e watch.Event) bool {
			s, ok := e.Object.(*podnetv1alpha1.NodeSubnet)
			if !ok {
				return false
			}
			released = released || s.Spec.State == podnetv1alpha1.SubnetReleased
			given = time.Now()
			return e.Type == watch.Added && s.Spec.Node == "new"
		})))
		Expect(released).To(BeTrue(), "the old node's NodeSubnet said Released before it went")
		Expect(given.Sub(deleted)).To(BeNumerically(">=", rest))
		Expect(blocksOf(ctx, "new")).To(ConsistOf("10.244.0.0/24"))
	})

	It("gives a node that was made anew under its name a block of its own", func(ctx context.Context) {
		n := podNetwork(blockRange("10.244.0.0/16", 24))
		Expect(api.Create(ctx, n)).To(Succeed())
		node := makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/24"))
		first := &podnetv1alpha1.NodeNetwork{}
		Eventually(api.Get).WithArguments(ctx, client.ObjectKey{Name: "node"}, first).Should(Succeed())

		Expect(api.Delete(ctx, node)).To(Succeed())
		again := makeNode(ctx, "node", nil, "192.0.2.9")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.1.0/24"))
		subnet, err := subnetOf(ctx, "10.244.1.0/24")
		Expect(err).NotTo(HaveOccurred())
		Expect(subnet.Spec.NodeUID).To(Equal(again.UID))
		Expect(subnetOf(ctx, "10.244.0.0/24")).To(HaveField("Spec.State", podnetv1alpha1.SubnetReleased))
		Eventually(func(g Gomega) {
			second := &podnetv1alpha1.NodeNetwork{}
			g.Expect(api.Get(ctx, client.ObjectKey{Name: "node"}, second)).To(Succeed())
			g.Expect(second.UID).NotTo(Equal(first.UID))
			g.Expect(second.OwnerReferences).To(ConsistOf(HaveField("UID", again.UID)))
		}).Should(Succeed())
	})

	It("keeps serving a block that a user deleted, and says so", func(ctx context.Context) {
		Expect(api.Create(ctx, oneBlock(1))).To(Succeed())
		node := makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(1))
		subnet, err := subnetOf(ctx, "10.244.0.0/24")
		Expect(err).NotTo(HaveOccurred())
		Expect(api.Delete(ctx, subnet)).To(Succeed())
		Eventually(eventsAbout).WithArguments(ctx, "NodeSubnet", subnet.Name, "DeletedInUse").Should(
			ContainElement(ContainSubstring("the node keeps the block")))

		By("following the node's addresses all the same")
		node.Status.Addresses[0].Address = "192.0.2.77"
		Expect(api.Status().Update(ctx, node)).To(Succeed())
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(And(
			HaveField("Spec.Endpoints", []string{"192.0.2.77"}), HaveField("Spec.State", podnetv1alpha1.SubnetActive)))

		By("letting it rest from the node's end, not from its own deletion")
		Expect(api.Delete(ctx, node)).To(Succeed())
		ended := time.Now()
		Eventually(func() bool { _, err := subnetOf(ctx, "10.244.0.0/24"); return apierrors.IsNotFound(err) }).Should(BeTrue())
		Expect(time.Since(ended)).To(BeNumerically(">=", time.Second))
	})

	It("follows the addresses that the agent reports", func(ctx context.Context) {
		Expect(api.Create(ctx, oneBlock(1))).To(Succeed())
		makeNode(ctx, "node", nil, "192.0.2.1", "2001:db8::1")
		startManager()
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.Endpoints", []string{"192.0.2.1", "2001:db8::1"}))
		report(ctx, "node", metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock, "198.51.100.7", "2001:db8:0::7")
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.Endpoints", []string{"198.51.100.7", "2001:db8::7"}))
		report(ctx, "node", metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock, "198.51.100.8")
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.Endpoints", []string{"198.51.100.8"}))
		report(ctx, "node", metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.Endpoints", []string{"192.0.2.1", "2001:db8::1"}))
	})

	DescribeTable("says on the Node that its network is there", func(ctx context.Context, status metav1.ConditionStatus, reason string) {
		Expect(api.Create(ctx, oneBlock(1))).To(Succeed())
		makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		report(ctx, "node", metav1.ConditionFalse, podnetv1alpha1.ReasonKernelError)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(1))
		Expect(nodeCondition(ctx, "node")).To(Equal(corev1.NodeCondition{}))

		report(ctx, "node", status, reason)
		Eventually(nodeCondition).WithArguments(ctx, "node").Should(And(
			HaveField("Status", corev1.ConditionFalse), HaveField("Reason", podnetv1alpha1.ReasonPodnetProgrammed), HaveField("Message", Not(BeEmpty()))))
		node := &corev1.Node{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "node"}, node)).To(Succeed())
		Expect(node.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.NodeReady), HaveField("Reason", "NoNetwork"))),
			"other conditions stay as they are")
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionReady).Should(
			beCondition(metav1.ConditionTrue, podnetv1alpha1.ReasonAllNodesReady, Not(BeEmpty())))
		Expect(eventsAbout(ctx, "Node", "node", "BlockAllocated")).To(ContainElement(ContainSubstring("10.244.0.0/24")))
	},
		Entry("when all is programmed", metav1.ConditionTrue, podnetv1alpha1.ReasonProgrammed),
		Entry("when pods can talk and something else could not be done", metav1.ConditionFalse, podnetv1alpha1.ReasonDegraded),
	)

	It("copies those labels of the node that RouteModes select by, and no others", func(ctx context.Context) {
		Expect(api.Create(ctx, oneBlock(1))).To(Succeed())
		makeNode(ctx, "node", map[string]string{"rack": "r1", "zone": "z1", "secret": "s"}, "192.0.2.1")
		startManager()
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.NodeLabels", BeEmpty()))
		mode := &podnetv1alpha1.RouteMode{ObjectMeta: metav1.ObjectMeta{Name: "racks"}, Spec: podnetv1alpha1.RouteModeSpec{
			Mode: podnetv1alpha1.ModeRouted,
			Between: []metav1.LabelSelector{
				{MatchLabels: map[string]string{"rack": "r1"}},
				{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "zone", Operator: metav1.LabelSelectorOpExists}}},
			},
		}}
		Expect(api.Create(ctx, mode)).To(Succeed())
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(
			HaveField("Spec.NodeLabels", map[string]string{"rack": "r1", "zone": "z1"}))
		Eventually(func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(mode), mode)).To(Succeed())
			g.Expect(mode.Status.NodesSelected).To(HaveValue(BeEquivalentTo(1)))
			g.Expect(mode.Status.Conditions).To(ContainElement(And(
				HaveField("Type", podnetv1alpha1.ConditionAccepted), HaveField("Status", metav1.ConditionTrue),
				HaveField("ObservedGeneration", mode.Generation))))
		}).Should(Succeed())
		Expect(api.Delete(ctx, mode)).To(Succeed())
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.NodeLabels", BeEmpty()))
	})

	It("does nothing about a RouteMode whose selectors do not parse, and says why", func(ctx context.Context) {
		startManager()
		mode := &podnetv1alpha1.RouteMode{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: podnetv1alpha1.RouteModeSpec{
			Mode: podnetv1alpha1.ModeRouted,
			Between: []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "zone", Operator: metav1.LabelSelectorOpExists, Values: []string{"z"}}}}},
		}}
		Expect(api.Create(ctx, mode)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(api.Get(ctx, client.ObjectKeyFromObject(mode), mode)).To(Succeed())
			g.Expect(mode.Status.NodesSelected).To(HaveValue(BeEquivalentTo(0)))
			g.Expect(mode.Status.Conditions).To(ContainElement(beConditionOf(podnetv1alpha1.ConditionAccepted,
				metav1.ConditionFalse, podnetv1alpha1.ReasonInvalidSelector, ContainSubstring("between[0]"))))
		}).Should(Succeed())
	})

	It("serves one PodNetwork, and says so on others", func(ctx context.Context) {
		second := podNetwork(blockRange("10.50.0.0/16", 24))
		second.Name = "second"
		Expect(api.Create(ctx, second)).To(Succeed())
		makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		Eventually(condition).WithArguments(ctx, "second", podnetv1alpha1.ConditionAccepted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonNotServed, ContainSubstring("named default")))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(500 * time.Millisecond).Should(BeEmpty())
	})

	It("names a range whose selector does not parse, and serves the others", func(ctx context.Context) {
		bad := blockRange("10.99.0.0/16", 24)
		bad.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
		Expect(api.Create(ctx, podNetwork(bad, blockRange("10.244.0.0/24", 24)))).To(Succeed())
		makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/24"))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionAccepted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonInvalidSelector, ContainSubstring("10.99.0.0/16")))
	})

	It("reports hand-made blocks that conflict, and gives none of their addresses to others", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/22", 24)))).To(Succeed())
		makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/24"))
		for cidr, holder := range map[string]string{"10.244.0.128/25": "other", "10.244.1.0/26": "other", "172.16.0.0/24": "node"} {
			Expect(api.Create(ctx, nodeSubnet(named(cidr), cidr, holder))).To(Succeed())
		}
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionSubnetsConflict).Should(beCondition(
			metav1.ConditionTrue, podnetv1alpha1.ReasonOverlap, And(
				ContainSubstring("10.244.0.128-25"), ContainSubstring("10.244.0.0-24"), ContainSubstring("172.16.0.0-24"))))
		Eventually(eventsAbout).WithArguments(ctx, "NodeSubnet", "172.16.0.0-24", "Refused").Should(ContainElement(ContainSubstring("in no range")))

		makeNode(ctx, "late", nil, "192.0.2.2")
		Eventually(blocksOf).WithArguments(ctx, "late").Should(ConsistOf("10.244.2.0/24"), "10.244.1.0/26 is in the way of the second block")
		Expect(subnetOf(ctx, "172.16.0.0/24")).To(HaveField("Spec.NodeUID", BeEmpty()))
	})

	It("takes a good hand-made block for the node that it names", func(ctx context.Context) {
		Expect(api.Create(ctx, nodeSubnet("10.244.9.0-24", "10.244.9.0/24", "node"))).To(Succeed())
		n := podNetwork(blockRange("10.244.0.0/16", 24))
		n.Spec.BlockQuarantineSeconds = ptr.To[int32](0)
		Expect(api.Create(ctx, n)).To(Succeed())
		startManager()
		node := makeNode(ctx, "node", nil, "192.0.2.1")
		Eventually(subnetOf).WithArguments(ctx, "10.244.9.0/24").Should(And(
			HaveField("Spec.NodeUID", node.UID), HaveField("Spec.Endpoints", []string{"192.0.2.1"}),
			HaveField("Finalizers", ConsistOf(podnetv1alpha1.NodeSubnetFinalizer))))
		Expect(api.Delete(ctx, node)).To(Succeed())
		Eventually(func() bool { _, err := subnetOf(ctx, "10.244.9.0/24"); return apierrors.IsNotFound(err) }).Should(BeTrue())
	})
})

func beConditionOf(conditionType string, status metav1.ConditionStatus, reason string, message OmegaMatcher) OmegaMatcher {
	return And(HaveField("Type", conditionType), HaveField("Status", status), HaveField("Reason", reason), HaveField("Message", message))
}
