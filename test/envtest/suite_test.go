package envtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/test/envtest/lifeline"
)

var (
	config *rest.Config
	scheme = runtime.NewScheme()
	// kubeconfig is for programs.
	kubeconfig []byte
	// api reads and writes without a cache.
	api client.WithWatch
)

const (
	// namespace is podnet's own.
	namespace = "podnet-system"
	// managerUser holds the roles that the manifests give the manager and no others.
	managerUser = "system:serviceaccount:" + namespace + ":podnet-manager"
)

func TestEnvtest(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "podnet against a real API server")
}

var _ = BeforeSuite(func(ctx context.Context) {
	Expect(os.Getenv("KUBEBUILDER_ASSETS")).NotTo(BeEmpty(),
		"KUBEBUILDER_ASSETS must name a folder with kube-apiserver, etcd and kubectl: "+
			"`make test-envtest` sets it, and `hack/cluster/cluster envtest-assets` builds and prints one")
	ctrl.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	SetDefaultConsistentlyPollingInterval(50 * time.Millisecond)

	release, err := lifeline.Hold()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(release)
	env := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
		// A machine with two cores may be busy with other tests.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	// Start leaves its processes running where it fails, as over a CRD that is refused.
	DeferCleanup(env.Stop)
	config, err = env.Start()
	Expect(err).NotTo(HaveOccurred())
	kubeconfig = env.KubeConfig

	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(podnetv1alpha1.AddToScheme(scheme)).To(Succeed())
	Expect(policyv1alpha2.Install(scheme)).To(Succeed())
	api, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	prepare(ctx)
})

// prepare makes what every spec needs of an API server beyond podnet's kinds.
func prepare(ctx context.Context) {
	GinkgoHelper()
	applyManifests(ctx, filepath.Join("admission", "*.yaml"))
	Expect(api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
	applyManifests(ctx, filepath.Join("rbac", "role.yaml"))
	applyManifests(ctx, filepath.Join("rbac", "agent_role.yaml"))
	applyManifests(ctx, filepath.Join("rbac", "manager_bindings.yaml"))
}
