package envtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// controlPlane is an etcd and an API server that a spec can stop, put back to an
// older state and start again, at the same addresses.
type controlPlane struct {
	folder                   string
	etcdPort, peerPort, port string
	etcd, apiserver          *gexec.Session
}

const adminToken = "admin"

// useOwnControlPlane starts a control plane and makes it the one that all helpers
// talk to until the spec ends.
func useOwnControlPlane(ctx context.Context) *controlPlane {
	GinkgoHelper()
	c := &controlPlane{folder: GinkgoT().TempDir(), etcdPort: freePort(), peerPort: freePort(), port: freePort()}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	Expect(err).NotTo(HaveOccurred())
	content := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	Expect(os.WriteFile(c.path("accounts.key"), content, 0o600)).To(Succeed())
	Expect(os.WriteFile(c.path("tokens"), []byte(adminToken+`,admin,admin,"system:masters"`+"\n"), 0o600)).To(Succeed())
	DeferCleanup(c.stop)
	formerConfig, formerAPI := config, api
	DeferCleanup(func() { config, api = formerConfig, formerAPI })

	config = &rest.Config{
		Host: "https://127.0.0.1:" + c.port, BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		QPS: 1000, Burst: 2000,
	}
	c.start()
	_, err = envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{filepath.Join("..", "..", "config", "crd", "bases")}})
	Expect(err).NotTo(HaveOccurred())
	api, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	prepare(ctx)
	return c
}

func (c *controlPlane) path(name string) string { return filepath.Join(c.folder, name) }

func (c *controlPlane) start() {
	GinkgoHelper()
	client, peer := "http://127.0.0.1:"+c.etcdPort, "http://127.0.0.1:"+c.peerPort
	c.etcd = runProgram("etcd", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+client, "--advertise-client-urls="+client, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	c.apiserver = runProgram("kube-apiserver", "--etcd-servers="+client, "--bind-address=127.0.0.1", "--secure-port="+c.port,
		"--cert-dir="+c.path("certificates"), "--token-auth-file="+c.path("tokens"), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount",
		"--service-account-issuer=https://localhost", "--service-account-key-file="+c.path("accounts.key"),
		"--service-account-signing-key-file="+c.path("accounts.key"))
	web, err := rest.HTTPClientFor(config)
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() error {
		answer, err := web.Get(config.Host + "/readyz")
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode != 200 {
			return fmt.Errorf("the API server answers %s", answer.Status)
		}
		return nil
	}).WithTimeout(2 * time.Minute).Should(Succeed())
}

// stop ends both at once, as a machine would that fails.
func (c *controlPlane) stop() {
	for _, session := range []*gexec.Session{c.apiserver, c.etcd} {
		if session != nil {
			session.Kill()
			Eventually(session).WithTimeout(time.Minute).Should(gexec.Exit())
		}
	}
}

// backup keeps what etcd holds now. etcd stands still meanwhile, so that what is
// copied is what it would find after a crash.
func (c *controlPlane) backup() {
	GinkgoHelper()
	c.etcd.Signal(syscall.SIGSTOP)
	defer c.etcd.Signal(syscall.SIGCONT)
	Expect(os.CopyFS(c.path("backup"), os.DirFS(c.path("etcd")))).To(Succeed())
}

// restore makes etcd hold what it held at the time of the backup.
func (c *controlPlane) restore() {
	GinkgoHelper()
	c.stop()
	Expect(os.RemoveAll(c.path("etcd"))).To(Succeed())
	Expect(os.CopyFS(c.path("etcd"), os.DirFS(c.path("backup")))).To(Succeed())
	c.start()
}

// runProgram starts one of the programs that the API server comes with.
func runProgram(name string, args ...string) *gexec.Session {
	GinkgoHelper()
	session, err := gexec.Start(exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), name), args...), nil, nil)
	Expect(err).NotTo(HaveOccurred())
	return session
}

// freePort returns a TCP port that nobody listens on.
func freePort() string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(listener.Close()).To(Succeed()) }()
	_, port, found := strings.Cut(listener.Addr().String(), ":")
	Expect(found).To(BeTrue())
	return port
}
