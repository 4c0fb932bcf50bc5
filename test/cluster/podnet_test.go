package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

const (
	releaseName      = "podnet"
	releaseNamespace = "podnet-system"
	// withoutAgent is a label that keeps the agent off a node.
	withoutAgent = "test.podnet.dev/without-agent"
)

// ranges with room for every node, and those with blocks for two nodes only.
var (
	wideRanges   = []podnetv1alpha1.Range{{CIDR: "10.244.0.0/16"}, {CIDR: "fd00:10:244::/48"}}
	narrowRanges = []podnetv1alpha1.Range{{CIDR: "10.246.0.0/23"}, {CIDR: "fd00:10:246::/63"}}
)

// What becomes of podnet's objects when it is uninstalled.
const (
	removeObjects = false
	keepObjects   = true
)

// install installs podnet by its chart. Whether it is ready is for the specs to see.
func install(ctx context.Context, attachment podnetv1alpha1.Attachment, ranges []podnetv1alpha1.Range, keep bool) {
	GinkgoHelper()
	values, err := json.Marshal(map[string]any{
		"crd": map[string]any{"keep": keep},
		"network": map[string]any{
			"attachment": attachment,
			"ranges":     ranges,
		},
		"agent": map[string]any{"affinity": corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: withoutAgent, Operator: corev1.NodeSelectorOpDoesNotExist}},
			}}},
		}}},
	})
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "values.json")
	Expect(os.WriteFile(file, values, 0o600)).To(Succeed())
	_, err = local.helm(ctx, "install", releaseName, filepath.Join(local.root, "charts", "podnet"),
		"--namespace", releaseNamespace, "--create-namespace", "--timeout", "4m", "--values", file)
	Expect(err).NotTo(HaveOccurred())
}

// uninstall removes the release, and returns when nothing of it runs any more.
func uninstall(ctx context.Context) {
	GinkgoHelper()
	_, err := local.helm(ctx, "uninstall", releaseName, "--namespace", releaseNamespace, "--wait", "--timeout", "5m")
	Expect(err).NotTo(HaveOccurred())
	Eventually(func(g Gomega) {
		pods := &corev1.PodList{}
		g.Expect(kube.List(ctx, pods, client.InNamespace(releaseNamespace))).To(Succeed())
		// The pod of `helm test` has ended, and stays for those who want to read its log.
		g.Expect(pods.Items).To(Or(BeEmpty(), HaveEach(HaveField("Status.Phase", corev1.PodSucceeded))))
	}).Should(Succeed())
}

// expectPristine waits until every node is as it was before podnet came.
func expectPristine(ctx context.Context) {
	GinkgoHelper()
	for _, node := range local.nodes {
		Eventually(func(g Gomega) {
			now, err := takeSnapshot(ctx, node.name)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(now.differences(pristine[node.name])).To(BeEmpty(), node.name)
		}).WithTimeout(30 * time.Second).Should(Succeed())
	}
}

// kinds lists the kinds of podnet that the API server knows.
func kinds(ctx context.Context) string {
	GinkgoHelper()
	output, err := local.kubectl(ctx, "api-resources", "--api-group", podnetv1alpha1.GroupVersion.Group, "--output", "name")
	Expect(err).NotTo(HaveOccurred())
	return output
}

// network reads the PodNetwork.
func network(ctx context.Context, g Gomega) *podnetv1alpha1.PodNetwork {
	n := &podnetv1alpha1.PodNetwork{}
	g.Expect(kube.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, n)).To(Succeed())
	return n
}

// nodeNetwork reads what a node's agent reports.
func nodeNetwork(ctx context.Context, g Gomega, name string) *podnetv1alpha1.NodeNetwork {
	n := &podnetv1alpha1.NodeNetwork{}
	g.Expect(kube.Get(ctx, client.ObjectKey{Name: name}, n)).To(Succeed())
	return n
}

// patchNetwork changes the PodNetwork as `kubectl patch` does.
func patchNetwork(ctx context.Context, change func(*podnetv1alpha1.PodNetworkSpec)) {
	GinkgoHelper()
	n := network(ctx, Default)
	before := n.DeepCopy()
	change(&n.Spec)
	Expect(kube.Patch(ctx, n, client.MergeFrom(before))).To(Succeed())
}

// setMode asks for a kind of path, and returns when every node has it to all others.
func setMode(ctx context.Context, mode podnetv1alpha1.Mode) {
	GinkgoHelper()
	patchNetwork(ctx, func(spec *podnetv1alpha1.PodNetworkSpec) { spec.RouteMode = mode })
	for _, node := range local.nodes {
		expectPaths(ctx, node.name, mode, len(local.nodes)-1)
	}
}

// expectPaths waits until a node has paths of this mode to so many others, and of the other mode to the rest, and none is down.
func expectPaths(ctx context.Context, name string, mode podnetv1alpha1.Mode, nodes int) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(pathsOf(ctx, g, name)).To(Equal(pathsWanted(mode, nodes)), "paths of %s", name)
	}).WithPolling(50 * time.Millisecond).Should(Succeed())
}

// pathsOf reads how many paths of which kind a node has, as pathsWanted words it.
func pathsOf(ctx context.Context, g Gomega, name string) string {
	paths := nodeNetwork(ctx, g, name).Status.Paths
	return fmt.Sprintf("%d routed, %d overlay, %d down", value(paths.Routed), value(paths.Overlay), value(paths.Down))
}

// pathsWanted words paths of this mode to so many other nodes, each of which has a block of both families. Auto is to end
// in routed paths.
func pathsWanted(mode podnetv1alpha1.Mode, nodes int) string {
	routed, overlay := 2*nodes, 2*(len(local.nodes)-1-nodes)
	if mode == podnetv1alpha1.ModeOverlay {
		routed, overlay = overlay, routed
	}
	return fmt.Sprintf("%d routed, %d overlay, 0 down", routed, overlay)
}

func value(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}

// expectReady waits until every node carries pods.
func expectReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		ready := meta.FindStatusCondition(network(ctx, g).Status.Conditions, podnetv1alpha1.ConditionReady)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(string(ready.Status)).To(Equal("True"), ready.Message)
		for _, node := range local.nodes {
			expectCondition(g, nodeConditions(ctx, g, node.name), corev1.NodeReady, corev1.ConditionTrue)
		}
	}).WithTimeout(2 * time.Minute).Should(Succeed())
}

// nodeConditions reads the conditions of a Node.
func nodeConditions(ctx context.Context, g Gomega, name string) []corev1.NodeCondition {
	n := &corev1.Node{}
	g.Expect(kube.Get(ctx, client.ObjectKey{Name: name}, n)).To(Succeed())
	return n.Status.Conditions
}

// expectCondition returns the condition of that type, which is to have that status.
func expectCondition(
	g Gomega, conditions []corev1.NodeCondition, kind corev1.NodeConditionType, status corev1.ConditionStatus,
) corev1.NodeCondition {
	for _, c := range conditions {
		if c.Type == kind {
			g.Expect(c.Status).To(Equal(status), "%s: %s", kind, c.Message)
			return c
		}
	}
	g.Expect(conditions).To(ContainElement(HaveField("Type", kind)))
	return corev1.NodeCondition{}
}
