package envtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/firstnetwork"
)

const (
	ownChart = "../../charts/podnet"
	// chartWithNetwork is what the chart was as long as the PodNetwork was a part of the release.
	chartWithNetwork = "testdata/chart-with-network"
	chartNamespace   = "podnet-system"
)

// helmCluster is an API server that knows nothing of podnet before Helm comes.
type helmCluster struct {
	client.Client
	config     *rest.Config
	kubeconfig string
	helm       string
}

func newHelmCluster(ctx context.Context) *helmCluster {
	GinkgoHelper()
	env := &envtest.Environment{ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: time.Minute}
	DeferCleanup(env.Stop)
	c := &helmCluster{kubeconfig: filepath.Join(GinkgoT().TempDir(), "kubeconfig")}
	var err error
	c.config, err = env.Start()
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(c.kubeconfig, env.KubeConfig, 0o600)).To(Succeed())
	c.Client, err = client.New(c.config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	c.helm = helmBinary(ctx)
	return c
}

// helmBinary builds Helm where it was not built yet.
func helmBinary(ctx context.Context) string {
	GinkgoHelper()
	output, err := exec.CommandContext(ctx, "../../hack/cluster/cluster", "bin", "helm").Output()
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(string(output))
}

// run executes Helm, without hooks: nothing runs their Jobs here.
func (c *helmCluster) run(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, c.helm, append(args, "--namespace", chartNamespace)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	output, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, output)
	}
	return string(output), err
}

func (c *helmCluster) must(ctx context.Context, args ...string) string {
	GinkgoHelper()
	output, err := c.run(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return output
}

// objects reads a stream of manifests.
func objects(manifests string) []*unstructured.Unstructured {
	GinkgoHelper()
	var found []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		Expect(err).NotTo(HaveOccurred())
		if len(object.Object) > 0 {
			found = append(found, object)
		}
	}
}

// makeNetwork does what the release's hook does, with the rights that the hook has, and returns what it prints.
func (c *helmCluster) makeNetwork(ctx context.Context) string {
	GinkgoHelper()
	out := gbytes.NewBuffer()
	var job *batchv1.Job
	var rights []client.Object
	defer func() {
		for _, object := range rights {
			Expect(c.Delete(ctx, object)).To(Succeed())
		}
	}()
	for _, object := range objects(c.must(ctx, "get", "hooks", "podnet")) {
		if object.GetName() != firstnetwork.FieldOwner {
			continue
		}
		Expect(object.GetAnnotations()).To(HaveKeyWithValue("helm.sh/hook", "post-install,post-upgrade"))
		if object.GetKind() == "Job" {
			job = &batchv1.Job{}
			Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, job)).To(Succeed())
			continue
		}
		Expect(c.Create(ctx, object)).To(Succeed())
		rights = append(rights, object)
	}
	Expect(job).NotTo(BeNil(), "the release has no hook that makes the network")
	container := job.Spec.Template.Spec.Containers[0]
	Expect(container.Command).To(HaveExactElements("/manager", "create-network"))
	spec, found := strings.CutPrefix(container.Args[0], "--spec=")
	Expect(found).To(BeTrue(), container.Args[0])

	restricted := rest.CopyConfig(c.config)
	restricted.Impersonate.UserName = "system:serviceaccount:" + chartNamespace + ":" + job.Spec.Template.Spec.ServiceAccountName
	user, err := client.New(restricted, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(firstnetwork.Run(ctx, firstnetwork.Config{Client: user, Spec: []byte(spec), Timeout: time.Minute, Out: out})).To(Succeed())
	return string(out.Contents())
}

func (c *helmCluster) network(ctx context.Context) *podnetv1alpha1.PodNetwork {
	GinkgoHelper()
	network := &podnetv1alpha1.PodNetwork{}
	Expect(c.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(Succeed())
	return network
}

func (c *helmCluster) ranges(ctx context.Context) []string {
	GinkgoHelper()
	var found []string
	for _, r := range c.network(ctx).Spec.Ranges {
		found = append(found, r.CIDR)
	}
	return found
}

// replaceRange drains a range and removes it, as its owner does with kubectl, after another was added.
func (c *helmCluster) replaceRange(ctx context.Context, from, to string) {
	GinkgoHelper()
	change := func(edit func(*podnetv1alpha1.PodNetwork)) {
		GinkgoHelper()
		network := c.network(ctx)
		before := network.DeepCopy()
		edit(network)
		Expect(c.Patch(ctx, network, client.MergeFrom(before), client.FieldOwner("kubectl-edit"))).To(Succeed())
	}
	change(func(n *podnetv1alpha1.PodNetwork) {
		n.Spec.Ranges[0].State = podnetv1alpha1.RangeDraining
		n.Spec.Ranges = append(n.Spec.Ranges, podnetv1alpha1.Range{CIDR: to})
	})
	network := c.network(ctx)
	none := int64(0)
	network.Status.Ranges = []podnetv1alpha1.RangeStatus{{CIDR: from, State: podnetv1alpha1.RangeDraining, BlocksAllocated: &none}}
	Expect(c.Status().Update(ctx, network)).To(Succeed())
	change(func(n *podnetv1alpha1.PodNetwork) { n.Spec.Ranges = n.Spec.Ranges[1:] })
	Expect(c.ranges(ctx)).To(HaveExactElements(to))
}

const (
	firstRange  = "10.244.0.0/16"
	secondRange = "10.248.0.0/16"
)

var _ = Describe("The chart", Ordered, func() {
	var cluster *helmCluster

	BeforeAll(func(ctx context.Context) { cluster = newHelmCluster(ctx) })

	install := func(ctx context.Context, chart string) {
		GinkgoHelper()
		cluster.must(ctx, "install", "podnet", chart, "--no-hooks", "--create-namespace", "--set", "network.ranges[0].cidr="+firstRange)
	}
	// removed takes the release away, and the network that it leaves.
	removed := func(ctx context.Context) {
		cluster.must(ctx, "uninstall", "podnet", "--no-hooks")
		Expect(client.IgnoreNotFound(cluster.Delete(ctx, podNetwork()))).To(Succeed())
	}

	It("makes the network at the installation", func(ctx context.Context) {
		install(ctx, ownChart)
		DeferCleanup(removed)
		Expect(cluster.makeNetwork(ctx)).To(ContainSubstring("is made"))
		Expect(cluster.ranges(ctx)).To(HaveExactElements(firstRange))
		Expect(cluster.network(ctx).Labels).To(BeEmpty(), "by its labels, those who deploy charts take an object for theirs")
		for _, object := range objects(cluster.must(ctx, "get", "manifest", "podnet")) {
			Expect(object.GetKind()).NotTo(Equal("PodNetwork"))
		}
	})

	It("never brings back a range that was drained and removed", func(ctx context.Context) {
		install(ctx, ownChart)
		DeferCleanup(removed)
		cluster.makeNetwork(ctx)
		cluster.replaceRange(ctx, firstRange, secondRange)

		for _, arguments := range [][]string{
			{"upgrade", "podnet", ownChart, "--no-hooks", "--set", "network.ranges[0].cidr=" + firstRange},
			{"upgrade", "podnet", ownChart, "--no-hooks", "--reset-then-reuse-values"},
			{"upgrade", "podnet", ownChart, "--no-hooks", "--reuse-values", "--set", "manager.logLevel=debug"},
			{"upgrade", "podnet", ownChart, "--no-hooks", "--reuse-values", "--force-conflicts"},
			{"rollback", "podnet", "1", "--no-hooks"},
		} {
			output := cluster.must(ctx, arguments...)
			Expect(cluster.ranges(ctx)).To(HaveExactElements(secondRange), strings.Join(arguments, " "))
			if arguments[0] == "upgrade" {
				Expect(output).To(ContainSubstring("addresses of %s, and stays as it is", secondRange))
				Expect(output).To(MatchRegexp(`These values differ from it, and change nothing:\s+network.ranges\s`))
			}
			Expect(cluster.makeNetwork(ctx)).To(And(
				ContainSubstring("exists already, and stays as it is"),
				ContainSubstring("the values have the range %s, and the network has not", firstRange),
				ContainSubstring("the network has the range %s, and the values have not", secondRange)))
			Expect(cluster.ranges(ctx)).To(HaveExactElements(secondRange), strings.Join(arguments, " "))
		}
	})

	It("is rendered without the network, for those who apply what they see", func(ctx context.Context) {
		install(ctx, ownChart)
		DeferCleanup(removed)
		cluster.makeNetwork(ctx)
		cluster.replaceRange(ctx, firstRange, secondRange)
		for _, known := range [][]string{nil, {"--api-versions", "podnet.dev/v1alpha1/PodNetwork"}} {
			rendered := cluster.must(ctx, append([]string{"template", "podnet", ownChart, "--set", "network.ranges[0].cidr=" + firstRange}, known...)...)
			for _, object := range objects(rendered) {
				Expect(object.GetKind()).NotTo(Equal("PodNetwork"))
			}
		}
	})

	It("neither removes nor resets the network of a release that it was a part of", func(ctx context.Context) {
		install(ctx, ownChart)
		cluster.must(ctx, "uninstall", "podnet", "--no-hooks")
		for _, reuse := range []string{"--reuse-values", "--reset-then-reuse-values"} {
			install(ctx, chartWithNetwork)
			cluster.replaceRange(ctx, firstRange, secondRange)
			uid := cluster.network(ctx).UID

			cluster.must(ctx, "upgrade", "podnet", ownChart, "--no-hooks", reuse)
			Expect(cluster.ranges(ctx)).To(HaveExactElements(secondRange))
			Expect(cluster.makeNetwork(ctx)).To(ContainSubstring("no longer belongs to a Helm release"))
			network := cluster.network(ctx)
			Expect(network.UID).To(Equal(uid))
			Expect(network.Labels).To(HaveKeyWithValue("app.kubernetes.io/managed-by", "podnet"))
			Expect(network.Annotations).NotTo(HaveKey("meta.helm.sh/release-name"))

			By("refusing to go back to the release that held it, rather than to write its ranges")
			_, err := cluster.run(ctx, "rollback", "podnet", "1", "--no-hooks")
			Expect(err).To(MatchError(And(ContainSubstring("conflict"), ContainSubstring("app.kubernetes.io/managed-by"))))
			Expect(cluster.ranges(ctx)).To(HaveExactElements(secondRange))
			cluster.must(ctx, "upgrade", "podnet", ownChart, "--no-hooks", "--reset-then-reuse-values")
			Expect(cluster.makeNetwork(ctx)).NotTo(ContainSubstring("no longer belongs"))
			Expect(cluster.ranges(ctx)).To(HaveExactElements(secondRange))
			removed(ctx)
		}
	})

	It("leaves a network alone that somebody keeps in a chart of their own", func(ctx context.Context) {
		install(ctx, ownChart)
		DeferCleanup(removed)
		network := podNetwork(blockRange(secondRange, 0))
		network.Labels = map[string]string{"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "platform-1.2.3"}
		Expect(cluster.Create(ctx, network)).To(Succeed())
		cluster.makeNetwork(ctx)
		Expect(cluster.network(ctx).Labels).To(Equal(network.Labels))
		Expect(cluster.ranges(ctx)).To(HaveExactElements(secondRange))
	})

	It("makes no network of old values where the nodes' blocks are of a newer one", func(ctx context.Context) {
		install(ctx, ownChart)
		DeferCleanup(removed)
		held := nodeSubnet("10.248.0.0-24", "10.248.0.0/24", "node-1")
		Expect(cluster.Create(ctx, held)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(cluster.Delete(ctx, held)).To(Succeed()) })
		err := firstnetwork.Run(ctx, firstnetwork.Config{
			Client: cluster, Spec: []byte(`{"ranges":[{"cidr":"10.244.0.0/16"}]}`), Timeout: time.Minute, Out: GinkgoWriter,
		})
		Expect(err).To(MatchError(ContainSubstring("node node-1 holds the block 10.248.0.0/24")))
		Expect(cluster.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, podNetwork())).NotTo(Succeed())
		Expect(firstnetwork.Run(ctx, firstnetwork.Config{
			Client: cluster, Spec: []byte(`{"ranges":[{"cidr":"10.248.0.0/16"}]}`), Timeout: time.Minute, Out: GinkgoWriter,
		})).To(Succeed())
	})

	It("says in time what the API server answers where its kinds are not served", func(ctx context.Context) {
		restricted := rest.CopyConfig(cluster.config)
		restricted.Impersonate.UserName = "nobody"
		restricted.QPS = -1 // A client that holds itself back says that, and not what was answered.
		user, err := client.New(restricted, client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())
		Expect(firstnetwork.Run(ctx, firstnetwork.Config{
			Client: user, Spec: []byte(`{"ranges":[{"cidr":"10.244.0.0/16"}]}`), Timeout: 3 * time.Second, Out: GinkgoWriter,
		})).To(MatchError(And(ContainSubstring("within 3s"),
			// The first where a spec before this one has installed the kinds.
			Or(ContainSubstring("forbidden"), ContainSubstring("no matches for kind")))))
	})
})

// renderedSpec is the spec of the PodNetwork that the chart would make of these values.
func renderedSpec(ctx context.Context, helm string, network map[string]any) ([]byte, error) {
	GinkgoHelper()
	values, err := json.Marshal(map[string]any{"network": network})
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "values.json")
	Expect(os.WriteFile(file, values, 0o600)).To(Succeed())
	command := exec.CommandContext(ctx, helm, "template", "podnet", ownChart, "--values", file, "--show-only", "templates/network/create-network.yaml")
	output, err := command.CombinedOutput()
	if err != nil {
		return nil, errors.New(string(output))
	}
	for _, object := range objects(string(output)) {
		if object.GetKind() == "Job" {
			job := &batchv1.Job{}
			Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, job)).To(Succeed())
			return []byte(strings.TrimPrefix(job.Spec.Template.Spec.Containers[0].Args[0], "--spec=")), nil
		}
	}
	return nil, errors.New("no Job in " + string(output))
}
