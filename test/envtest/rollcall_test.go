package envtest

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// removeByForce deletes a NodeSubnet as nobody should: without its rest.
func removeByForce(ctx context.Context, cidr string) {
	GinkgoHelper()
	// In this order, as the manager puts its finalizer back on what is not being deleted.
	Expect(api.Delete(ctx, &podnetv1alpha1.NodeSubnet{ObjectMeta: metav1.ObjectMeta{Name: named(cidr)}})).To(Succeed())
	Eventually(func() error {
		subnet, err := subnetOf(ctx, cidr)
		if err != nil {
			return client.IgnoreNotFound(err)
		}
		subnet.Finalizers = nil
		return client.IgnoreNotFound(api.Update(ctx, subnet))
	}).Should(Succeed())
}

var _ = Describe("A manager that does not know what blocks are in use", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	allocating := func(ctx context.Context) *metav1.Condition {
		return condition(ctx, "default", podnetv1alpha1.ConditionAllocating)
	}
	rollCall := func(ctx context.Context) string {
		network := &podnetv1alpha1.PodNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, network)).To(Succeed())
		return network.Status.RollCall
	}
	answered := func(ctx context.Context, node string) string {
		nn := &podnetv1alpha1.NodeNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: node}, nn)).To(Succeed())
		return nn.Status.RollCall
	}
	network := func(ranges ...podnetv1alpha1.Range) *podnetv1alpha1.PodNetwork {
		n := podNetwork(ranges...)
		n.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Reserve: ptr.To[int32](1)}
		return n
	}

	It("waits for the agents that have answered before, and for no others", func(ctx context.Context) {
		Expect(api.Create(ctx, network(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		stop := startManager()
		agents := map[string]*fakeAgent{}
		for i, name := range []string{"here", "slow", "down", "old"} {
			makeNode(ctx, name, nil, fmt.Sprintf("192.0.2.%d", i+1))
			agents[name] = startAgent(name)
			// One does not know how.
			agents[name].change(func() { agents[name].deaf = name == "old" })
			Eventually(blocksOf).WithArguments(ctx, name).Should(HaveLen(1))
			setReady(ctx, name, corev1.ConditionTrue)
		}
		for _, name := range []string{"here", "slow", "down"} {
			Eventually(func(g Gomega) { g.Expect(answered(ctx, name)).To(And(Equal(rollCall(ctx)), Not(BeEmpty()))) }).Should(Succeed())
		}
		first := rollCall(ctx)
		stop()
		agents["slow"].change(func() { agents["slow"].silent = true })
		agents["down"].change(func() { agents["down"].silent = true })
		setReady(ctx, "down", corev1.ConditionUnknown)
		makeNode(ctx, "new", nil, "192.0.2.9")

		startManager()
		Eventually(rollCall).WithArguments(ctx).ShouldNot(Equal(first))
		second := rollCall(ctx)
		Eventually(answered).WithArguments(ctx, "here").Should(Equal(second))
		Eventually(allocating).WithArguments(ctx).Should(beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonRollCall, ContainSubstring("Waiting for 1: slow.")))
		Consistently(blocksOf).WithArguments(ctx, "new").WithTimeout(short).Should(BeEmpty())

		agents["slow"].change(func() { agents["slow"].silent = false })
		Eventually(blocksOf).WithArguments(ctx, "new").Should(HaveLen(1))
		Eventually(allocating).WithArguments(ctx).Should(beCondition(metav1.ConditionTrue, podnetv1alpha1.ReasonAllocating, Not(BeEmpty())))
		Expect(rollCall(ctx)).To(Equal(second))
	})

	It("makes the blocks anew that agents claim, before it gives any to a new node", func(ctx context.Context) {
		Expect(api.Create(ctx, network(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		stop := startManager()
		agents := map[string]*fakeAgent{}
		for i := 1; i <= 3; i++ {
			name := fmt.Sprintf("node-%d", i)
			makeNode(ctx, name, nil, fmt.Sprintf("192.0.2.%d", i))
			agents[name] = startAgent(name)
			block := fmt.Sprintf("10.244.%d.0/24", i-1)
			Eventually(blocksOf).WithArguments(ctx, name).Should(ConsistOf(block))
			agents[name].run(block, int64(i))
			setReady(ctx, name, corev1.ConditionTrue)
			Eventually(func(g Gomega) { g.Expect(answered(ctx, name)).To(And(Equal(rollCall(ctx)), Not(BeEmpty()))) }).Should(Succeed())
		}
		stop()
		for i := 1; i <= 2; i++ {
			agents[fmt.Sprintf("node-%d", i)].change(func() { agents[fmt.Sprintf("node-%d", i)].silent = true })
			removeByForce(ctx, fmt.Sprintf("10.244.%d.0/24", i-1))
		}
		makeNode(ctx, "new", nil, "192.0.2.9")
		startManager()
		Eventually(allocating).WithArguments(ctx).Should(beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonRollCall, ContainSubstring("node-1, node-2")))
		Consistently(blocksOf).WithArguments(ctx, "new").WithTimeout(short).Should(BeEmpty())
		for i := 1; i <= 2; i++ {
			agents[fmt.Sprintf("node-%d", i)].change(func() { agents[fmt.Sprintf("node-%d", i)].silent = false })
		}
		Eventually(blocksOf).WithArguments(ctx, "new").Should(ConsistOf("10.244.3.0/24"))
		for i := 1; i <= 3; i++ {
			Expect(blocksOf(ctx, fmt.Sprintf("node-%d", i))).To(ContainElement(fmt.Sprintf("10.244.%d.0/24", i-1)))
		}
		Eventually(eventsAbout).WithArguments(ctx, "PodNetwork", "default", "BlockReclaimed").Should(ContainElements(
			ContainSubstring("Node node-1 uses the block 10.244.0.0/24"), ContainSubstring("Node node-2 uses the block 10.244.1.0/24")))
	})

	DescribeTable("asks anew when a NodeSubnet goes by force, and gives the block to its node again and to nobody else",
		func(ctx context.Context, frozen podnetv1alpha1.SubnetState, pods int64) {
			Expect(api.Create(ctx, network(blockRange("10.244.0.0/16", 24)))).To(Succeed())
			startManager()
			makeNode(ctx, "node", nil, "192.0.2.1")
			agent := startAgent("node")
			Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/24"))
			setReady(ctx, "node", corev1.ConditionTrue)
			agent.change(func() {
				agent.pods["10.244.0.0/24"] = pods
				if frozen != "" {
					agent.frozen["10.244.0.0/24"] = frozen
				}
			})
			Eventually(func(g Gomega) { g.Expect(answered(ctx, "node")).To(And(Equal(rollCall(ctx)), Not(BeEmpty()))) }).Should(Succeed())
			Eventually(func(g Gomega) {
				nn := &podnetv1alpha1.NodeNetwork{}
				g.Expect(api.Get(ctx, client.ObjectKey{Name: "node"}, nn)).To(Succeed())
				g.Expect(nn.Status.Blocks).To(ConsistOf(HaveField("AddressesUsed", HaveValue(Equal(pods)))))
			}).Should(Succeed())
			first := rollCall(ctx)

			makeNode(ctx, "new-1", nil, "192.0.2.2")
			removeByForce(ctx, "10.244.0.0/24")
			makeNode(ctx, "new-2", nil, "192.0.2.3")
			Eventually(rollCall).WithArguments(ctx).ShouldNot(Equal(first))
			for _, name := range []string{"new-1", "new-2"} {
				Eventually(blocksOf).WithArguments(ctx, name).Should(HaveLen(1))
				Expect(blocksOf(ctx, name)).NotTo(ContainElement("10.244.0.0/24"))
			}
			Eventually(blocksOf).WithArguments(ctx, "node").Should(ContainElement("10.244.0.0/24"))
			Eventually(eventsAbout).WithArguments(ctx, "PodNetwork", "default", "BlockReclaimed").Should(ContainElement(
				ContainSubstring("Node node")))
		},
		Entry("when its agent knows that the object is gone", podnetv1alpha1.SubnetState(""), int64(3)),
		Entry("when its agent answers before it knows", podnetv1alpha1.SubnetActive, int64(3)),
		Entry("when its agent answers before it knows, and may be giving out the first address", podnetv1alpha1.SubnetActive, int64(0)),
	)

	It("leaves a block to the node that holds it, whatever another one's agent says, and says so", func(ctx context.Context) {
		Expect(api.Create(ctx, network(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		startManager()
		agents := map[string]*fakeAgent{}
		for i, name := range []string{"node", "other"} {
			makeNode(ctx, name, nil, fmt.Sprintf("192.0.2.%d", i+1))
			agents[name] = startAgent(name)
			Eventually(blocksOf).WithArguments(ctx, name).Should(HaveLen(1))
			Eventually(func(g Gomega) { g.Expect(answered(ctx, name)).To(And(Equal(rollCall(ctx)), Not(BeEmpty()))) }).Should(Succeed())
		}
		agents["node"].change(func() {
			for third := range 256 {
				agents["node"].pods[fmt.Sprintf("10.244.%d.0/24", third)] = 1
			}
		})
		Eventually(eventsAbout).WithArguments(ctx, "PodNetwork", "default", "BlockDisputed").Should(ContainElement(And(
			ContainSubstring("Pods of Node node use blocks that the node does not hold"), ContainSubstring("10.244.1.0/24"),
			ContainSubstring("Delete these pods"))))
		Consistently(func(g Gomega) {
			g.Expect(statesOf(ctx, "other")).To(Equal(map[string]podnetv1alpha1.SubnetState{"10.244.1.0/24": podnetv1alpha1.SubnetActive}))
			g.Expect(blocksOf(ctx, "node")).To(ConsistOf("10.244.0.0/24"))
		}).WithTimeout(short).Should(Succeed())

		By("giving other nodes what is free")
		makeNode(ctx, "new", nil, "192.0.2.9")
		Eventually(blocksOf).WithArguments(ctx, "new").Should(HaveLen(1))
	})
})
