package envtest

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var _ = Describe("Blocks of nodes", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	It("gives each node a block of each family, with its addresses", func(ctx context.Context) {
		makeNodes(ctx, 3)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 0), blockRange("fd00:a:244::/48", 0)))).To(Succeed())
		startManager()

		held := map[string]string{}
		for i := 1; i <= 3; i++ {
			node := fmt.Sprintf("node-%d", i)
			Eventually(blocksOf).WithArguments(ctx, node).Should(HaveLen(2))
			for _, cidr := range blocksOf(ctx, node) {
				Expect(held).NotTo(HaveKey(cidr))
				held[cidr] = node
				subnet, err := subnetOf(ctx, cidr)
				Expect(err).NotTo(HaveOccurred())
				Expect(subnet.Spec.Endpoints).To(Equal([]string{fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("2001:db8::%d", i)}))
				Expect(subnet.Spec.State).To(Equal(podnetv1alpha1.SubnetActive))
				Expect(subnet.Finalizers).To(ConsistOf(podnetv1alpha1.NodeSubnetFinalizer))
			}
		}
		for _, cidr := range []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "fd00:a:244::/64", "fd00:a:244:1::/64", "fd00:a:244:2::/64"} {
			Expect(held).To(HaveKey(cidr))
		}
		Eventually(func(g Gomega) {
			network := &podnetv1alpha1.PodNetwork{}
			g.Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, network)).To(Succeed())
			g.Expect(network.Status.Ranges).To(ConsistOf(
				podnetv1alpha1.RangeStatus{CIDR: "10.244.0.0/16", State: podnetv1alpha1.RangeActive,
					BlocksTotal: ptr.To[int64](256), BlocksAllocated: ptr.To[int64](3), BlocksFree: ptr.To[int64](253),
					AddressesTotal: ptr.To[int64](256 * 252), AddressesAllocated: ptr.To[int64](0), AddressesFree: ptr.To[int64](256 * 252),
					Nodes: ptr.To[int32](3)},
				podnetv1alpha1.RangeStatus{CIDR: "fd00:a:244::/48", State: podnetv1alpha1.RangeActive,
					BlocksTotal: ptr.To[int64](65536), BlocksAllocated: ptr.To[int64](3), BlocksFree: ptr.To[int64](65533),
					AddressesTotal: ptr.To[int64](math.MaxInt64), AddressesAllocated: ptr.To[int64](0), AddressesFree: ptr.To[int64](math.MaxInt64),
					Nodes: ptr.To[int32](3)},
			))
			g.Expect(network.Status.NodesTotal).To(HaveValue(BeEquivalentTo(3)))
			g.Expect(network.Status.NodesReady).To(HaveValue(BeEquivalentTo(0)))
		}).Should(Succeed())
		Expect(metric("podnet_blocks", "10.244.0.0/16", "allocated")).To(BeEquivalentTo(3))
		Expect(metric("podnet_blocks", "10.244.0.0/16", "free")).To(BeEquivalentTo(253))
		Expect(metric("podnet_nodes", "false")).To(BeEquivalentTo(3))
		Expect(condition(ctx, "default", podnetv1alpha1.ConditionAccepted)).To(
			beCondition(metav1.ConditionTrue, podnetv1alpha1.ReasonAccepted, Not(BeEmpty())))
		Expect(condition(ctx, "default", podnetv1alpha1.ConditionReady)).To(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonNodesNotReady, ContainSubstring("3 of 3 nodes")))
		Expect(condition(ctx, "default", podnetv1alpha1.ConditionExhausted)).To(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonBlocksFree, Not(BeEmpty())))
	})

	It("prefers ranges that select the node, and gives none of those to others", func(ctx context.Context) {
		makeNode(ctx, "edge", map[string]string{"zone": "edge"}, "192.0.2.1")
		makeNode(ctx, "core", nil, "192.0.2.2")
		edge := blockRange("10.99.0.0/16", 24)
		edge.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "edge"}}
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24), edge))).To(Succeed())
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "edge").Should(ConsistOf("10.99.0.0/24"))
		Eventually(blocksOf).WithArguments(ctx, "core").Should(ConsistOf("10.244.0.0/24"))
	})

	It("says how many blocks there are when they are all taken, and goes on when a range is added", func(ctx context.Context) {
		makeNodes(ctx, 3)
		network := podNetwork(blockRange("10.244.0.0/23", 24))
		Expect(api.Create(ctx, network)).To(Succeed())
		startManager()

		var waiting string
		Eventually(func(g Gomega) {
			var without []string
			for _, node := range []string{"node-1", "node-2", "node-3"} {
				if c := nodeCondition(ctx, node); c.Status == corev1.ConditionTrue {
					g.Expect(c.Reason).To(Equal(podnetv1alpha1.ReasonPodnetNoFreeBlock))
					g.Expect(c.Message).To(And(ContainSubstring("10.244.0.0/23 has 2 of /24"), ContainSubstring("all are taken")))
					without = append(without, node)
				}
			}
			g.Expect(without).To(HaveLen(1))
			waiting = without[0]
		}).Should(Succeed())
		Eventually(eventsAbout).WithArguments(ctx, "Node", waiting, "NoFreeBlock").Should(ContainElement(ContainSubstring("10.244.0.0/23 has 2 of /24")))
		Eventually(eventsAbout).WithArguments(ctx, "PodNetwork", "default", "NoFreeBlock").Should(
			ContainElement(And(ContainSubstring(waiting), ContainSubstring("10.244.0.0/23 has 2 of /24"))))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(beCondition(
			metav1.ConditionTrue, podnetv1alpha1.ReasonNoFreeBlock, And(ContainSubstring(waiting), ContainSubstring("10.244.0.0/23 has 2 of /24"))))

		before := client.MergeFrom(network.DeepCopy())
		network.Spec.Ranges = append(network.Spec.Ranges, blockRange("10.245.0.0/16", 24))
		Expect(api.Patch(ctx, network, before)).To(Succeed())
		Eventually(blocksOf).WithArguments(ctx, waiting).Should(ConsistOf("10.245.0.0/24"))
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionExhausted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonBlocksFree, Not(BeEmpty())))
		Eventually(nodeCondition).WithArguments(ctx, waiting).Should(HaveField("Reason", podnetv1alpha1.ReasonPodnetNotProgrammed))
		report(ctx, waiting, metav1.ConditionTrue, podnetv1alpha1.ReasonProgrammed)
		Eventually(nodeCondition).WithArguments(ctx, waiting).Should(HaveField("Status", corev1.ConditionFalse))
	})

	It("gives a node of one family the blocks of both, and one without address its block and an Event", func(ctx context.Context) {
		makeNode(ctx, "four", nil, "192.0.2.1")
		makeNode(ctx, "none", nil)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24), blockRange("fd00:a:244::/48", 64)))).To(Succeed())
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "four").Should(HaveLen(2))
		for _, cidr := range blocksOf(ctx, "four") {
			subnet, err := subnetOf(ctx, cidr)
			Expect(err).NotTo(HaveOccurred())
			Expect(subnet.Spec.Endpoints).To(ConsistOf("192.0.2.1"))
		}
		Eventually(eventsAbout).WithArguments(ctx, "Node", "none", "NoAddress").Should(
			ContainElement(ContainSubstring("no address that other nodes could send to")))
	})

	It("never gives two nodes overlapping blocks while two managers work at once", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24), blockRange("fd00:a:244::/48", 64)))).To(Succeed())
		startManager()
		startManager()
		const nodes = 30
		makeNodes(ctx, nodes)
		// Two managers may each give a node a block at the same moment. It then holds one
		// more than it needs, which harms nobody.
		for i := 1; i <= nodes; i++ {
			Eventually(blocksOf).WithArguments(ctx, fmt.Sprintf("node-%d", i)).Should(
				And(ContainElement(HavePrefix("10.244.")), ContainElement(HavePrefix("fd00:"))))
		}
		Consistently(func(g Gomega) {
			subnets := &podnetv1alpha1.NodeSubnetList{}
			g.Expect(api.List(ctx, subnets)).To(Succeed())
			var given []netip.Prefix
			for _, s := range subnets.Items {
				block := mustPrefix(s.Spec.CIDR)
				for _, other := range given {
					g.Expect(block.Overlaps(other)).To(BeFalse(), "%s overlaps %s", block, other)
				}
				given = append(given, block)
			}
		}, time.Second).Should(Succeed())
	})

	It("drains a range: nodes get blocks elsewhere, and it can be removed once it is empty", func(ctx context.Context) {
		node := makeNode(ctx, "node-1", nil, "192.0.2.1")
		network := podNetwork(blockRange("10.244.0.0/16", 24))
		network.Spec.BlockQuarantineSeconds = ptr.To[int32](0)
		Expect(api.Create(ctx, network)).To(Succeed())
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "node-1").Should(ConsistOf("10.244.0.0/24"))

		before := client.MergeFrom(network.DeepCopy())
		network.Spec.Ranges[0].State = podnetv1alpha1.RangeDraining
		network.Spec.Ranges = append(network.Spec.Ranges, blockRange("10.250.0.0/16", 24))
		Expect(api.Patch(ctx, network, before)).To(Succeed())
		Eventually(blocksOf).WithArguments(ctx, "node-1").Should(ConsistOf("10.244.0.0/24", "10.250.0.0/24"))
		Eventually(subnetOf).WithArguments(ctx, "10.244.0.0/24").Should(HaveField("Spec.State", podnetv1alpha1.SubnetDraining))

		remove := func() error {
			Expect(api.Get(ctx, client.ObjectKeyFromObject(network), network)).To(Succeed())
			network.Spec.Ranges = network.Spec.Ranges[1:]
			return api.Update(ctx, network)
		}
		Expect(remove()).To(beRefusedWith("range 10.244.0.0/16 cannot be removed: "))
		Expect(api.Delete(ctx, node)).To(Succeed())
		Eventually(remove).Should(Succeed())
	})
})

func mustPrefix(cidr string) netip.Prefix {
	GinkgoHelper()
	p, err := netip.ParsePrefix(cidr)
	Expect(err).NotTo(HaveOccurred())
	return p
}
