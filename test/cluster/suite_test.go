package cluster

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var (
	// local is the cluster that the specs run on.
	local *localCluster
	// kube reads and writes without a cache.
	kube client.Client
	// pristine is what each node was like before podnet came, by the node's name.
	pristine map[string]snapshot
)

func TestCluster(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "podnet on a whole cluster")
}

var _ = BeforeSuite(func(ctx context.Context) {
	ctrl.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(90 * time.Second)
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	SetDefaultConsistentlyPollingInterval(250 * time.Millisecond)

	Expect(os.Geteuid()).To(BeZero(), "these tests run commands inside the nodes of the local cluster, which are namespaces:"+
		" run them as root, or leave them out by SKIP_TIERS=cluster")
	var err error
	local, err = findCluster(ctx)
	Expect(err).NotTo(HaveOccurred())

	config, err := clientcmd.BuildConfigFromFlags("", local.kubeconfig)
	Expect(err).NotTo(HaveOccurred())
	config.QPS, config.Burst = -1, -1
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(podnetv1alpha1.AddToScheme(scheme)).To(Succeed())
	Expect(policyv1alpha2.Install(scheme)).To(Succeed())
	kube, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	nodes := &corev1.NodeList{}
	Expect(kube.List(ctx, nodes)).To(Succeed(), "the cluster does not answer; `"+callAgain()+" status` says what runs")
	local.setNodes(nodes.Items)
	Expect(len(local.nodes)).To(BeNumerically(">=", 3), "these tests need three nodes: run `NODES=3 "+callAgain()+" up`")
	Expect(local.helm(ctx, "status", releaseName, "--namespace", releaseNamespace)).Error().To(HaveOccurred(),
		"podnet is installed on this cluster already, and these tests install it themselves: run them by `make test-cluster`,"+
			" which makes a cluster for them, or run `"+callAgain()+" down` and `up` first")

	Expect(local.loadImage(ctx)).To(Succeed())
	Expect(outside{}.serve(ctx)).To(Succeed())
	pristine = map[string]snapshot{}
	for _, node := range local.nodes {
		pristine[node.name], err = takeSnapshot(ctx, node.name)
		Expect(err).NotTo(HaveOccurred())
	}
}, NodeTimeout(5*time.Minute))

// Dumps are long and take their time: the first failures are those that tell.
const mostDumps = 3

var dumps int

var _ = JustAfterEach(func(ctx context.Context) {
	report := CurrentSpecReport()
	if !report.Failed() || local == nil || dumps == mostDumps {
		return
	}
	dumps++
	folder := filepath.Join(local.artifacts, regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(report.FullText(), "-"))
	if output, err := local.run(ctx, filepath.Join(local.root, "hack", "dump-cluster.sh"), folder); err != nil {
		GinkgoWriter.Printf("writing down what the cluster is like failed: %v\n%s\n", err, output)
	}
}, NodeTimeout(5*time.Minute))
