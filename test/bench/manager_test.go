package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// manager is the manager as a running program.
type manager struct {
	cluster *cluster
	command *exec.Cmd
	metrics string // its address
	web     *http.Client
}

// startManager starts one, which ends with the benchmark, and waits until it is ready.
func (c *cluster) startManager(b *testing.B) *manager {
	b.Helper()
	user, err := c.AddUser(envtest.User{Name: managerUser, Groups: []string{"system:serviceaccounts", "system:authenticated"}}, nil)
	must(b, "adding the manager's user", err)
	kubeconfig, err := user.KubeConfig()
	must(b, "writing the manager's kubeconfig", err)
	file := filepath.Join(b.TempDir(), "kubeconfig")
	must(b, "writing the manager's kubeconfig", os.WriteFile(file, kubeconfig, 0o600))

	probes := freePort(b)
	m := &manager{cluster: c, metrics: freePort(b), web: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}}
	m.command = exec.Command(managerBinary, "--metrics-bind-address="+m.metrics, "--health-probe-bind-address="+probes, "--log-level=error")
	m.command.Env = append(os.Environ(), "KUBECONFIG="+file)
	var output bytes.Buffer
	m.command.Stdout, m.command.Stderr = &output, &output
	must(b, "starting the manager", m.command.Start())
	ended := make(chan error, 1)
	go func() { ended <- m.command.Wait() }()
	b.Cleanup(func() {
		if err := m.command.Process.Signal(syscall.SIGTERM); err != nil {
			b.Log(err)
		}
		if err := <-ended; err != nil || b.Failed() {
			b.Logf("the manager ended with %v and said:\n%s", err, output.String())
		}
	})
	await(b, "the manager to be ready", func(ctx context.Context) (bool, error) {
		_, err := m.get(ctx, "http://"+probes+"/readyz")
		return err == nil, nil
	})
	return m
}

func freePort(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, "looking for a free port", err)
	defer listener.Close()
	return listener.Addr().String()
}

// await polls until a condition holds.
func await(b *testing.B, what string, condition wait.ConditionWithContextFunc) {
	b.Helper()
	err := wait.PollUntilContextTimeout(b.Context(), 100*time.Millisecond, patience, true, condition)
	must(b, "waiting for "+what, err)
}

func (m *manager) get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+m.cluster.token)
	response, err := m.web.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

// sample is one line of metrics: a value under a name and labels.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// samples are metrics at one moment.
type samples []sample

// sum adds up the values of a metric, over all of its labels.
func (s samples) sum(name string) float64 {
	total := 0.0
	for _, one := range s {
		if one.name == name {
			total += one.value
		}
	}
	return total
}

// usage is what the manager has used since it started.
type usage struct {
	requests, cpuSeconds   float64
	heap, resident, atMost float64 // MiB
}

func (m *manager) usage(b *testing.B) usage {
	b.Helper()
	text, err := m.get(b.Context(), "https://"+m.metrics+"/metrics")
	must(b, "reading the manager's metrics", err)
	s := parse(b, text)
	const mib = 1 << 20
	return usage{
		requests: s.sum("rest_client_requests_total"), cpuSeconds: s.sum("process_cpu_seconds_total"),
		heap: s.sum("go_memstats_heap_inuse_bytes") / mib, resident: s.sum("process_resident_memory_bytes") / mib,
		atMost: m.mostResident(b) / mib,
	}
}

// mostResident is the most memory that the manager has ever had, in bytes.
func (m *manager) mostResident(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.command.Process.Pid))
	must(b, "reading the manager's memory", err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			must(b, "reading the manager's memory", err)
			return kib * 1024
		}
	}
	b.Fatal("the kernel does not say how much memory the manager had at most")
	return 0
}

// requests returns how often each kind of request was made at the API server, by
// whomever: the key is a verb and a resource.
func (c *cluster) requests(b *testing.B) map[string]float64 {
	b.Helper()
	web, err := rest.HTTPClientFor(c.Config)
	must(b, "making a client", err)
	response, err := web.Get(strings.TrimSuffix(c.Config.Host, "/") + "/metrics")
	must(b, "reading the API server's metrics", err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		b.Fatalf("the API server answers %s when asked for metrics", response.Status)
	}
	text, err := io.ReadAll(response.Body)
	must(b, "reading the API server's metrics", err)
	counts := map[string]float64{}
	for _, s := range parse(b, text) {
		if s.name != "apiserver_request_total" {
			continue
		}
		resource := s.labels["resource"]
		if s.labels["subresource"] != "" {
			resource += "/" + s.labels["subresource"]
		}
		counts[s.labels["verb"]+" "+resource] += s.value
	}
	return counts
}

// parse reads metrics in the text format of Prometheus, as far as the API server
// and the manager use it.
func parse(b *testing.B, text []byte) samples {
	b.Helper()
	var out samples
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		cut := strings.LastIndexByte(line, ' ')
		if cut < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			b.Fatal(errors.Join(fmt.Errorf("metrics hold the line %q", line), err))
		}
		name, rest, _ := strings.Cut(line[:cut], "{")
		s := sample{name: name, value: value, labels: map[string]string{}}
		for pair := range strings.SplitSeq(strings.TrimSuffix(rest, "}"), `",`) {
			if key, text, found := strings.Cut(pair, `="`); found {
				s.labels[key] = strings.TrimSuffix(text, `"`)
			}
		}
		out = append(out, s)
	}
	return out
}
