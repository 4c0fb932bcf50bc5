package cluster

import (
	"context"
	"net/netip"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// nodeSpecs are about what Kubernetes and podnet say of the nodes.
func nodeSpecs() {
	It("gives every node a block of each family and makes it ready", func(ctx context.Context) {
		expectReady(ctx)
		for _, node := range local.nodes {
			families := map[bool]int{}
			for _, cidr := range blocksOf(ctx, Default, node.name) {
				families[cidr.Addr().Is4()]++
			}
			Expect(families).To(Equal(map[bool]int{true: 1, false: 1}), "blocks of %s", node.name)
			c := expectCondition(Default, nodeConditions(ctx, Default, node.name), corev1.NodeNetworkUnavailable, corev1.ConditionFalse)
			Expect(c.Reason).To(Equal(podnetv1alpha1.ReasonPodnetProgrammed))
			report := nodeNetwork(ctx, Default, node.name).Status
			for _, kind := range []string{podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionHostUnobstructed} {
				condition := meta.FindStatusCondition(report.Conditions, kind)
				Expect(condition).NotTo(BeNil())
				Expect(string(condition.Status)).To(Equal("True"), "%s of %s: %s", kind, node.name, condition.Message)
			}
			Expect(report.Endpoints).To(ConsistOf(node.v4, node.v6))
		}
	})
}

// blocksOf reads which blocks a node holds.
func blocksOf(ctx context.Context, g Gomega, node string) []netip.Prefix {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	g.Expect(kube.List(ctx, subnets)).To(Succeed())
	var out []netip.Prefix
	for i := range subnets.Items {
		if subnets.Items[i].Spec.Node == node {
			cidr, err := netip.ParsePrefix(subnets.Items[i].Spec.CIDR)
			g.Expect(err).NotTo(HaveOccurred())
			out = append(out, cidr)
		}
	}
	return out
}

// exhaustion is on a network that has blocks for two nodes, and more nodes.
func exhaustion(ctx context.Context) {
	GinkgoHelper()
	var without string
	Eventually(func(g Gomega) {
		c := meta.FindStatusCondition(network(ctx, g).Status.Conditions, podnetv1alpha1.ConditionExhausted)
		g.Expect(c).NotTo(BeNil())
		g.Expect(string(c.Status)).To(Equal("True"), c.Message)
		g.Expect(c.Message).To(And(ContainSubstring("10.246.0.0/23 has 2 of /24"), ContainSubstring("fd00:10:246::/63 has 2 of /64")))
		i := slices.IndexFunc(local.nodes, func(n node) bool { return len(blocksOf(ctx, g, n.name)) == 0 })
		g.Expect(i).NotTo(Equal(-1))
		without = local.nodes[i].name
		g.Expect(c.Message).To(ContainSubstring(without))
		unavailable := expectCondition(g, nodeConditions(ctx, g, without), corev1.NodeNetworkUnavailable, corev1.ConditionTrue)
		g.Expect(unavailable.Message).To(ContainSubstring("10.246.0.0/23 has 2 of /24"))
		g.Expect(eventsOf(ctx, g, "Node", without)).To(ContainElement(ContainSubstring("10.246.0.0/23 has 2 of /24")))
	}).WithTimeout(2 * time.Minute).Should(Succeed())

	By("letting pods of that node wait")
	makeNamespace(ctx, "podnet-exhausted")
	pod := newPod("podnet-exhausted", "waits", without)
	Expect(kube.Create(ctx, pod)).To(Succeed())
	Consistently(func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.Status.Phase).To(Equal(corev1.PodPending))
	}).WithTimeout(3 * time.Second).Should(Succeed())

	By("adding a range")
	patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.Ranges = append(spec.Ranges, wideRanges...) })
	expectPodReady(ctx, pod)
	expectReady(ctx)
	Eventually(func(g Gomega) {
		g.Expect(meta.IsStatusConditionFalse(network(ctx, g).Status.Conditions, podnetv1alpha1.ConditionExhausted)).To(BeTrue())
	}).Should(Succeed())
	removeNamespace(ctx, pod.Namespace)
}

// eventsOf reads the notes of the events about an object.
func eventsOf(ctx context.Context, g Gomega, kind, name string) []string {
	events := &eventsv1.EventList{}
	g.Expect(kube.List(ctx, events)).To(Succeed())
	var out []string
	for i := range events.Items {
		if events.Items[i].Regarding.Kind == kind && events.Items[i].Regarding.Name == name {
			out = append(out, events.Items[i].Note)
		}
	}
	return out
}

// renewDNS replaces the pods of cluster DNS, whose network went with the one that was uninstalled.
func renewDNS(ctx context.Context) {
	GinkgoHelper()
	key := client.ObjectKey{Namespace: "kube-system", Name: "coredns"}
	pods := &corev1.PodList{}
	Expect(kube.List(ctx, pods, client.InNamespace(key.Namespace), client.MatchingLabels{"k8s-app": "kube-dns"})).To(Succeed())
	for i := range pods.Items {
		Expect(client.IgnoreNotFound(kube.Delete(ctx, &pods.Items[i]))).To(Succeed())
	}
	expectDNS(ctx)
}

func expectDNS(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		deployment := &appsv1.Deployment{}
		g.Expect(kube.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "coredns"}, deployment)).To(Succeed())
		g.Expect(deployment.Status.ReadyReplicas).To(Equal(deployment.Status.Replicas))
		g.Expect(deployment.Status.UnavailableReplicas).To(BeZero())
	}).Should(Succeed())
}
