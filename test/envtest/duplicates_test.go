package envtest

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// forgetful is a client that knows of no NodeSubnet of a node before it has given it
// too many.
type forgetful struct {
	client.Client
	mu sync.Mutex
	// given counts the blocks that were given to each node, by the selector of its blocks.
	given map[string]int
}

// tooMany is the number of blocks that a node gets before its blocks are remembered.
const tooMany = 2

func (f *forgetful) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(options)
	if _, is := list.(*podnetv1alpha1.NodeSubnetList); is && o.FieldSelector != nil {
		f.mu.Lock()
		given := f.given[o.FieldSelector.String()]
		f.mu.Unlock()
		if given < tooMany {
			return nil
		}
	}
	return f.Client.List(ctx, list, options...)
}

func (f *forgetful) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	err := f.Client.Create(ctx, object, options...)
	if subnet, is := object.(*podnetv1alpha1.NodeSubnet); is && err == nil {
		f.mu.Lock()
		f.given[fields.OneTermEqualSelector("spec.node", subnet.Spec.Node).String()]++
		f.mu.Unlock()
	}
	return err
}

var _ = Describe("A block", func() {
	const hour = 3600

	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	// holders returns who holds each block, and fails where two blocks overlap.
	holders := func(ctx context.Context) map[string]podnetv1alpha1.NodeSubnetSpec {
		GinkgoHelper()
		subnets := &podnetv1alpha1.NodeSubnetList{}
		Expect(api.List(ctx, subnets)).To(Succeed())
		out := map[string]podnetv1alpha1.NodeSubnetSpec{}
		var given []netip.Prefix
		for _, s := range subnets.Items {
			block := mustPrefix(s.Spec.CIDR)
			for _, other := range given {
				Expect(block.Overlaps(other)).To(BeFalse(), "%s overlaps %s", block, other)
			}
			given = append(given, block)
			out[s.Spec.CIDR] = s.Spec
		}
		return out
	}

	It("is held once while two managers serve nodes that join, want more, go and come again", func(ctx context.Context) {
		network := podNetwork(blockRange("10.244.0.0/16", 28), blockRange("fd00:a:244::/112", 124))
		network.Spec.BlockQuarantineSeconds = ptr.To[int32](hour)
		Expect(api.Create(ctx, network)).To(Succeed())
		startManager()
		startManager()
		const nodes, each = 32, 8
		name := func(i int) string { return fmt.Sprintf("node-%d", i) }
		var joining sync.WaitGroup
		for first := 0; first < nodes; first += each {
			joining.Go(func() {
				defer GinkgoRecover()
				for i := first; i < first+each; i++ {
					makeNode(ctx, name(i), nil, fmt.Sprintf("192.0.2.%d", i+1))
				}
			})
		}
		joining.Wait()
		for i := range nodes {
			Eventually(blocksOf).WithArguments(ctx, name(i)).Should(And(ContainElement(HavePrefix("10.244.")), ContainElement(HavePrefix("fd00:"))))
		}

		By("some wanting more, and some being made anew, which leaves their blocks at rest")
		for i := range 4 {
			startAgent(name(i)).wait(60)
		}
		gone := map[string]types.UID{}
		for i := nodes - 4; i < nodes; i++ {
			for _, cidr := range blocksOf(ctx, name(i)) {
				subnet, err := subnetOf(ctx, cidr)
				Expect(err).NotTo(HaveOccurred())
				gone[cidr] = subnet.Spec.NodeUID
			}
			Expect(api.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name(i)}})).To(Succeed())
			makeNode(ctx, name(i), nil, fmt.Sprintf("192.0.2.%d", i+1))
		}
		for i := range 4 {
			makeNode(ctx, fmt.Sprintf("late-%d", i), nil, fmt.Sprintf("192.0.2.%d", nodes+i+1))
		}
		for i := range 4 {
			Eventually(blocksOf).WithArguments(ctx, name(i)).Should(Satisfy(func(cidrs []string) bool { return len(cidrs) >= 6 }))
			for _, n := range []string{name(nodes - 1 - i), fmt.Sprintf("late-%d", i)} {
				Eventually(blocksOf).WithArguments(ctx, n).Should(And(ContainElement(HavePrefix("10.244.")), ContainElement(HavePrefix("fd00:"))))
			}
		}
		Eventually(func(g Gomega) {
			now := holders(ctx)
			for cidr, uid := range gone {
				g.Expect(now[cidr]).To(And(HaveField("NodeUID", uid), HaveField("State", podnetv1alpha1.SubnetReleased)))
			}
		}).Should(Succeed())
		Consistently(func() int { return len(holders(ctx)) }).WithTimeout(short).Should(BeNumerically(">=", 2*(nodes+4+4)))
	})

	It("is not given away by a manager whose watch lags", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		startManager(func(o *ctrl.Options) {
			o.Cache.ByObject[&podnetv1alpha1.NodeSubnet{}] = cache.ByObject{Transform: func(object any) (any, error) {
				time.Sleep(150 * time.Millisecond)
				return object, nil
			}}
		})
		makeNode(ctx, "first", nil, "192.0.2.1")
		Eventually(blocksOf).WithArguments(ctx, "first").Should(ConsistOf("10.244.0.0/24"))
		const behind = 8
		for i := 1; i <= behind; i++ {
			cidr := fmt.Sprintf("10.244.%d.0/24", i)
			Expect(api.Create(ctx, nodeSubnet(named(cidr), cidr, "elsewhere"))).To(Succeed())
		}
		for i := range 3 {
			makeNode(ctx, fmt.Sprintf("node-%d", i), nil, fmt.Sprintf("192.0.2.%d", i+2))
		}
		for i := range 3 {
			Eventually(blocksOf).WithArguments(ctx, fmt.Sprintf("node-%d", i)).Should(ContainElement(
				Satisfy(func(cidr string) bool { return mustPrefix(cidr).Addr().As4()[2] > behind })))
		}
		for i := 1; i <= behind; i++ {
			Expect(holders(ctx)[fmt.Sprintf("10.244.%d.0/24", i)]).To(HaveField("Node", "elsewhere"))
		}
	})

	It("stays its node's under a manager that reads stale lists, and what the node got too much goes back", func(ctx context.Context) {
		network := podNetwork(blockRange("10.244.0.0/16", 24))
		network.Spec.NodeBlocks = podnetv1alpha1.NodeBlocks{IdleSeconds: 1}
		Expect(api.Create(ctx, network)).To(Succeed())
		stop := startManager()
		for i := range 3 {
			name := fmt.Sprintf("node-%d", i)
			makeNode(ctx, name, nil, fmt.Sprintf("192.0.2.%d", i+1))
			Eventually(blocksOf).WithArguments(ctx, name).Should(HaveLen(1))
		}
		before := holders(ctx)
		stop()
		startManager(func(o *ctrl.Options) {
			o.NewClient = func(config *rest.Config, options client.Options) (client.Client, error) {
				c, err := client.New(config, options)
				return &forgetful{Client: c, given: map[string]int{}}, err
			}
		})
		Eventually(func() int { return len(holders(ctx)) }).Should(BeNumerically(">", len(before)))
		for cidr, spec := range before {
			Expect(holders(ctx)[cidr]).To(Equal(spec))
			startAgent(spec.Node).run(cidr, 1)
		}
		for i := range 3 {
			Eventually(blocksOf).WithArguments(ctx, fmt.Sprintf("node-%d", i)).Should(HaveLen(1))
		}
		for cidr, spec := range before {
			Expect(holders(ctx)[cidr]).To(Equal(spec))
		}
	})

	It("keeps clear of hand-made ones, whatever their size and age", func(ctx context.Context) {
		Expect(api.Create(ctx, nodeSubnet("10.244.0.0-23", "10.244.0.0/23", "elsewhere"))).To(Succeed())
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		makeNode(ctx, "node", nil, "192.0.2.1")
		startManager()
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.2.0/24"), "the older one is larger")
		Expect(apierrors.IsAlreadyExists(api.Create(ctx, nodeSubnet("10.244.2.0-24", "10.244.2.0/24", "elsewhere")))).To(BeTrue())

		By("two that are younger, by more than the second that times of creation are cut to")
		given, err := subnetOf(ctx, "10.244.2.0/24")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() time.Duration { return time.Since(given.CreationTimestamp.Time) }).Should(BeNumerically(">", 1100*time.Millisecond))
		for _, cidr := range []string{"10.244.2.0/23", "10.244.2.64/26"} {
			Expect(api.Create(ctx, nodeSubnet(named(cidr), cidr, "other"))).To(Succeed())
		}
		makeNode(ctx, "other", nil, "192.0.2.2")
		for _, cidr := range []string{"10.244.2.0/23", "10.244.2.64/26"} {
			Eventually(eventsAbout).WithArguments(ctx, "NodeSubnet", named(cidr), "Refused").ShouldNot(BeEmpty())
			Expect(subnetOf(ctx, cidr)).To(HaveField("Spec.NodeUID", BeEmpty()))
		}
		Eventually(condition).WithArguments(ctx, "default", podnetv1alpha1.ConditionSubnetsConflict).Should(beCondition(
			metav1.ConditionTrue, podnetv1alpha1.ReasonOverlap, And(ContainSubstring("10.244.2.0-23"), ContainSubstring("10.244.2.64-26"))))
		Eventually(blocksOf).WithArguments(ctx, "other").Should(ContainElement("10.244.4.0/24"))
		Expect(subnetOf(ctx, "10.244.2.0/24")).To(And(HaveField("Spec.Node", "node"), HaveField("Spec.State", podnetv1alpha1.SubnetActive)))
	})

	It("comes out of the one network that is served, and out of no other", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		startManager()
		makeNode(ctx, "node", nil, "192.0.2.1")
		Eventually(blocksOf).WithArguments(ctx, "node").Should(ConsistOf("10.244.0.0/24"))
		second := podNetwork(blockRange("10.244.0.0/16", 24), blockRange("10.50.0.0/16", 24))
		second.Name = "second"
		Expect(api.Create(ctx, second)).To(Succeed())
		Eventually(condition).WithArguments(ctx, "second", podnetv1alpha1.ConditionAccepted).Should(
			beCondition(metav1.ConditionFalse, podnetv1alpha1.ReasonNotServed, ContainSubstring("named default")))
		theirs := nodeSubnet("10.244.1.0-24", "10.244.1.0/24", "node")
		theirs.Spec.Network = "second"
		Expect(api.Create(ctx, theirs)).To(Succeed())
		makeNode(ctx, "next", nil, "192.0.2.2")
		Eventually(blocksOf).WithArguments(ctx, "next").Should(ConsistOf("10.244.2.0/24"), "what another network holds is taken")
		Expect(subnetOf(ctx, "10.244.1.0/24")).To(HaveField("Spec.NodeUID", BeEmpty()))
		Expect(condition(ctx, "default", podnetv1alpha1.ConditionAccepted).Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(ctx, "default", podnetv1alpha1.ConditionSubnetsConflict).Status).To(Equal(metav1.ConditionFalse))
	})
})
