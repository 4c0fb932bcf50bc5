package envtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// commandsOf returns the commands of a page of the documentation that begin like
// that, in order.
func commandsOf(page, beginning string) []string {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	Expect(err).NotTo(HaveOccurred())
	var commands []string
	for i, part := range strings.Split(string(content), "```") {
		if text := strings.TrimSpace(part); i%2 == 1 && strings.HasPrefix(text, beginning) {
			commands = append(commands, text)
		}
	}
	return commands
}

var _ = Describe("The page on changing ranges", func() {
	const page = "howto/change-ranges.md"

	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	It("has commands that add, drain, remove and move ranges of a dual-stack network", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 0), blockRange("fd00:10:244::/48", 0)))).To(Succeed())
		configFile := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(os.WriteFile(configFile, kubeconfig, 0o600)).To(Succeed())
		run := func(command string) (string, error) {
			shell := exec.CommandContext(ctx, "bash", "-c", command)
			shell.Env = append(os.Environ(), "KUBECONFIG="+configFile, "PATH="+os.Getenv("KUBEBUILDER_ASSETS")+":"+os.Getenv("PATH"))
			out, err := shell.CombinedOutput()
			return string(out), err
		}
		network := &podnetv1alpha1.PodNetwork{}
		ranges := func() []string {
			GinkgoHelper()
			Expect(api.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(Succeed())
			var out []string
			for _, r := range network.Spec.Ranges {
				out = append(out, r.CIDR+" "+string(r.State))
			}
			return out
		}
		for _, block := range commandsOf(page, "kubectl get") {
			for _, command := range strings.Split(block, "\n") {
				if !strings.Contains(command, "| grep") {
					Expect(run(command)).Error().NotTo(HaveOccurred(), command)
				}
			}
		}
		patches := commandsOf(page, "kubectl patch")
		Expect(patches).To(HaveLen(4))
		add, drain, remove, move := patches[0], patches[1], patches[2], patches[3]

		Expect(run(add)).Error().NotTo(HaveOccurred())
		Expect(ranges()).To(Equal([]string{"10.244.0.0/16 Active", "fd00:10:244::/48 Active", "10.248.0.0/16 Active"}))
		Expect(run(drain)).Error().NotTo(HaveOccurred())
		Expect(ranges()).To(Equal([]string{"10.244.0.0/16 Draining", "fd00:10:244::/48 Active", "10.248.0.0/16 Active", "10.249.0.0/16 Active"}))

		network.Status.Ranges = []podnetv1alpha1.RangeStatus{{CIDR: "10.244.0.0/16", State: podnetv1alpha1.RangeDraining, BlocksAllocated: ptr.To[int64](2)}}
		Expect(api.Status().Update(ctx, network)).To(Succeed())
		out, err := run(remove)
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("range 10.244.0.0/16 cannot be removed: nodes hold blocks of it"))
		network.Status.Ranges[0].BlocksAllocated = ptr.To[int64](0)
		Expect(api.Status().Update(ctx, network)).To(Succeed())
		Expect(run(remove)).Error().NotTo(HaveOccurred())
		Expect(ranges()).To(Equal([]string{"fd00:10:244::/48 Active", "10.248.0.0/16 Active", "10.249.0.0/16 Active"}))
		_, err = run(remove)
		Expect(err).To(HaveOccurred(), "another range stands there now")
		Expect(ranges()).To(HaveLen(3))

		removeAll(ctx)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 0), blockRange("fd00:10:244::/48", 0)))).To(Succeed())
		Expect(run(move)).Error().NotTo(HaveOccurred())
		Expect(ranges()).To(Equal([]string{"10.244.0.0/16 Active", "fd00:10:244::/48 Active", "10.250.0.0/16 Active"}))
		Expect(network.Spec.Ranges[0].NodeSelector.MatchExpressions).To(ConsistOf(HaveField("Values", ConsistOf("a"))))
		Expect(network.Spec.Ranges[2].NodeSelector.MatchLabels).To(HaveKeyWithValue("topology.kubernetes.io/zone", "a"))
	})
})
