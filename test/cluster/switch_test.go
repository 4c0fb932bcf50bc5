package cluster

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// enoughChanges is how many changes are made before paths count as changing without a loss.
const enoughChanges = 10

// modeSwitchSpec is about paths that change under traffic.
func modeSwitchSpec(a *actors) {
	It("changes the mode of all paths under running pods without a loss", func(ctx context.Context) {
		a.underEnough(ctx, func() { setMode(ctx, otherMode(ctx)) })
	}, SpecTimeout(10*time.Minute))
}

// otherMode is what the PodNetwork does not ask for now, of Routed and Overlay.
func otherMode(ctx context.Context) podnetv1alpha1.Mode {
	GinkgoHelper()
	if network(ctx, Default).Spec.RouteMode == podnetv1alpha1.ModeOverlay {
		return podnetv1alpha1.ModeRouted
	}
	return podnetv1alpha1.ModeOverlay
}

// nodeSwitchSpec is about the paths of one node after another, which change under traffic.
func nodeSwitchSpec(a *actors) {
	It("changes the mode of one node's paths after another's under running pods without a loss", func(ctx context.Context) {
		setMode(ctx, podnetv1alpha1.ModeRouted)
		mode := &podnetv1alpha1.RouteMode{ObjectMeta: metav1.ObjectMeta{Name: "one-node"}}
		DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(kube.Delete(ctx, mode))).To(Succeed()) })
		next := 0
		a.underEnough(ctx, func() {
			// After each node had its turn comes none.
			turn := next % (len(local.nodes) + 1)
			next++
			switch {
			case turn == len(local.nodes):
				Expect(kube.Delete(ctx, mode)).To(Succeed())
				expectOverlayOf(ctx, "")
				return
			case turn == 0:
				mode.ResourceVersion, mode.UID = "", ""
				mode.Spec = overlayOf(local.nodes[turn].name)
				Expect(kube.Create(ctx, mode)).To(Succeed())
			default:
				before := mode.DeepCopy()
				mode.Spec = overlayOf(local.nodes[turn].name)
				Expect(kube.Patch(ctx, mode, client.MergeFrom(before))).To(Succeed())
			}
			expectOverlayOf(ctx, local.nodes[turn].name)
		})
	}, SpecTimeout(10*time.Minute))
}

// underEnough makes changes while steady traffic goes on, as often as it takes: how long one lasts is podnet's affair.
func (a *actors) underEnough(ctx context.Context, change func()) {
	GinkgoHelper()
	changes := 0
	for changes < enoughChanges {
		changes += a.under(ctx, 15, change)
	}
	AddReportEntry("changes", changes)
}

// overlayOf asks for the overlay between one node and all others.
func overlayOf(node string) podnetv1alpha1.RouteModeSpec {
	return podnetv1alpha1.RouteModeSpec{
		Between: []metav1.LabelSelector{{MatchLabels: map[string]string{corev1.LabelHostname: node}}, {}},
		Mode:    podnetv1alpha1.ModeOverlay,
	}
}

// expectOverlayOf waits until all paths are routed but those from and to one node, or all for an empty name.
func expectOverlayOf(ctx context.Context, name string) {
	GinkgoHelper()
	others := len(local.nodes) - 1
	for _, node := range local.nodes {
		routed := others - 1
		switch name {
		case node.name:
			routed = 0
		case "":
			routed = others
		}
		expectPaths(ctx, node.name, podnetv1alpha1.ModeRouted, routed)
	}
}

// switchSpecs are about which paths are taken.
func switchSpecs(a *actors) {
	// What is lost here is lost for want of a processor, and so would be what the next specs find lost.
	It("loses nothing of steady traffic while nothing changes", func(ctx context.Context) {
		expectUnnoticed(ctx, a.flows(15), func() {})
	}, SpecTimeout(time.Minute))

	modeSwitchSpec(a)
	nodeSwitchSpec(a)

	It("changes the paths between those nodes that a RouteMode selects", func(ctx context.Context) {
		const rack = "test.podnet.dev/rack"
		setMode(ctx, podnetv1alpha1.ModeOverlay)
		for i, node := range local.nodes {
			label(ctx, node.name, rack, map[bool]string{true: "a", false: "b"}[i < 2])
		}
		mode := &podnetv1alpha1.RouteMode{
			ObjectMeta: metav1.ObjectMeta{Name: "within-rack-a"},
			Spec: podnetv1alpha1.RouteModeSpec{
				Between: []metav1.LabelSelector{{MatchLabels: map[string]string{rack: "a"}}},
				Mode:    podnetv1alpha1.ModeRouted,
			},
		}
		Expect(kube.Create(ctx, mode)).To(Succeed())
		expectPaths(ctx, local.nodes[0].name, podnetv1alpha1.ModeRouted, 1)
		expectPaths(ctx, local.nodes[1].name, podnetv1alpha1.ModeRouted, 1)
		expectPaths(ctx, local.nodes[2].name, podnetv1alpha1.ModeRouted, 0)
		for _, f := range families {
			Expect(deviceTo(ctx, local.nodes[0].name, a.address("b1", f.is4))).To(Equal("eth0"), f.name)
			Expect(deviceTo(ctx, local.nodes[0].name, a.address("c1", f.is4))).NotTo(Equal("eth0"), f.name)
			expectAnswers(ctx, a.in("a1"), append(a.askActor("b1", f.is4), a.askActor("c1", f.is4)...))
		}
		Eventually(func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(mode), mode)).To(Succeed())
			g.Expect(mode.Status.NodesSelected).To(HaveValue(BeEquivalentTo(2)))
			g.Expect(mode.Status.NodesConverged).To(HaveValue(BeEquivalentTo(2)))
			g.Expect(meta.IsStatusConditionTrue(mode.Status.Conditions, podnetv1alpha1.ConditionConverged)).To(BeTrue())
			g.Expect(meta.IsStatusConditionFalse(mode.Status.Conditions, podnetv1alpha1.ConditionOverridden)).To(BeTrue())
		}).Should(Succeed())

		By("making a stronger one that asks for another mode")
		stronger := &podnetv1alpha1.RouteMode{
			ObjectMeta: metav1.ObjectMeta{Name: "everywhere"},
			Spec: podnetv1alpha1.RouteModeSpec{
				Between: []metav1.LabelSelector{{}}, Mode: podnetv1alpha1.ModeOverlay, Priority: ptr.To(int32(1)),
			},
		}
		Expect(kube.Create(ctx, stronger)).To(Succeed())
		expectPaths(ctx, local.nodes[0].name, podnetv1alpha1.ModeRouted, 0)
		Eventually(func(g Gomega) {
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(mode), mode)).To(Succeed())
			overridden := meta.FindStatusCondition(mode.Status.Conditions, podnetv1alpha1.ConditionOverridden)
			g.Expect(overridden).NotTo(BeNil())
			g.Expect(string(overridden.Status)).To(Equal("True"))
			g.Expect(overridden.Message).To(ContainSubstring("everywhere"))
		}).Should(Succeed())
		Expect(kube.Delete(ctx, stronger)).To(Succeed())
		expectPaths(ctx, local.nodes[0].name, podnetv1alpha1.ModeRouted, 1)

		Expect(kube.Delete(ctx, mode)).To(Succeed())
		for _, node := range local.nodes {
			expectPaths(ctx, node.name, podnetv1alpha1.ModeRouted, 0)
			label(ctx, node.name, rack, "")
		}
	}, SpecTimeout(3*time.Minute))
}

// label sets a label of a node, or takes it away for an empty value.
func label(ctx context.Context, name, key, value string) {
	GinkgoHelper()
	n := &corev1.Node{}
	Expect(kube.Get(ctx, client.ObjectKey{Name: name}, n)).To(Succeed())
	before := n.DeepCopy()
	if value == "" {
		delete(n.Labels, key)
	} else {
		n.Labels[key] = value
	}
	Expect(kube.Patch(ctx, n, client.MergeFrom(before))).To(Succeed())
}
