package cluster

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// The namespaces of the actors, by their attachment.
const pointToPoint, bridge = "podnet-point-to-point", "podnet-bridge"

// The order matters: what is uninstalled from one attachment is what the next one is installed on.
var _ = Describe("podnet", Ordered, ContinueOnFailure, func() {
	Context("with pods attached point to point", func() {
		a := &actors{}

		It("says how many blocks there are when a node gets none, and goes on when a range is added", func(ctx context.Context) {
			install(ctx, podnetv1alpha1.PointToPoint, narrowRanges)
			exhaustion(ctx)
		}, SpecTimeout(5*time.Minute))

		It("starts pods on every node", func(ctx context.Context) {
			*a = *startActors(ctx, pointToPoint)
		}, SpecTimeout(3*time.Minute))

		nodeSpecs()
		for _, mode := range []podnetv1alpha1.Mode{podnetv1alpha1.ModeOverlay, podnetv1alpha1.ModeRouted} {
			Context("on paths "+string(mode), func() {
				pathSpecs(a, podnetv1alpha1.PointToPoint, mode)
				serviceSpecs(a)
				outsideSpecs(a)
			})
		}
		podSpecs(a)
		switchSpecs(a)
		faultSpecs(a)
		helmTestSpec()
		uninstallSpec(a)
	})

	Context("with pods attached to a bridge", func() {
		a := &actors{}

		It("installs where another attachment was before", func(ctx context.Context) {
			removeNamespace(ctx, pointToPoint)
			install(ctx, podnetv1alpha1.Bridge, wideRanges)
			expectReady(ctx)
			// What is left of pods that lost their network can go now.
			expectNamespaceGone(ctx, pointToPoint)
			renewDNS(ctx)
		}, SpecTimeout(5*time.Minute))

		It("starts pods on every node", func(ctx context.Context) {
			*a = *startActors(ctx, bridge)
		}, SpecTimeout(3*time.Minute))

		nodeSpecs()
		for _, mode := range []podnetv1alpha1.Mode{podnetv1alpha1.ModeOverlay, podnetv1alpha1.ModeRouted} {
			Context("on paths "+string(mode), func() {
				pathSpecs(a, podnetv1alpha1.Bridge, mode)
				serviceSpecs(a)
				outsideSpecs(a)
			})
		}
		modeSwitchSpec(a)
		helmTestSpec()
		uninstallSpec(a)
	})
})

// helmTestSpec runs the test that the chart brings.
func helmTestSpec() {
	It("passes the chart's own test", func(ctx context.Context) {
		_, err := local.helm(ctx, "test", releaseName, "--namespace", releaseNamespace, "--logs", "--timeout", "3m")
		Expect(err).NotTo(HaveOccurred())
	}, SpecTimeout(4*time.Minute))
}

// uninstallSpec uninstalls under running pods, as a user would who has had enough.
func uninstallSpec(a *actors) {
	It("leaves every node as it was when it is uninstalled", func(ctx context.Context) {
		uninstall(ctx)
		for _, node := range local.nodes {
			Eventually(func(g Gomega) {
				now, err := takeSnapshot(ctx, node.name)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(now.differences(pristine[node.name])).To(BeEmpty(), node.name)
			}).WithTimeout(30 * time.Second).Should(Succeed())
		}
		removeNamespace(ctx, a.namespace)
	}, SpecTimeout(8*time.Minute))
}
