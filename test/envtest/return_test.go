package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var _ = Describe("A node that is deleted and made again", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	const cidr4, cidr6 = "10.244.0.0/24", "fd00:a:244::/64"
	// start makes a node with a block of each family, and lets its agent report pods in them.
	start := func(ctx context.Context, quarantineSeconds int32, pods int64) *corev1.Node {
		GinkgoHelper()
		n := podNetwork(blockRange("10.244.0.0/16", 24), blockRange("fd00:a:244::/48", 64))
		n.Spec.BlockQuarantineSeconds = &quarantineSeconds
		n.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Reserve: ptr.To[int32](1)}
		Expect(api.Create(ctx, n)).To(Succeed())
		node := makeNode(ctx, "node", nil, "192.0.2.1", "2001:db8::1")
		startManager()
		agent := startAgent("node")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf(cidr4, cidr6))
		for _, cidr := range []string{cidr4, cidr6} {
			agent.run(cidr, pods)
			Eventually(func(g Gomega) {
				nn := &podnetv1alpha1.NodeNetwork{}
				g.Expect(api.Get(ctx, client.ObjectKey{Name: "node"}, nn)).To(Succeed())
				g.Expect(nn.Status.Blocks).To(ContainElement(And(HaveField("CIDR", cidr), HaveField("AddressesUsed", HaveValue(Equal(pods))))))
			}).Should(Succeed())
		}
		return node
	}
	again := func(ctx context.Context) *corev1.Node { return makeNode(ctx, "node", nil, "192.0.2.7", "2001:db8::7") }
	expectTakenBack := func(ctx context.Context, node *corev1.Node) {
		GinkgoHelper()
		for cidr, endpoints := range map[string][]string{cidr4: {"192.0.2.7", "2001:db8::7"}, cidr6: {"192.0.2.7", "2001:db8::7"}} {
			Eventually(subnetOf).WithArguments(ctx, cidr).Should(And(
				HaveField("Spec.NodeUID", node.UID), HaveField("Spec.State", podnetv1alpha1.SubnetActive), HaveField("Spec.Endpoints", endpoints)))
			Eventually(eventsAbout).WithArguments(ctx, "Node", "node", "BlockTakenBack").Should(ContainElement(ContainSubstring(cidr)))
		}
		Expect(blocksOf(ctx, "node")).To(ConsistOf(cidr4, cidr6), "it needs no others")
	}

	It("has the blocks that its pods use, whose routes nobody withdraws meanwhile", func(ctx context.Context) {
		node := start(ctx, podnetv1alpha1.DefaultBlockQuarantineSeconds, 3)
		changes, err := api.Watch(ctx, &podnetv1alpha1.NodeSubnetList{})
		Expect(err).NotTo(HaveOccurred())
		Expect(api.Delete(ctx, node)).To(Succeed())
		makeNode(ctx, "other", nil, "192.0.2.9")
		Eventually(blocksOf).WithArguments(ctx, "other").Should(HaveLen(2))
		for _, cidr := range []string{cidr4, cidr6} {
			Expect(subnetOf(ctx, cidr)).To(HaveField("Spec.State", podnetv1alpha1.SubnetActive), "the Node is gone, and may come back")
		}
		expectTakenBack(ctx, again(ctx))
		changes.Stop()
		for e := range changes.ResultChan() {
			if s, ok := e.Object.(*podnetv1alpha1.NodeSubnet); ok && s.Spec.Node == "node" {
				Expect(e.Type).NotTo(Equal(watch.Deleted))
				Expect(s.Spec.State).NotTo(Equal(podnetv1alpha1.SubnetReleased))
			}
		}
	})

	It("has them also where they rest already", func(ctx context.Context) {
		node := start(ctx, 6, 3)
		Expect(api.Delete(ctx, node)).To(Succeed())
		for _, cidr := range []string{cidr4, cidr6} {
			Eventually(subnetOf).WithArguments(ctx, cidr).Should(HaveField("Spec.State", podnetv1alpha1.SubnetReleased))
		}
		expectTakenBack(ctx, again(ctx))
		Consistently(blocksOf).WithArguments(ctx, "node").WithTimeout(8*time.Second).Should(ConsistOf(cidr4, cidr6), "the quarantine is over")
	})

	It("has others where no pod has outlived it", func(ctx context.Context) {
		node := start(ctx, podnetv1alpha1.DefaultBlockQuarantineSeconds, 0)
		Expect(api.Delete(ctx, node)).To(Succeed())
		again(ctx)
		for _, cidr := range []string{cidr4, cidr6} {
			Eventually(subnetOf).WithArguments(ctx, cidr).Should(HaveField("Spec.State", podnetv1alpha1.SubnetReleased))
		}
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.1.0/24", "fd00:a:244:1::/64"))
	})
})

var _ = Describe("A node without an agent", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	It("gets no block before its agent has reported, and one then", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		startManager()
		makeNode(ctx, agentless, nil, "192.0.2.1")
		makeNode(ctx, "node", nil, "192.0.2.2")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(HaveLen(1))
		Consistently(blocksOf).WithArguments(ctx, agentless).WithTimeout(short).Should(BeEmpty())
		report(ctx, agentless, metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
		Eventually(blocksOf).WithArguments(ctx, agentless).Should(HaveLen(1))
	})
})
