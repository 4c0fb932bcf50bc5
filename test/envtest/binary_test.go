package envtest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var _ = Describe("The manager as a program", Ordered, func() {
	var program, configFile string

	BeforeAll(func() {
		var err error
		program, err = gexec.Build("github.com/podnet/podnet/cmd/manager", "-ldflags", "-X github.com/podnet/podnet/internal/version.Version=v9.8.7")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(gexec.CleanupBuildArtifacts)
		configFile = filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(os.WriteFile(configFile, kubeconfig, 0o600)).To(Succeed())
	})
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	start := func(args ...string) *gexec.Session {
		command := exec.Command(program, args...)
		command.Env = append(os.Environ(), "KUBECONFIG="+configFile)
		session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() {
			session.Interrupt()
			Eventually(session).Should(gexec.Exit())
		})
		return session
	}
	freePort := func() string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		defer func() { Expect(listener.Close()).To(Succeed()) }()
		return listener.Addr().String()
	}
	get := func(url string) (*http.Response, error) {
		web := &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			ForceAttemptHTTP2: true,
		}}
		response, err := web.Get(url)
		if err != nil {
			return nil, err
		}
		return response, response.Body.Close()
	}

	It("becomes ready, leads, keeps its metrics to those who may read them, and gives blocks", func(ctx context.Context) {
		metrics, probes := freePort(), freePort()
		session := start("--leader-elect", "--leader-election-namespace=default", "--metrics-bind-address="+metrics, "--health-probe-bind-address="+probes)
		for _, path := range []string{"healthz", "readyz"} {
			Eventually(get).WithArguments(fmt.Sprintf("http://%s/%s", probes, path)).Should(HaveField("StatusCode", http.StatusOK))
		}
		Eventually(get).WithArguments("https://" + metrics + "/metrics").Should(And(
			HaveField("StatusCode", http.StatusUnauthorized), HaveField("ProtoMajor", 1)))

		makeNodes(ctx, 1)
		startAgent("node-1")
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		Eventually(blocksOf).WithArguments(ctx, "node-1").Should(ConsistOf("10.244.0.0/24"))
		lease := &coordinationv1.Lease{}
		Expect(api.Get(ctx, client.ObjectKey{Namespace: "default", Name: "podnet-manager"}, lease)).To(Succeed())
		Expect(lease.Spec.HolderIdentity).To(HaveValue(Not(BeEmpty())))

		By("letting go of its lease when it is told to end, and succeeding")
		session.Terminate()
		Eventually(session).Should(gexec.Exit(0))
		Expect(api.Get(ctx, client.ObjectKeyFromObject(lease), lease)).To(Succeed())
		Expect(lease.Spec.HolderIdentity).To(HaveValue(BeEmpty()))
	})

	It("listens nowhere but on loopback, save for its metrics", func() {
		metrics, probes := freePort(), freePort()
		_, port, err := net.SplitHostPort(metrics)
		Expect(err).NotTo(HaveOccurred())
		session := start("--metrics-bind-address=:"+port, "--health-probe-bind-address="+probes)
		Eventually(get).WithArguments(fmt.Sprintf("http://%s/readyz", probes)).Should(HaveField("StatusCode", http.StatusOK))
		Eventually(get).WithArguments("https://" + metrics + "/metrics").Should(HaveField("StatusCode", http.StatusUnauthorized))
		Expect(listening(session.Command.Process.Pid)).To(ConsistOf(probes, "[::]:"+port))
	})

	It("uninstalls", func(ctx context.Context) {
		makeNodes(ctx, 1)
		Expect(api.Create(ctx, podNetwork(blockRange("10.244.0.0/16", 24)))).To(Succeed())
		session := start("uninstall", "--remove-objects", "--timeout=10s")
		Eventually(session).Should(gexec.Exit(0))
		Expect(session.Out).To(gbytes.Say("Removed"))
		Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, &podnetv1alpha1.PodNetwork{})).NotTo(Succeed())
	})

	It("says its version", func() {
		session := start("version")
		Eventually(session).Should(gexec.Exit(0))
		Expect(session.Out).To(gbytes.Say(`^v9\.8\.7\n$`))
	})

	It("says in a line what is wrong with its flags", func() {
		session := start("--log-level=loud")
		Eventually(session).Should(gexec.Exit(1))
		Expect(session.Err).To(gbytes.Say("manager: --log-level: "))
	})
})

// listening returns the addresses on which a process takes TCP connections.
func listening(pid int) []string {
	GinkgoHelper()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	Expect(err).NotTo(HaveOccurred())
	own := map[string]bool{}
	for _, d := range descriptors {
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, d.Name())); err == nil {
			own[target] = true
		}
	}
	var addresses []string
	for _, table := range []string{"tcp", "tcp6"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		Expect(err).NotTo(HaveOccurred())
		for _, line := range strings.Split(string(content), "\n") {
			// The local address, the state (0A is listening) and the inode (proc_net_tcp in the kernel's documentation).
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" || !own["socket:["+fields[9]+"]"] {
				continue
			}
			addresses = append(addresses, hexAddress(fields[1]))
		}
	}
	return addresses
}

// hexAddress reads an address as /proc/net has it: words of 32 bits in the order of
// the machine's bytes, and the port.
func hexAddress(written string) string {
	GinkgoHelper()
	host, port, found := strings.Cut(written, ":")
	Expect(found).To(BeTrue(), written)
	raw, err := hex.DecodeString(host)
	Expect(err).NotTo(HaveOccurred())
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	Expect(ok).To(BeTrue(), written)
	number, err := strconv.ParseUint(port, 16, 16)
	Expect(err).NotTo(HaveOccurred())
	return netip.AddrPortFrom(addr, uint16(number)).String()
}
