package envtest

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// reportOverlap writes what the agent of a node would that has found prefixes on
// its interfaces; none for nothing found.
func reportOverlap(ctx context.Context, node string, cidrs ...string) {
	GinkgoHelper()
	status := podnetv1alpha1ac.NodeNetworkStatus().WithAgentVersion("test")
	if len(cidrs) > 0 {
		status.WithFindings(podnetv1alpha1ac.Finding().
			WithType(podnetv1alpha1.FindingRangeOverlap).WithMessage("Written by a test.").WithCIDRs(cidrs...))
	}
	Eventually(func() error {
		if err := api.Get(ctx, client.ObjectKey{Name: node}, &podnetv1alpha1.NodeNetwork{}); err != nil {
			return err
		}
		return api.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(node).WithStatus(status),
			client.FieldOwner("podnet-agent"), client.ForceOwnership)
	}).Should(Succeed())
}

var _ = Describe("Ranges that overlap what the cluster uses", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	overlap := func(ctx context.Context) *metav1.Condition {
		return condition(ctx, "default", podnetv1alpha1.ConditionRangesOverlap)
	}
	some := func(words string) OmegaMatcher {
		return beCondition(metav1.ConditionTrue, podnetv1alpha1.ReasonRangesOverlap, ContainSubstring(words))
	}
	none := beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonNoOverlap, Not(BeEmpty()))
	told := func(ctx context.Context) []string {
		return eventsAbout(ctx, "PodNetwork", "default", podnetv1alpha1.ReasonRangesOverlap)
	}

	It("names the API server's own service CIDR, until the range has gone", func(ctx context.Context) {
		services := &networkingv1.ServiceCIDR{}
		Eventually(func() error { return api.Get(ctx, client.ObjectKey{Name: "kubernetes"}, services) }).Should(Succeed())
		cidr := services.Spec.CIDRs[0]
		Expect(cidr).To(HavePrefix("10.0.0."), "the range below has to overlap it")
		Expect(api.Create(ctx, podNetwork(blockRange("10.0.0.0/16", 0), blockRange("10.244.0.0/16", 0)))).To(Succeed())
		startManager()

		words := "Range 10.0.0.0/16 overlaps the service CIDR " + cidr + " (ServiceCIDR kubernetes)"
		Eventually(overlap).WithArguments(ctx).Should(some(words))
		Expect(overlap(ctx).Message).NotTo(ContainSubstring("10.244.0.0/16"))
		Eventually(told).WithArguments(ctx).Should(ConsistOf(ContainSubstring(words)))

		network := &podnetv1alpha1.PodNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, network)).To(Succeed())
		network.Spec.Ranges[0].State = podnetv1alpha1.RangeDraining
		Expect(api.Update(ctx, network)).To(Succeed())
		Eventually(func() error {
			if err := api.Get(ctx, client.ObjectKey{Name: "default"}, network); err != nil {
				return err
			}
			network.Spec.Ranges = network.Spec.Ranges[len(network.Spec.Ranges)-1:]
			return api.Update(ctx, network)
		}).Should(Succeed())
		Eventually(overlap).WithArguments(ctx).Should(none)
	})

	It("names a ServiceCIDR that is added later, as long as it is there", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 0)))).To(Succeed())
		startManager()
		Eventually(overlap).WithArguments(ctx).Should(none)

		more := &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.244.128.0/20"}},
		}
		Expect(api.Create(ctx, more)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(api.Delete(ctx, more))).To(Succeed()) })
		Eventually(overlap).WithArguments(ctx).Should(some("Range 10.244.0.0/16 overlaps the service CIDR 10.244.128.0/20 (ServiceCIDR more)"))
		Eventually(told).WithArguments(ctx).Should(HaveLen(1))

		Expect(api.Delete(ctx, more)).To(Succeed())
		Eventually(overlap).WithArguments(ctx).Should(none)
		Expect(told(ctx)).To(HaveLen(1))
	})

	It("names nodes whose addresses lie in a range, and not those that podnet gave them", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 0)))).To(Succeed())
		startManager()
		node := makeNode(ctx, "node-1", nil, "192.0.2.1")
		Eventually(blocksOf).WithArguments(ctx, "node-1").Should(ConsistOf("10.244.0.0/24"))
		Eventually(overlap).WithArguments(ctx).Should(none)

		setAddresses := func(addresses ...corev1.NodeAddress) {
			GinkgoHelper()
			Eventually(func() error {
				if err := api.Get(ctx, client.ObjectKeyFromObject(node), node); err != nil {
					return err
				}
				node.Status.Addresses = addresses
				return api.Status().Update(ctx, node)
			}).Should(Succeed())
		}
		first := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}
		own := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.244.0.0"}
		setAddresses(first, own, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "10.244.7.7"})
		Eventually(overlap).WithArguments(ctx).Should(some("Range 10.244.0.0/16 overlaps addresses of nodes (node-1 has 10.244.7.7)"))
		Eventually(told).WithArguments(ctx).Should(ConsistOf(ContainSubstring("10.244.7.7")))
		setAddresses(first, own)
		Eventually(overlap).WithArguments(ctx).Should(none)
	})

	It("sums up what agents find on interfaces", func(ctx context.Context) {
		makeNodes(ctx, 2)
		Expect(api.Create(ctx, podNetwork(blockRange("172.16.0.0/12", 0)))).To(Succeed())
		startManager()
		Eventually(overlap).WithArguments(ctx).Should(none)

		reportOverlap(ctx, "node-1", "172.17.0.0/16")
		Eventually(overlap).WithArguments(ctx).Should(some("Range 172.16.0.0/12 overlaps 172.17.0.0/16, which 1 node has on an interface (node-1)"))
		reportOverlap(ctx, "node-2", "172.17.0.0/16")
		Eventually(overlap).WithArguments(ctx).Should(some("which 2 nodes have on an interface (node-1, node-2)"))
		Eventually(told).WithArguments(ctx).Should(ConsistOf(ContainSubstring("which 1 node has")), "that one more node has it is no news")

		reportOverlap(ctx, "node-1")
		reportOverlap(ctx, "node-2")
		Eventually(overlap).WithArguments(ctx).Should(none)
	})

	It("takes prefixes in findings only", func(ctx context.Context) {
		network := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
		Expect(api.Create(ctx, network)).To(Succeed())
		network.Status.Findings = []podnetv1alpha1.Finding{{Type: podnetv1alpha1.FindingRangeOverlap, Message: "One.", CIDRs: []string{"eth0"}}}
		Expect(api.Status().Update(ctx, network)).To(beRefusedWith("each of cidrs must be a CIDR"))
	})
})
