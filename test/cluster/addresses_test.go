package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// smallRanges have blocks of 12 addresses of IPv4, and 13 of IPv6.
var smallRanges = []podnetv1alpha1.Range{
	{CIDR: "10.247.0.0/20", NodePrefixLength: 28}, {CIDR: "fd00:10:247::/112", NodePrefixLength: 124},
}

// The namespaces of the actors after the move, and of bursts of pods.
const moved, bursts = "podnet-moved", "podnet-bursts"

// burst is more pods than two blocks of smallRanges have addresses.
const burst = 30

// addressSpecs are about ranges and blocks that come and go under running pods.
func addressSpecs(a *actors) {
	var old []podnetv1alpha1.Range

	It("moves to other ranges under traffic without a loss", func(ctx context.Context) {
		old = network(ctx, Default).Spec.Ranges
		first := true
		a.under(ctx, 12, func() {
			if first {
				patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) {
					for i := range spec.Ranges {
						spec.Ranges[i].State = podnetv1alpha1.RangeDraining
					}
					spec.Ranges = append(spec.Ranges, smallRanges...)
					spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Max: 8, Reserve: ptr.To(int32(4)), IdleSeconds: 2}
					spec.BlockQuarantineSeconds = ptr.To(int32(5))
				})
			}
			first = false
			time.Sleep(time.Second)
		})
		for i, node := range local.nodes {
			Eventually(func(g Gomega) {
				for _, subnet := range subnetsOf(ctx, g, node.name) {
					small := inSmallRange(subnet.Spec.CIDR)
					want := podnetv1alpha1.SubnetDraining
					if small {
						want = podnetv1alpha1.SubnetActive
					}
					g.Expect(subnet.Spec.State).To(Equal(want), subnet.Name)
				}
				// The node's own packets to other nodes' pods have an address that stays.
				other := a.address("b1", true)
				if i == 1 {
					other = a.address("c1", true)
				}
				small := inSmallRange(sourceTo(ctx, g, node.name, other).String())
				g.Expect(small).To(BeTrue(), "source of %s", node.name)
			}).Should(Succeed())
		}
	}, SpecTimeout(3*time.Minute))

	It("says which pods remain in a draining range, and keeps it from being removed", func(ctx context.Context) {
		Eventually(func(g Gomega) {
			status := rangeStatus(ctx, g, a.pods["a1"].Status.PodIPs[0].IP)
			g.Expect(status.State).To(Equal(podnetv1alpha1.RangeDraining))
			g.Expect(status.BlocksFree).To(HaveValue(BeZero()))
			g.Expect(status.Remaining).To(ContainElement(And(
				HaveField("Node", local.nodes[0].name), HaveField("Pods", HaveValue(BeNumerically(">=", 2))))))
		}).Should(Succeed())
		n := network(ctx, Default)
		n.Spec.Ranges = smallRanges
		Expect(kube.Update(ctx, n)).To(MatchError(ContainSubstring("cannot be removed: nodes hold blocks of it")))
	}, SpecTimeout(time.Minute))

	It("lets a range go when its last pod has gone", func(ctx context.Context) {
		removeNamespace(ctx, a.namespace)
		expectNamespaceGone(ctx, a.namespace)
		*a = *startActors(ctx, moved)
		renewDNS(ctx)
		for _, pod := range a.pods {
			if pod.Spec.HostNetwork {
				continue
			}
			for _, ip := range pod.Status.PodIPs {
				small := inSmallRange(ip.IP)
				Expect(small).To(BeTrue(), "%s of %s", ip.IP, pod.Name)
			}
		}
		Eventually(func(g Gomega) {
			for _, r := range network(ctx, g).Status.Ranges {
				if slices.ContainsFunc(old, func(o podnetv1alpha1.Range) bool { return o.CIDR == r.CIDR }) {
					g.Expect(r.BlocksAllocated).To(HaveValue(BeZero()), "blocks of %s, where pods remain on %v", r.CIDR, r.Remaining)
				}
			}
		}).Should(Succeed())
		patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.Ranges = smallRanges })
		expectReady(ctx)
		for _, f := range families {
			expectAnswers(ctx, a.in("a1"), append(a.askActor("b1", f.is4), a.askActor("c1", f.is4)...))
		}
	}, SpecTimeout(5*time.Minute))

	It("starts more pods at once than a node's block has addresses, and gives blocks back later", func(ctx context.Context) {
		makeNamespace(ctx, bursts)
		target := local.nodes[1].name
		pods := startBurst(ctx, "burst", target)
		for _, pod := range pods {
			expectPodReady(ctx, pod)
		}
		expectDistinct(pods)
		blocks := blocksOf(ctx, Default, target)
		Expect(len(blocks)).To(BeNumerically(">=", 6), "blocks of %s: %v", target, blocks)
		events := &eventsv1.EventList{}
		Expect(kube.List(ctx, events, client.InNamespace(bursts))).To(Succeed())
		for i := range events.Items {
			Expect(events.Items[i].Type).To(Equal(corev1.EventTypeNormal), "%s: %s", events.Items[i].Reason, events.Items[i].Note)
		}

		removeNamespace(ctx, bursts)
		expectNamespaceGone(ctx, bursts)
		Eventually(blocksOf).WithArguments(ctx, Default, target).WithTimeout(2 * time.Minute).Should(HaveLen(2))
	}, SpecTimeout(6*time.Minute))

	It("keeps pods running when etcd is put back to a backup that does not know their blocks", Label("budget:2m"), func(ctx context.Context) {
		makeNamespace(ctx, bursts)
		patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.NodeBlocks.Max = 1 })
		target, other := local.nodes[1].name, local.nodes[2].name
		pods := startBurst(ctx, "waiting", target)
		expectFull(ctx, target)

		By("making a backup while most pods wait for an address, and letting them have one after it")
		backup := filepath.Join(GinkgoT().TempDir(), "etcd")
		_, err := local.run(ctx, local.script, "backup", backup)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error {
			return kube.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, &podnetv1alpha1.PodNetwork{})
		}).Should(Succeed())
		patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.NodeBlocks.Max = 8 })
		for _, pod := range pods {
			expectPodReady(ctx, pod)
		}
		lost := blocksOf(ctx, Default, target)
		Expect(len(lost)).To(BeNumerically(">=", 6))
		youngest := pods[0]
		for _, pod := range pods {
			if pod.Status.StartTime.After(youngest.Status.StartTime.Time) {
				youngest = pod
			}
		}

		By("restoring it under traffic, while another node wants blocks too")
		const seconds = 50
		ping := func(what, address string) flow {
			return flow{"pings " + what, a.byRuntime("a1"), pings(address, 100, seconds), noPingLost}
		}
		expectUnnoticed(ctx, []flow{
			ping("by IPv4", a.address("b1", true)), ping("by IPv6", a.address("c1", false)),
			ping("to a pod whose block is lost", youngest.Status.PodIPs[0].IP), ping("to a pod whose block is lost", youngest.Status.PodIPs[1].IP),
			{"a connection", a.byRuntime("a2"), iperf(a.address("b1", true), firstStreamPort, seconds) + steadily, neverStalled},
		}, func() {
			_, err := local.run(ctx, local.script, "restore", backup)
			Expect(err).NotTo(HaveOccurred())
			Expect(len(blocksOf(ctx, Default, target))).To(BeNumerically("<", len(lost)), "the backup holds the blocks already")
			patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.NodeBlocks.Max = 8 })
			startBurst(ctx, "others", other)
		})
		a.expectUnharmed(ctx)

		By("finding that the blocks are the node's again")
		Eventually(blocksOf).WithArguments(ctx, Default, target).WithTimeout(2 * time.Minute).Should(ContainElements(lost))
		var all []*corev1.Pod
		Eventually(func(g Gomega) {
			list := &corev1.PodList{}
			g.Expect(kube.List(ctx, list, client.InNamespace(bursts))).To(Succeed())
			g.Expect(list.Items).To(HaveLen(2 * burst))
			all = nil
			for i := range list.Items {
				g.Expect(list.Items[i].Status.PodIPs).To(HaveLen(2), list.Items[i].Name)
				all = append(all, &list.Items[i])
			}
		}).WithTimeout(3 * time.Minute).Should(Succeed())
		expectDistinct(all)
		for _, pod := range pods {
			i := slices.IndexFunc(all, func(p *corev1.Pod) bool { return p.Name == pod.Name })
			Expect(all[i].UID).To(Equal(pod.UID))
			Expect(all[i].Status.PodIPs).To(Equal(pod.Status.PodIPs), "%s has another address", pod.Name)
			Expect(all[i].Status.ContainerStatuses[0].RestartCount).To(BeZero(), "%s was started again", pod.Name)
		}
		Eventually(eventsOf).WithArguments(ctx, Default, "PodNetwork", podnetv1alpha1.DefaultPodNetwork).
			Should(ContainElement(ContainSubstring("disappeared without being released")))
		expectReady(ctx)
		removeNamespace(ctx, bursts)
		expectNamespaceGone(ctx, bursts)
		for _, name := range []string{target, other} {
			Eventually(blocksOf).WithArguments(ctx, Default, name).WithTimeout(2 * time.Minute).Should(HaveLen(2))
		}
	}, SpecTimeout(10*time.Minute))
}

// startBurst makes pods that do nothing, on one node, all at once.
func startBurst(ctx context.Context, name, node string) []*corev1.Pod {
	GinkgoHelper()
	pods := make([]*corev1.Pod, burst)
	for i := range pods {
		pods[i] = newPod(bursts, fmt.Sprintf("%s-%d", name, i), node)
		pods[i].Spec.Containers[0].Args = []string{"pause"}
		Expect(kube.Create(ctx, pods[i])).To(Succeed())
	}
	return pods
}

// expectDistinct checks that no two pods have an address in common.
func expectDistinct(pods []*corev1.Pod) {
	GinkgoHelper()
	holder := map[string]string{}
	for _, pod := range pods {
		for _, ip := range pod.Status.PodIPs {
			Expect(holder).NotTo(HaveKey(ip.IP), "%s has the address of another pod", pod.Name)
			holder[ip.IP] = pod.Name
		}
	}
}

// expectFull waits until a node's agent reports that pods have all its addresses of IPv4.
func expectFull(ctx context.Context, node string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(nodeNetwork(ctx, g, node).Status.Addresses).To(ContainElement(
			Satisfy(func(of podnetv1alpha1.AddressesStatus) bool {
				return of.Family == podnetv1alpha1.IPv4 && *of.Used == *of.Total
			})), "%s has addresses left", node)
	}).Should(Succeed())
}

// inSmallRange reports whether an address or a block lies in one of smallRanges.
func inSmallRange(address string) bool {
	GinkgoHelper()
	addr, err := netip.ParseAddr(address)
	if block, isBlock := netip.ParsePrefix(address); isBlock == nil {
		addr, err = block.Addr(), nil
	}
	Expect(err).NotTo(HaveOccurred())
	return slices.ContainsFunc(smallRanges, func(r podnetv1alpha1.Range) bool { return netip.MustParsePrefix(r.CIDR).Contains(addr) })
}

// rangeStatus is what the PodNetwork says of the range that an address lies in.
func rangeStatus(ctx context.Context, g Gomega, address string) podnetv1alpha1.RangeStatus {
	for _, r := range network(ctx, g).Status.Ranges {
		if netip.MustParsePrefix(r.CIDR).Contains(netip.MustParseAddr(address)) {
			return r
		}
	}
	g.Expect(address).To(BeEmpty(), "no range holds this address")
	return podnetv1alpha1.RangeStatus{}
}

// subnetsOf reads a node's NodeSubnets.
func subnetsOf(ctx context.Context, g Gomega, node string) []podnetv1alpha1.NodeSubnet {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	g.Expect(kube.List(ctx, subnets)).To(Succeed())
	return slices.DeleteFunc(subnets.Items, func(s podnetv1alpha1.NodeSubnet) bool { return s.Spec.Node != node })
}
