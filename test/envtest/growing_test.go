package envtest

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// short is how long something is watched that must not happen.
const short = 400 * time.Millisecond

var _ = Describe("A network that grows", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	// smallBlocks is a network of blocks that hold 12 pods, of which a node shall have 4 free.
	smallBlocks := func(most int32, ranges ...podnetv1alpha1.Range) *podnetv1alpha1.PodNetwork {
		if len(ranges) == 0 {
			ranges = []podnetv1alpha1.Range{blockRange("10.244.0.0/16", 28)}
		}
		n := podNetwork(ranges...)
		n.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Max: most, Reserve: ptr.To[int32](4), IdleSeconds: 1}
		n.Spec.BlockQuarantineSeconds = ptr.To[int32](1)
		return n
	}
	addRange := func(ctx context.Context, r podnetv1alpha1.Range) {
		GinkgoHelper()
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.Ranges = append(spec.Ranges, r) })).To(Succeed())
	}

	It("gives blocks of an added range to nodes that waited for one, or for another one, and to new ones", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(8, blockRange("10.1.0.0/28", 28)))).To(Succeed())
		startManager()
		makeNode(ctx, "first", nil, "192.0.2.1")
		first := startAgent("first")
		Eventually(blocksOf).WithArguments(ctx, "first").Should(ConsistOf("10.1.0.0/28"))
		makeNode(ctx, "second", nil, "192.0.2.2")
		first.run("10.1.0.0/28", 12)
		for _, node := range []string{"first", "second"} {
			Eventually(eventsAbout).WithArguments(ctx, "Node", node, "NoFreeBlock").Should(
				ContainElement(ContainSubstring("10.1.0.0/28 has 1 of /28, and all are taken")))
		}
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(beCondition(
			metav1.ConditionTrue, podnetv1alpha1.ReasonNoFreeBlock, ContainSubstring("2 of 2 nodes wait for a block: first, second.")))
		Expect(nodeCondition(ctx, "first").Status).NotTo(Equal(corev1.ConditionTrue), "its pods run on")

		addRange(ctx, blockRange("10.2.0.0/16", 28))
		Eventually(blocksOf).WithArguments(ctx, "first").Should(ConsistOf("10.1.0.0/28", HavePrefix("10.2.0.")))
		Eventually(blocksOf).WithArguments(ctx, "second").Should(oneBlockIn("10.2.0."))
		makeNode(ctx, "third", nil, "192.0.2.3")
		Eventually(blocksOf).WithArguments(ctx, "third").Should(oneBlockIn("10.2.0."))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonBlocksFree, Not(BeEmpty())))
	})

	It("gives nodes of a zone blocks of open ranges once those of the zone are taken, and tells before", func(ctx context.Context) {
		zone := blockRange("10.9.0.0/25", 26)
		zone.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "a"}}
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/22", 24), zone))).To(Succeed())
		startManager()
		for i := 1; i <= 3; i++ {
			name := fmt.Sprintf("a-%d", i)
			makeNode(ctx, name, map[string]string{"zone": "a"}, fmt.Sprintf("192.0.2.%d", i))
			want := "10.9.0."
			if i == 3 {
				want = "10.244."
			}
			Eventually(blocksOf).WithArguments(ctx, name).Should(oneBlockIn(want))
		}
		makeNode(ctx, "b", map[string]string{"zone": "b"}, "192.0.2.4")
		Eventually(blocksOf).WithArguments(ctx, "b").Should(oneBlockIn("10.244."))
		Eventually(rangeStatusOf).WithArguments(ctx, "10.9.0.0/25").Should(And(
			HaveField("BlocksFree", HaveValue(BeEquivalentTo(0))), HaveField("Nodes", HaveValue(BeEquivalentTo(2)))))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonBlocksFree, Not(BeEmpty())))
	})

	It("gives a node another block before its addresses run out, and counts addresses", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(8))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/28"))
		agent.run("10.244.0.0/28", 8)
		Eventually(rangeStatusOf).WithArguments(ctx, "10.244.0.0/16").Should(
			HaveField("AddressesAllocated", HaveValue(BeEquivalentTo(8))))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(1), "4 addresses are free")

		agent.run("10.244.0.0/28", 9)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/28", "10.244.0.16/28"))
		Eventually(eventsAbout).WithArguments(ctx, "Node", "node", "BlockAllocated").Should(ContainElement(ContainSubstring("10.244.0.16/28")))
		agent.run("10.244.0.16/28", 3)
		const total = 4096 * 12
		Eventually(rangeStatusOf).WithArguments(ctx, "10.244.0.0/16").Should(And(
			HaveField("BlocksAllocated", HaveValue(BeEquivalentTo(2))),
			HaveField("Nodes", HaveValue(BeEquivalentTo(1))),
			HaveField("AddressesTotal", HaveValue(BeEquivalentTo(total))),
			HaveField("AddressesAllocated", HaveValue(BeEquivalentTo(12))),
			HaveField("AddressesFree", HaveValue(BeEquivalentTo(total-12))),
		))
		Expect(metric("podnet_addresses", "10.244.0.0/16", "allocated")).To(BeEquivalentTo(12))
		Expect(metric("podnet_addresses", "10.244.0.0/16", "free")).To(BeEquivalentTo(total - 12))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(2))
	})

	It("gives a burst as many blocks as it needs, once", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(8))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/28"))
		By("40 pods that wait while 11 addresses are free: 4 blocks with 4 addresses to spare, also while the agent is silent about them")
		agent.run("10.244.0.0/28", 1)
		agent.wait(40)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(4))
		agent.change(func() { agent.silent = true })
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(4))

		agent.change(func() {
			agent.silent = false
			agent.waiting[podnetv1alpha1.IPv4] = 0
			agent.pods = map[string]int64{"10.244.0.0/28": 12, "10.244.0.16/28": 12, "10.244.0.32/28": 12, "10.244.0.48/28": 5}
		})
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(4))
	})

	It("gives a node no more blocks than it may have, and says how to get more", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(2))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		agent.wait(100)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(2))
		const sentence = "Node node has used up its IPv4 blocks and holds as many as a node may: raise spec.nodeBlocks.max of PodNetwork default (2)"
		Eventually(eventsAbout).WithArguments(ctx, "Node", "node", "NoFreeBlock").Should(ContainElement(ContainSubstring(sentence)))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(
			beCondition(metav1.ConditionTrue, podnetv1alpha1.ReasonNoFreeBlock, ContainSubstring(sentence)))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(2))

		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.NodeBlocks.Max = 3 })).To(Succeed())
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(3))
		agent.wait(0)
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonBlocksFree, Not(BeEmpty())))
	})

	It("takes back a block that is empty, unless a pod comes meanwhile, and gives it to others after its rest", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(8))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		agent.run("10.244.0.0/28", 12)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/28", "10.244.0.16/28"))
		agent.run("10.244.0.16/28", 2)
		agent.change(func() {
			// The agent is slow to let the block go.
			agent.frozen["10.244.0.16/28"] = podnetv1alpha1.SubnetActive
			agent.pods["10.244.0.0/28"], agent.pods["10.244.0.16/28"] = 1, 0
		})
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.16/28").Should(HaveField("Spec.State", podnetv1alpha1.SubnetDraining))
		Consistently(subnetOf).WithArguments(ctx, "10.244.0.16/28").WithTimeout(short).Should(
			HaveField("Spec.State", podnetv1alpha1.SubnetDraining), "the agent has not let go of it")

		By("a pod that got an address of it before the agent knew")
		agent.run("10.244.0.16/28", 1)
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.16/28").Should(HaveField("Spec.State", podnetv1alpha1.SubnetActive))

		By("its end, and an agent that follows")
		agent.change(func() {
			delete(agent.frozen, "10.244.0.16/28")
			agent.pods["10.244.0.16/28"] = 0
		})
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.16/28").Should(HaveField("Spec.State", podnetv1alpha1.SubnetReleased))
		Expect(blocksOf(ctx, "node")).To(ConsistOf("10.244.0.0/28"))
		Eventually(eventsAbout).WithArguments(ctx, "Node", "node", "BlockReleased").Should(ConsistOf(ContainSubstring("10.244.0.16/28")))
		Eventually(func() bool { _, err := subnetOf(ctx, "10.244.0.16/28"); return apierrors.IsNotFound(err) }).Should(BeTrue())
		makeNode(ctx, "next", nil, "192.0.2.2")
		Eventually(blocksOf).WithArguments(ctx, "next").Should(ConsistOf("10.244.0.16/28"))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(ConsistOf("10.244.0.0/28"), "the last one stays")
	})

	It("gives tiny blocks as pods come, for those that wait alone where no reserve is asked for", func(ctx context.Context) {
		n := podNetwork(blockRange("10.244.0.0/24", 30))
		n.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Reserve: ptr.To[int32](0)}
		Expect(api.Create(ctx, n)).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/30"))
		agent.run("10.244.0.0/30", 1)
		Eventually(rangeStatusOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("AddressesAllocated", HaveValue(BeEquivalentTo(1))))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(1), "nobody waits")
		agent.wait(2)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(3))
		agent.change(func() {
			agent.waiting[podnetv1alpha1.IPv4] = 0
			agent.pods["10.244.0.4/30"], agent.pods["10.244.0.8/30"] = 1, 1
		})

		By("a reserve, which for a block of one address is one")
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.NodeBlocks.Reserve = ptr.To[int32](16) })).To(Succeed())
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(4))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(4))
	})

	It("grows in one family where pods wait in that one", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(8, blockRange("10.244.0.0/16", 28), blockRange("fd00:a:244::/112", 124)))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/28", "fd00:a:244::/124"))
		agent.change(func() { agent.waiting[podnetv1alpha1.IPv6] = 20 })
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/28", "fd00:a:244::/124", "fd00:a:244::10/124"))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(short).Should(HaveLen(3))
	})

	It("lets a node rest no more blocks than it may by labels that it changes, and lets it move when they have rested", func(ctx context.Context) {
		zone := func(name, cidr string) podnetv1alpha1.Range {
			r := blockRange(cidr, 28)
			r.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": name}}
			return r
		}
		const most = 2
		n := smallBlocks(most, zone("a", "10.1.0.0/24"), zone("b", "10.2.0.0/24"))
		n.Spec.BlockQuarantineSeconds = ptr.To[int32](600)
		Expect(api.Create(ctx, n)).To(Succeed())
		startManager()
		prefixes := map[string]string{"a": "10.1.0.", "b": "10.2.0."}
		node := makeNode(ctx, "node", map[string]string{"zone": "a"}, "192.0.2.1")
		startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(oneBlockIn(prefixes["a"]))
		move := func(zone string) {
			GinkgoHelper()
			Expect(api.Patch(ctx, node, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"zone":%q}}}`, zone)))).To(Succeed())
		}
		all := func() []podnetv1alpha1.NodeSubnet {
			subnets := &podnetv1alpha1.NodeSubnetList{}
			Expect(api.List(ctx, subnets, client.MatchingFields{"spec.node": "node"})).To(Succeed())
			return subnets.Items
		}

		By("moves that work at once")
		for _, zone := range []string{"b", "a", "b"} {
			move(zone)
			Eventually(blocksOf).WithArguments(ctx, "node").Should(oneBlockIn(prefixes[zone]))
		}
		Expect(all()).To(HaveLen(2 * most))

		By("one more, for which it waits")
		move("a")
		const sentence = "Node node keeps as many IPv4 blocks from others as a node may, twice spec.nodeBlocks.max of PodNetwork default (2)"
		Eventually(eventsAbout).WithArguments(ctx, "Node", "node", "NoFreeBlock").Should(ContainElement(ContainSubstring(sentence)))
		Consistently(all).WithTimeout(short).Should(HaveLen(2 * most))
		Expect(blocksOf(ctx, "node")).To(oneBlockIn(prefixes["b"]), "it uses what it has meanwhile")
		Expect(subnetOf(ctx, blocksOf(ctx, "node")[0])).To(HaveField("Spec.State", podnetv1alpha1.SubnetActive))

		By("the end of the rest")
		Expect(changeNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.BlockQuarantineSeconds = ptr.To[int32](0) })).To(Succeed())
		Eventually(blocksOf).WithArguments(ctx, "node").Should(oneBlockIn(prefixes["a"]))
	})

	It("says when few blocks are left, before anybody waits", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(64, blockRange("10.244.0.0/24", 28)))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		agent := startAgent("node")
		agent.wait(13*12 - 4)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(13))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionRunningLow).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonEnoughFree, Not(BeEmpty())))
		agent.wait(15*12 - 4)
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(15))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionRunningLow).Should(beCondition(
			metav1.ConditionTrue, podnetv1alpha1.ReasonFewFree, ContainSubstring("1 of 16 blocks are free in 10.244.0.0/24")))
		Expect(condition(ctx, "default", podnetv1alpha1.ConditionExhausted).Status).To(Equal(metav1.ConditionFalse))
		addRange(ctx, blockRange("10.245.0.0/24", 28))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionRunningLow).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonEnoughFree, Not(BeEmpty())))
	})

	It("leaves nodes alone that do not run Linux", func(ctx context.Context) {
		Expect(api.Create(ctx, smallBlocks(8))).To(Succeed())
		startManager()
		makeNode(ctx, "windows", map[string]string{corev1.LabelOSStable: "windows"}, "192.0.2.1")
		makeNode(ctx, "linux", map[string]string{corev1.LabelOSStable: "linux"}, "192.0.2.2")
		Eventually(blocksOf).WithArguments(ctx, "linux").Should(HaveLen(1))
		Eventually(func(g Gomega) {
			network := &podnetv1alpha1.PodNetwork{}
			g.Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, network)).To(Succeed())
			g.Expect(network.Status.NodesTotal).To(HaveValue(BeEquivalentTo(1)))
		}).Should(Succeed())
		Expect(blocksOf(ctx, "windows")).To(BeEmpty())
		Expect(apierrors.IsNotFound(api.Get(ctx, client.ObjectKey{Name: "windows"}, &podnetv1alpha1.NodeNetwork{}))).To(BeTrue())
		Expect(nodeCondition(ctx, "windows")).To(Equal(corev1.NodeCondition{}))
	})
})
