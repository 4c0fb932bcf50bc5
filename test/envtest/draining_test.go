package envtest

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var _ = Describe("A range that drains", func() {
	const from, to = "10.1.0.0/24", "10.2.0.0/24"

	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	network := func(ranges ...podnetv1alpha1.Range) *podnetv1alpha1.PodNetwork {
		n := podNetwork(ranges...)
		n.Spec.BlockQuarantineSeconds = ptr.To[int32](0)
		n.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Reserve: ptr.To[int32](1), IdleSeconds: 1}
		return n
	}
	setState := func(ctx context.Context, cidr string, state podnetv1alpha1.RangeState) {
		GinkgoHelper()
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) {
			for i := range spec.Ranges {
				if spec.Ranges[i].CIDR == cidr {
					spec.Ranges[i].State = state
				}
			}
		})).To(Succeed())
	}
	remove := func(ctx context.Context, cidr string) error {
		return changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) {
			var left []podnetv1alpha1.Range
			for _, r := range spec.Ranges {
				if r.CIDR != cidr {
					left = append(left, r)
				}
			}
			spec.Ranges = left
		})
	}
	const refusal = "range " + from + " cannot be removed: "
	count := func(n int) OmegaMatcher { return HaveValue(BeEquivalentTo(n)) }

	It("gives each node a block elsewhere first, names who is left, and can be removed once the last pod has gone", func(ctx context.Context) {
		const nodes = 12
		Expect(api.Create(ctx, network(blockRange(from, 28)))).To(Succeed())
		startManager()
		agents := map[string]*fakeAgent{}
		old := map[string]string{}
		for i := 1; i <= nodes; i++ {
			name := fmt.Sprintf("node-%02d", i)
			makeNode(ctx, name, nil, fmt.Sprintf("192.0.2.%d", i))
			Eventually(blocksOf).WithArguments(ctx, name).Should(oneBlockIn("10.1."))
			old[name] = blocksOf(ctx, name)[0]
			agents[name] = startAgent(name)
			// Two of them have as many pods, and the last has none.
			agents[name].run(old[name], int64(max(nodes-i, 2))*int64(min(nodes-i, 1)))
		}
		Eventually(rangeStatusOf).WithArguments(ctx, from).Should(And(HaveField("AddressesAllocated", count(67)), HaveField("Remaining", BeEmpty())))

		// What a watch shows, in order, reports whether any block drained before its node had another one.
		changes, err := api.Watch(ctx, &podnetv1alpha1.NodeSubnetList{})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(changes.Stop)
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) {
			spec.Ranges[0].State = podnetv1alpha1.RangeDraining
			spec.Ranges = append(spec.Ranges, blockRange(to, 28))
		})).To(Succeed())
		elsewhere, drained := map[string]bool{}, map[string]bool{}
		Eventually(changes.ResultChan()).WithTimeout(time.Minute).Should(Receive(Satisfy(func(e watch.Event) bool {
			s, ok := e.Object.(*podnetv1alpha1.NodeSubnet)
			if !ok {
				return false
			}
			switch {
			case mustPrefix(to).Contains(mustPrefix(s.Spec.CIDR).Addr()):
				elsewhere[s.Spec.Node] = true
			case s.Spec.State == podnetv1alpha1.SubnetDraining:
				Expect(elsewhere).To(HaveKey(s.Spec.Node))
				drained[s.Spec.Node] = true
			}
			return len(drained) == nodes
		})))
		makeNode(ctx, "late", nil, "192.0.2.100")
		Eventually(blocksOf).WithArguments(ctx, "late").Should(oneBlockIn("10.2."))

		By("the block of the node without pods going back, and the others staying")
		Eventually(blocksOf).WithArguments(ctx, "node-12").Should(oneBlockIn("10.2."))
		remaining := []podnetv1alpha1.NodePods{
			{Node: "node-01", Pods: ptr.To[int64](11)}, {Node: "node-02", Pods: ptr.To[int64](10)}, {Node: "node-03", Pods: ptr.To[int64](9)},
			{Node: "node-04", Pods: ptr.To[int64](8)}, {Node: "node-05", Pods: ptr.To[int64](7)}, {Node: "node-06", Pods: ptr.To[int64](6)},
			{Node: "node-07", Pods: ptr.To[int64](5)}, {Node: "node-08", Pods: ptr.To[int64](4)}, {Node: "node-09", Pods: ptr.To[int64](3)},
			{Node: "node-10", Pods: ptr.To[int64](2)},
		}
		Eventually(rangeStatusOf).WithArguments(ctx, from).Should(And(
			HaveField("State", podnetv1alpha1.RangeDraining), HaveField("BlocksAllocated", count(11)), HaveField("BlocksFree", count(0)),
			HaveField("AddressesAllocated", count(67)), HaveField("AddressesFree", count(0)), HaveField("Nodes", count(11)),
			HaveField("Remaining", Equal(remaining))))
		Expect(remove(ctx, from)).To(beRefusedWith(refusal))

		By("all pods but one going")
		for name, agent := range agents {
			if name != "node-07" {
				agent.run(old[name], 0)
			}
		}
		Eventually(rangeStatusOf).WithArguments(ctx, from).Should(And(
			HaveField("BlocksAllocated", count(1)), HaveField("Nodes", count(1)),
			HaveField("Remaining", ConsistOf(podnetv1alpha1.NodePods{Node: "node-07", Pods: ptr.To[int64](5)}))))
		Expect(remove(ctx, from)).To(beRefusedWith(refusal))

		agents["node-07"].run(old["node-07"], 0)
		Eventually(remove).WithArguments(ctx, from).Should(Succeed())
		for name := range agents {
			Expect(blocksOf(ctx, name)).To(oneBlockIn("10.2."))
		}
	})

	It("keeps an empty block until its agent gives no address of it and has the node's own address elsewhere", func(ctx context.Context) {
		Expect(api.Create(ctx, network(blockRange(from, 28)))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.1.0.0/28"))
		agent.change(func() {
			agent.frozen["10.1.0.0/28"] = podnetv1alpha1.SubnetActive
			agent.frozen["10.2.0.0/28"] = ""
		})
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) {
			spec.Ranges[0].State = podnetv1alpha1.RangeDraining
			spec.Ranges = append(spec.Ranges, blockRange(to, 28))
		})).To(Succeed())
		draining := And(HaveKeyWithValue("10.1.0.0/28", podnetv1alpha1.SubnetDraining), HaveKeyWithValue("10.2.0.0/28", podnetv1alpha1.SubnetActive))
		Eventually(statesOf).WithArguments(ctx, "node").Should(draining)
		Consistently(statesOf).WithArguments(ctx, "node").WithTimeout(short).Should(draining, "the agent still gives addresses of it")
		agent.change(func() { delete(agent.frozen, "10.1.0.0/28") })
		Consistently(statesOf).WithArguments(ctx, "node").WithTimeout(short).Should(draining, "the node's own address is in it")
		agent.change(func() { delete(agent.frozen, "10.2.0.0/28") })
		Eventually(statesOf).WithArguments(ctx, "node").Should(HaveLen(1))
		Eventually(remove).WithArguments(ctx, from).Should(Succeed())
	})

	It("gives back the last block of a node too, where there is no other range", func(ctx context.Context) {
		Expect(api.Create(ctx, network(blockRange(from, 28), blockRange(to, 28)))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.1.0.0/28"))
		agent.run("10.1.0.0/28", 2)
		setState(ctx, to, podnetv1alpha1.RangeDraining)
		setState(ctx, from, podnetv1alpha1.RangeDraining)
		Eventually(subnetOf).WithArguments(ctx, "10.1.0.0/28").Should(HaveField("Spec.State", podnetv1alpha1.SubnetDraining))
		makeNode(ctx, "late", nil, "192.0.2.2")
		Eventually(eventsAbout).WithArguments(ctx, "Node", "late", "NoFreeBlock").Should(ContainElement(ContainSubstring("No Active range")))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(beCondition(
			metav1.ConditionTrue, podnetv1alpha1.ReasonNoFreeBlock, ContainSubstring("late")))
		agent.wait(3)
		Consistently(func() int { return len(blocksOf(ctx, "late")) + len(blocksOf(ctx, "node")) }).WithTimeout(short).Should(Equal(1))

		agent.change(func() { agent.pods = map[string]int64{} })
		Eventually(blocksOf).WithArguments(ctx, "node").Should(BeEmpty())
		Eventually(rangeStatusOf).WithArguments(ctx, from).Should(HaveField("BlocksAllocated", count(0)))
		Expect(remove(ctx, to)).To(Succeed(), "the API server wants one range to be left")

		By("coming back")
		setState(ctx, from, podnetv1alpha1.RangeActive)
		for _, node := range []string{"node", "late"} {
			Eventually(blocksOf).WithArguments(ctx, node).Should(oneBlockIn("10.1."))
		}
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(HaveField("Status", metav1.ConditionFalse))
	})

	It("goes back to work in the middle", func(ctx context.Context) {
		Expect(api.Create(ctx, network(blockRange(from, 28), blockRange(to, 28)))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.1.0.0/28"))
		agent.run("10.1.0.0/28", 3)
		setState(ctx, from, podnetv1alpha1.RangeDraining)
		Eventually(statesOf).WithArguments(ctx, "node").Should(Equal(map[string]podnetv1alpha1.SubnetState{
			"10.1.0.0/28": podnetv1alpha1.SubnetDraining, "10.2.0.0/28": podnetv1alpha1.SubnetActive}))
		agent.run("10.2.0.0/28", 1)
		Eventually(rangeStatusOf).WithArguments(ctx, from).Should(HaveField("Remaining", HaveLen(1)))

		setState(ctx, from, podnetv1alpha1.RangeActive)
		Eventually(statesOf).WithArguments(ctx, "node").Should(Equal(map[string]podnetv1alpha1.SubnetState{
			"10.1.0.0/28": podnetv1alpha1.SubnetActive, "10.2.0.0/28": podnetv1alpha1.SubnetActive}))
		Eventually(rangeStatusOf).WithArguments(ctx, from).Should(And(
			HaveField("State", podnetv1alpha1.RangeActive), HaveField("Remaining", BeEmpty()),
			HaveField("BlocksAllocated", count(1)), HaveField("BlocksFree", count(15))))
		Expect(remove(ctx, from)).To(beRefusedWith(refusal))
		makeNode(ctx, "late", nil, "192.0.2.2")
		Eventually(blocksOf).WithArguments(ctx, "late").Should(ConsistOf("10.1.0.16/28"))
	})

	It("drains for those nodes alone that its selector leaves out", func(ctx context.Context) {
		const zone = "topology.kubernetes.io/zone"
		Expect(api.Create(ctx, network(blockRange(from, 28)))).To(Succeed())
		startManager()
		for i, name := range []string{"a", "b"} {
			makeNode(ctx, name, map[string]string{zone: name}, fmt.Sprintf("192.0.2.%d", i+1))
			Eventually(blocksOf).WithArguments(ctx, name).Should(oneBlockIn("10.1."))
		}
		moved, stays := blocksOf(ctx, "a")[0], blocksOf(ctx, "b")[0]
		agent := startAgent("a")
		startAgent("b").run(stays, 3)
		agent.run(moved, 3)
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) {
			spec.Ranges[0].NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: zone, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}},
			}}
			next := blockRange(to, 28)
			next.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{zone: "a"}}
			spec.Ranges = append(spec.Ranges, next)
		})).To(Succeed())
		Eventually(statesOf).WithArguments(ctx, "a").Should(Equal(map[string]podnetv1alpha1.SubnetState{
			moved: podnetv1alpha1.SubnetDraining, "10.2.0.0/28": podnetv1alpha1.SubnetActive}))
		agent.run(moved, 0)
		Eventually(blocksOf).WithArguments(ctx, "a").Should(ConsistOf("10.2.0.0/28"))
		Expect(statesOf(ctx, "b")).To(Equal(map[string]podnetv1alpha1.SubnetState{stays: podnetv1alpha1.SubnetActive}))
	})
})
