package cluster

import (
	"context"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// The namespaces of the actors, one for each installation.
const pointToPoint, bridge, again = "podnet-point-to-point", "podnet-bridge", "podnet-again"

// The order matters: what is uninstalled from one attachment is what the next one is installed on.
var _ = Describe("podnet", Ordered, ContinueOnFailure, func() {
	Context("with pods attached point to point", func() {
		a := &actors{}

		It("says how many blocks there are when a node gets none, and goes on when a range is added", func(ctx context.Context) {
			install(ctx, podnetv1alpha1.PointToPoint, narrowRanges, removeObjects)
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
		policySpecs(a)
		switchSpecs(a)
		fabricSpecs(a)
		faultSpecs(a)
		addressSpecs(a)
		endpointSpecs(a)
		helmTestSpec()
		uninstallSpec(a)
	})

	Context("with pods attached to a bridge", func() {
		a := &actors{}

		It("installs where another attachment was before", func(ctx context.Context) {
			removeNamespace(ctx, moved)
			install(ctx, podnetv1alpha1.Bridge, wideRanges, keepObjects)
			expectReady(ctx)
			// What is left of pods that lost their network can go now.
			expectNamespaceGone(ctx, moved)
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
		policySpecs(a)
		modeSwitchSpec(a)
		helmTestSpec()
		reinstallSpecs(a)
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
	It("leaves nothing when it is uninstalled, and every node as it was", func(ctx context.Context) {
		uninstall(ctx)
		expectPristine(ctx)
		Expect(kinds(ctx)).To(BeEmpty())
		removeNamespace(ctx, a.namespace)
	}, SpecTimeout(8*time.Minute))
}

// reinstallSpecs uninstall podnet, keep its objects, and install it again.
func reinstallSpecs(a *actors) {
	var before map[string][]netip.Prefix

	It("keeps its objects if asked to when it is uninstalled, and leaves every node as it was", func(ctx context.Context) {
		before = allBlocks(ctx)
		uninstall(ctx)
		expectPristine(ctx)
		Expect(allBlocks(ctx)).To(Equal(before))
		removeNamespace(ctx, a.namespace)
	}, SpecTimeout(8*time.Minute))

	It("serves the objects that were kept when it is installed again", func(ctx context.Context) {
		install(ctx, podnetv1alpha1.Bridge, wideRanges, removeObjects)
		expectReady(ctx)
		expectNamespaceGone(ctx, a.namespace)
		Expect(allBlocks(ctx)).To(Equal(before))
		*a = *startActors(ctx, again)
		for _, f := range families {
			expectAnswers(ctx, a.in("a1"), append(a.askActor("a2", f.is4), a.askActor("b1", f.is4)...))
		}
	}, SpecTimeout(8*time.Minute))
}

// allBlocks reads which node holds which blocks.
func allBlocks(ctx context.Context) map[string][]netip.Prefix {
	GinkgoHelper()
	out := map[string][]netip.Prefix{}
	for _, node := range local.nodes {
		out[node.name] = blocksOf(ctx, Default, node.name)
	}
	return out
}
