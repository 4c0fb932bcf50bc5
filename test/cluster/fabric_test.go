package cluster

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// fabricSpecs are about what the network between nodes delivers, which podnet finds out by itself where the mode is Auto.
func fabricSpecs(a *actors) {
	Context("in mode Auto, on a fabric that changes", func() {
		AfterAll(func(ctx context.Context) { setMode(ctx, podnetv1alpha1.ModeOverlay) }, NodeTimeout(3*time.Minute))

		It("comes to routed paths where the fabric delivers them", func(ctx context.Context) {
			setMode(ctx, podnetv1alpha1.ModeAuto)
			for _, node := range local.nodes {
				Eventually(func(g Gomega) {
					proven := meta.FindStatusCondition(nodeNetwork(ctx, g, node.name).Status.Conditions, podnetv1alpha1.ConditionPathsProven)
					g.Expect(proven).NotTo(BeNil())
					g.Expect(proven.Status).To(Equal(metav1.ConditionTrue), "%s: %s", node.name, proven.Message)
				}).Should(Succeed())
			}
		}, SpecTimeout(4*time.Minute))

		It("falls back to the overlay within a second when the fabric begins to drop pods' addresses", func(ctx context.Context) {
			expectRoutedAgain(ctx)
			var machine control
			list := []flow{machine.flow(a.byRuntime("a2"), 10)}
			for _, f := range families {
				list = append(list, flow{"pings by " + f.name, a.byRuntime("a1"), pings(a.address("b1", f.is4), 1000, 10), machine.lostForASecond})
			}
			expectUnnoticed(ctx, list, func() {
				time.Sleep(whileNothingChanges)
				setFabric(ctx, "strict")
			})
			expectOverlayEverywhere(ctx)
			for _, node := range local.nodes {
				Eventually(explanations).WithArguments(ctx, Default, node.name).Should(ContainElement(ContainSubstring("routed")))
			}
			for _, f := range families {
				expectAnswers(ctx, a.in("a1"), append(a.askActor("b1", f.is4), a.askActor("c1", f.is4)...))
			}
		}, SpecTimeout(6*time.Minute))

		It("returns to routed paths without a loss when the fabric delivers them again", func(ctx context.Context) {
			setFabric(ctx, "strict")
			expectOverlayEverywhere(ctx)
			opened, again := false, false
			// A path that failed has to be steady for a while before it is taken again.
			for range 2 {
				a.under(ctx, 60, func() {
					time.Sleep(time.Second)
					if !opened {
						setFabric(ctx, "open")
						opened = true
					}
					again = again || routedEverywhere(ctx)
				})
				if again {
					break
				}
			}
			Expect(again).To(BeTrue(), "after two minutes on an open fabric, not all paths are routed")
		}, SpecTimeout(6*time.Minute))

		It("finds that the fabric only carries smaller packets before a stream has stalled for long", func(ctx context.Context) {
			expectRoutedAgain(ctx)
			const seconds = 10
			var machine control
			list := []flow{machine.flow(a.byRuntime("a1"), seconds)}
			for i, f := range families {
				address, port := a.address("b1", f.is4), firstStreamPort+2*i
				list = append(list,
					flow{"small segments by " + f.name, a.byRuntime("a1"), iperf(address, port, seconds) + received + steadily, machine.stalledBriefly},
					flow{"full segments by " + f.name, a.byRuntime("a2"), iperf(address, port+1, seconds) + received + " -b 20M", machine.stalledBriefly},
				)
			}
			expectUnnoticed(ctx, list, func() {
				time.Sleep(whileNothingChanges)
				setFabric(ctx, "mtu", "1400")
			})
			a.expectUnharmed(ctx)
			for _, f := range families {
				for from, to := range map[string]string{"a1": "b1", "b1": "a1", "c1": "a2"} {
					long := askWeb("long TCP to "+to, a.address(to, f.is4), webPort, "/echo?msg="+longText, longText)
					expectAnswers(ctx, a.in(from), []ask{long})
				}
			}
			for _, node := range local.nodes {
				// What a path carries is 1,400 bytes, less what a tunnel adds, and no less than IPv6 needs.
				Eventually(explanations).WithArguments(ctx, Default, node.name).
					Should(ContainElement(MatchRegexp(`\b(1,?400|1,?3\d\d|1,?2[89]\d)\b`)), "%s does not say what its paths carry", node.name)
			}
		}, SpecTimeout(6*time.Minute))
	})
}

// whileNothingChanges is how long traffic goes on before the fabric changes under it.
const whileNothingChanges = 3 * time.Second

// received makes iperf3's server the sender, so that the client tells every half second how many bytes reached it: what is
// sent can wait in a buffer.
const received = " -R -i 0.5"

// stalledBriefly lets a stream be without bytes for as long as a path may take to be found, a second, and TCP to notice: it
// sends again 0.2, 0.6 and 1.4 s after what was lost first, and what it sends at 1.4 s is told by the node what the path
// carries. That can empty two half seconds, and three where what comes then comes a little late. A path that is found after more
// than 1.4 s would empty five at least: four are let pass. What the machine stalled meanwhile is not the path's.
func (c *control) stalledBriefly(output string) error {
	return stalledFor(output, 2*time.Second+c.stalled(2*time.Second))
}

// lostForASecond lets as many of 1,000 pings in a second be lost as are sent while a path is found.
func (c *control) lostForASecond(output string) error {
	sent, came, err := countPings(output)
	most := int((time.Second + c.stalled(2*time.Second)).Milliseconds())
	GinkgoWriter.Printf("%d of %d pings were lost, and %d might be\n", sent-came, sent, most)
	if err == nil && sent-came > most {
		err = fmt.Errorf("%d of %d pings were lost, and %d were allowed to", sent-came, sent, most)
	}
	return err
}

// setFabric restricts what the network between nodes delivers, or opens it, until the spec ends.
func setFabric(ctx context.Context, state ...string) {
	GinkgoHelper()
	DeferCleanup(func(ctx context.Context) { expectFabric(ctx, "open") })
	expectFabric(ctx, state...)
}

func expectFabric(ctx context.Context, state ...string) {
	GinkgoHelper()
	_, err := local.run(ctx, local.script, append([]string{"fabric"}, state...)...)
	Expect(err).NotTo(HaveOccurred())
}

// expectRoutedAgain waits for as long as a fabric that was restored needs to be trusted again.
func expectRoutedAgain(ctx context.Context) {
	GinkgoHelper()
	Eventually(routedEverywhere).WithArguments(ctx).WithTimeout(2 * time.Minute).Should(BeTrue())
}

func routedEverywhere(ctx context.Context) bool {
	GinkgoHelper()
	for _, node := range local.nodes {
		if pathsOf(ctx, Default, node.name) != pathsWanted(podnetv1alpha1.ModeRouted, len(local.nodes)-1) {
			return false
		}
	}
	return true
}

// expectOverlayEverywhere waits until all nodes say that they take the overlay.
func expectOverlayEverywhere(ctx context.Context) {
	GinkgoHelper()
	for _, node := range local.nodes {
		expectPaths(ctx, node.name, podnetv1alpha1.ModeOverlay, len(local.nodes)-1)
	}
}

// explanations are what a node's agent says of its paths.
func explanations(ctx context.Context, g Gomega, name string) []string {
	status := nodeNetwork(ctx, g, name).Status
	var out []string
	for _, kind := range []string{podnetv1alpha1.ConditionPathsProven, podnetv1alpha1.ConditionPathMTUReduced} {
		if c := meta.FindStatusCondition(status.Conditions, kind); c != nil {
			out = append(out, c.Message)
		}
	}
	for _, exception := range status.Paths.Exceptions {
		out = append(out, exception.Message)
	}
	return out
}
