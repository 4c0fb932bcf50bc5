package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("The manager's token", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	// write changes a Node's status as a user.
	write := func(ctx context.Context, user string, change func(*corev1.Node)) error {
		as := rest.CopyConfig(config)
		if user != "" {
			as.Impersonate.UserName = user
		}
		c, err := client.New(as, client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())
		node := &corev1.Node{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "node"}, node)).To(Succeed())
		before := client.StrategicMergeFrom(node.DeepCopy())
		change(node)
		return c.Status().Patch(ctx, node, before)
	}
	unavailable := func(n *corev1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: time.Now().String()})
	}
	capacity := func(n *corev1.Node) {
		n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("99")}
	}

	It("changes the condition NetworkUnavailable of a Node, and nothing else", func(ctx context.Context) {
		makeNode(ctx, "node", nil, "192.0.2.1")
		// The API server takes a moment to put a policy in force.
		Eventually(write).WithArguments(ctx, managerUser, capacity).Should(
			beRefusedWith("may change the condition NetworkUnavailable of a Node, and nothing else of its status"))
		Expect(write(ctx, managerUser, func(n *corev1.Node) { n.Status.Addresses[0].Address = "192.0.2.66" })).To(beRefusedWith("nothing else of its status"))
		Expect(write(ctx, managerUser, func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionTrue })).To(beRefusedWith("no other condition"))
		Expect(write(ctx, managerUser, func(n *corev1.Node) { n.Labels = map[string]string{"trusted": "true"} })).To(beRefusedWith("nothing of its metadata"))
		Expect(write(ctx, managerUser, unavailable)).To(Succeed())
		Expect(nodeCondition(ctx, "node").Status).To(Equal(corev1.ConditionTrue))
	})

	It("is the only one that is held to that", func(ctx context.Context) {
		makeNode(ctx, "node", nil, "192.0.2.1")
		Eventually(write).WithArguments(ctx, managerUser, capacity).Should(beRefusedWith("nothing else of its status"))
		Expect(write(ctx, "", capacity)).To(Succeed())
	})
})
