package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// endpointSpecs are about addresses of nodes that change.
func endpointSpecs(a *actors) {
	It("replaces the addresses of a node under traffic without a loss", Label("budget:2m"), func(ctx context.Context) {
		old := local.nodes[1]
		other := old
		for _, address := range []*string{&other.v4, &other.v6} {
			bytes := netip.MustParseAddr(*address).AsSlice()
			bytes[len(bytes)-1] += 100
			replaced, _ := netip.AddrFromSlice(bytes)
			*address = replaced.String()
		}
		agent := agentOf(ctx, Default, old.name)
		Expect(agent).NotTo(BeNil())
		setMode(ctx, podnetv1alpha1.ModeOverlay)
		_, err := local.onNode(ctx, old.name, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx context.Context) {
			_, err := local.onNode(ctx, old.name, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0")
			Expect(err).NotTo(HaveOccurred())
		})
		done := false
		a.under(ctx, 80, func() {
			if !done {
				replaceAddresses(ctx, old, other)
				setMode(ctx, podnetv1alpha1.ModeRouted)
				replaceAddresses(ctx, other, old)
			}
			done = true
			time.Sleep(time.Second)
		})
		now := agentOf(ctx, Default, old.name)
		Expect(now).NotTo(BeNil())
		Expect(now.UID).To(Equal(agent.UID))
		Expect(now.Status.ContainerStatuses[0].RestartCount).To(Equal(agent.Status.ContainerStatuses[0].RestartCount))
		setMode(ctx, podnetv1alpha1.ModeOverlay)
		expectReady(ctx)
	}, SpecTimeout(6*time.Minute))
}

// replaceAddresses gives a node other addresses as docs/howto/change-node-address.md asks for it.
func replaceAddresses(ctx context.Context, from, to node) {
	GinkgoHelper()
	ip := func(verb string, n node) {
		GinkgoHelper()
		for _, address := range [][]string{{n.v4 + "/24"}, {n.v6 + "/64", "nodad"}} {
			if verb == "del" {
				address = address[:1]
			}
			_, err := local.onNode(ctx, n.name, append([]string{"ip", "address", verb, "dev", "eth0"}, address...)...)
			Expect(err).NotTo(HaveOccurred())
		}
	}
	began := time.Now()
	ip("add", to)
	_, err := local.run(ctx, local.script, "node-ip", to.name, to.v4+","+to.v6)
	Expect(err).NotTo(HaveOccurred())
	Eventually(func(g Gomega) {
		for _, subnet := range subnetsOf(ctx, g, to.name) {
			g.Expect(subnet.Spec.Endpoints).To(ConsistOf(to.v4, to.v6), subnet.Name)
		}
	}).Should(Succeed())
	published := time.Since(began)
	// The node goes over to it when all others have heard.
	Eventually(func(g Gomega) {
		tunnel, err := local.onNode(ctx, to.name, "ip", "-details", "link", "show", "vxpodnet4")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(strings.Fields(tunnel)).To(ContainElement(to.v4))
	}).Should(Succeed())
	AddReportEntry("the other address", fmt.Sprintf("published after %s, sent from after %s", published, time.Since(began)))
	ip("del", from)
	// The agent had connections from the address that went.
	expectHears(ctx, to.name)
}

// expectHears checks that a node's agent answers to a change within seconds.
func expectHears(ctx context.Context, name string) {
	GinkgoHelper()
	mode := &podnetv1alpha1.RouteMode{
		ObjectMeta: metav1.ObjectMeta{Name: "test-hears"},
		Spec: podnetv1alpha1.RouteModeSpec{
			Between: []metav1.LabelSelector{{}}, Mode: network(ctx, Default).Spec.RouteMode,
		},
	}
	Expect(kube.Create(ctx, mode)).To(Succeed())
	Eventually(func(g Gomega) {
		g.Expect(nodeNetwork(ctx, g, name).Status.RouteModes).To(ContainElement(HaveField("Name", mode.Name)))
	}).WithTimeout(20 * time.Second).Should(Succeed())
	Expect(kube.Delete(ctx, mode)).To(Succeed())
}
