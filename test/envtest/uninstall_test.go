package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/internal/uninstall"
)

var _ = Describe("An uninstall", func() {
	annotation := func(ctx context.Context) string {
		network := &podnetv1alpha1.PodNetwork{}
		Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, network)).To(Succeed())
		return network.Annotations[podnetv1alpha1.UninstallAnnotation]
	}
	ready := func(ctx context.Context, name string) {
		node := &corev1.Node{}
		Expect(api.Get(ctx, client.ObjectKey{Name: name}, node)).To(Succeed())
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		Expect(api.Status().Update(ctx, node)).To(Succeed())
	}
	// answer writes what an agent does that took podnet off its node.
	answer := func(ctx context.Context, node string) {
		Expect(api.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(node).WithStatus(
			podnetv1alpha1ac.NodeNetworkStatus().WithConditions(metav1ac.Condition().WithType(podnetv1alpha1.ConditionRemoved).
				WithStatus(metav1.ConditionTrue).WithReason(podnetv1alpha1.ReasonUninstall).WithMessage("Written by a test.").
				WithLastTransitionTime(metav1.Now()))),
			client.FieldOwner("podnet-agent"), client.ForceOwnership)).To(Succeed())
	}
	run := func(ctx context.Context, c uninstall.Config) (<-chan error, *gbytes.Buffer) {
		out := gbytes.NewBuffer()
		c.Client, c.Out = api, out
		ended := make(chan error, 1)
		go func() { ended <- uninstall.Run(ctx, c) }()
		return ended, out
	}

	BeforeEach(func(ctx context.Context) {
		cleanAfterwards(ctx)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		makeNodes(ctx, 3)
		startManager()
		for _, node := range []string{"node-1", "node-2", "node-3"} {
			Eventually(blocksOf).WithArguments(ctx, node).Should(HaveLen(1))
			Eventually(api.Get).WithArguments(ctx, client.ObjectKey{Name: node}, &podnetv1alpha1.NodeNetwork{}).Should(Succeed())
		}
		ready(ctx, "node-1")
		ready(ctx, "node-2")
	})

	It("waits for the agents of the nodes that are Ready, and keeps the objects", func(ctx context.Context) {
		ended, out := run(ctx, uninstall.Config{Timeout: time.Minute})
		Eventually(annotation).WithArguments(ctx).Should(Equal(uninstall.Requested))
		answer(ctx, "node-1")
		Consistently(ended).WithTimeout(time.Second).ShouldNot(Receive())
		answer(ctx, "node-2")
		Eventually(ended).Should(Receive(BeNil()))
		Expect(out).To(gbytes.Say("Every node that is Ready is rid of podnet"))
		Expect(annotation(ctx)).To(BeEmpty())
		Expect(blocksOf(ctx, "node-1")).To(HaveLen(1))
	})

	It("names the agents that do not answer, and lets Helm go on", func(ctx context.Context) {
		answer(ctx, "node-1")
		ended, out := run(ctx, uninstall.Config{Timeout: time.Second})
		Eventually(ended).Should(Receive(BeNil()))
		Expect(out).To(gbytes.Say("did not answer within 1s.*: node-2\\."))
	})

	It("removes all objects if asked to, while the manager still runs", func(ctx context.Context) {
		answer(ctx, "node-1")
		answer(ctx, "node-2")
		ended, _ := run(ctx, uninstall.Config{Timeout: time.Minute, RemoveObjects: true})
		Eventually(ended).Should(Receive(BeNil()))
		Consistently(func(g Gomega) {
			for _, list := range []client.ObjectList{
				&podnetv1alpha1.PodNetworkList{}, &podnetv1alpha1.NodeSubnetList{}, &podnetv1alpha1.NodeNetworkList{},
			} {
				g.Expect(api.List(ctx, list)).To(Succeed())
				g.Expect(items(list)).To(BeEmpty())
			}
		}).WithTimeout(time.Second).Should(Succeed())
	})

	It("ends at once where there is no network", func(ctx context.Context) {
		removeAll(ctx)
		ended, out := run(ctx, uninstall.Config{Timeout: time.Minute})
		Eventually(ended).Should(Receive(BeNil()))
		Expect(out).To(gbytes.Say("There is no PodNetwork default"))
	})
})
