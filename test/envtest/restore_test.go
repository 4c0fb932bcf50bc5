package envtest

import (
	"context"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/restored"
)

var _ = Describe("etcd restored from a backup", func() {
	// write makes the store's version grow by that much, as kubelets and others do all the time.
	write := func(ctx context.Context, times int) {
		GinkgoHelper()
		busy := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "busy"}}
		Expect(client.IgnoreAlreadyExists(api.Create(ctx, busy))).To(Succeed())
		for i := range times {
			busy.Data = map[string]string{"i": string(rune('a' + i%2))}
			Expect(api.Update(ctx, busy)).To(Succeed())
		}
	}

	DescribeTable("gives no block of a live node to another one, and makes the blocks theirs again",
		func(ctx context.Context, through bool) {
			plane := useOwnControlPlane(ctx)
			zone := blockRange("10.99.0.0/24", 28)
			zone.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "z"}}
			network := podNetwork(blockRange("10.244.0.0/16", 28), zone)
			network.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Reserve: ptr.To[int32](1)}
			Expect(api.Create(ctx, network)).To(Succeed())
			stop := startManager()
			agents, held := map[string]*fakeAgent{}, map[string][]string{}
			join := func(name, address string, labels map[string]string) {
				GinkgoHelper()
				makeNode(ctx, name, labels, address)
				setReady(ctx, name, corev1.ConditionTrue)
				if agents[name] == nil {
					agents[name] = startAgent(name)
				}
			}
			join("a", "192.0.2.1", nil)
			join("b", "192.0.2.2", nil)
			for name, agent := range agents {
				Eventually(blocksOf).WithArguments(ctx, name).Should(HaveLen(1))
				held[name] = blocksOf(ctx, name)
				agent.run(held[name][0], 5)
				Eventually(func(g Gomega) {
					nn := &podnetv1alpha1.NodeNetwork{}
					g.Expect(api.Get(ctx, client.ObjectKey{Name: name}, nn)).To(Succeed())
					g.Expect(nn.Status.RollCall).NotTo(BeEmpty())
				}).Should(Succeed())
			}
			plane.backup()

			By("a growing and c joining, of which the backup knows nothing")
			agents["a"].run(held["a"][0], 12)
			join("c", "192.0.2.3", map[string]string{"zone": "z"})
			Eventually(blocksOf).WithArguments(ctx, "a").Should(HaveLen(2))
			Eventually(blocksOf).WithArguments(ctx, "c").Should(ConsistOf("10.99.0.0/28"))
			held["a"], held["c"] = blocksOf(ctx, "a"), blocksOf(ctx, "c")
			agents["a"].run(held["a"][1], 1)
			agents["c"].run(held["c"][0], 4)

			noticed := make(chan error, 1)
			watching, cancel := context.WithCancel(ctx)
			DeferCleanup(cancel)
			guard := &restored.Watcher{Live: api, Cached: api, Interval: 200 * time.Millisecond}
			go func() { noticed <- guard.Run(watching) }()
			write(ctx, 400)
			if !through {
				stop()
			}

			By("the backup coming back, while d joins")
			plane.restore()
			makeNode(ctx, "d", nil, "192.0.2.4")
			// The manager's program ends when it notices, and is started again.
			Eventually(noticed).Should(Receive(MatchError(restored.ErrRestored)))
			stop()
			startManager()
			Eventually(blocksOf).WithArguments(ctx, "d").Should(HaveLen(1))
			Expect(slices.Concat(held["a"], held["b"])).NotTo(ContainElement(blocksOf(ctx, "d")[0]))
			for _, name := range []string{"a", "b"} {
				Expect(blocksOf(ctx, name)).To(ContainElements(held[name]))
			}
			Eventually(eventsAbout).WithArguments(ctx, "PodNetwork", "default", "BlockReclaimed").Should(
				ContainElement(HavePrefix("Node a uses the block ")))

			By("the kubelet of c making its Node again, and e joining after it")
			join("c", "192.0.2.3", map[string]string{"zone": "z"})
			Eventually(func() (*podnetv1alpha1.NodeSubnet, error) { return subnetOf(ctx, held["c"][0]) }).Should(HaveField("Spec.Node", "c"))
			makeNode(ctx, "e", map[string]string{"zone": "z"}, "192.0.2.5")
			Eventually(blocksOf).WithArguments(ctx, "e").Should(HaveLen(1))
			Expect(blocksOf(ctx, "e")).NotTo(ContainElement(held["c"][0]))
			Expect(eventsAbout(ctx, "PodNetwork", "default", "BlockDisputed")).To(BeEmpty())
		},
		Entry("with a manager that runs through it", true),
		Entry("with a manager that is started afterwards", false),
	)
})
