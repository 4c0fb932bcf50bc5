package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/internal/model"
)

// buildBinaries compiles podnet-cni and the plugins that the image has beside it, once.
var buildBinaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "podnet-cni-test-")
	if err != nil {
		return "", err
	}
	for _, pkg := range []string{
		"github.com/podnet/podnet/cmd/podnet-cni",
		"github.com/containernetworking/plugins/plugins/meta/bandwidth",
		"github.com/containernetworking/plugins/plugins/main/loopback",
	} {
		build := exec.Command("go", "build", "-o", dir+"/", pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("build %s: %w: %s", pkg, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := buildBinaries(); dir != "" {
		if err := os.RemoveAll(dir); err != nil {
			code = 1
		}
	}
	os.Exit(code)
}

// network is a kernel that holds pods' links.
type network struct {
	mu       sync.Mutex
	links    map[string]model.Pod
	err      error
	offerErr error
}

// set makes the network fail: err is what Attach and Detach return, offerErr what
// Offer does.
func (n *network) set(err, offerErr error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err, n.offerErr = err, offerErr
}

func (n *network) Offer() (attach.Offer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	blocks := []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd00:3::/64")}
	return attach.Offer{Blocks: blocks, Attachment: model.PointToPoint, MTU: 1500}, n.offerErr
}

func (n *network) Attach(_ context.Context, pod model.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[pod.HostLink] = pod
	return n.err
}

func (n *network) Detach(_ context.Context, pod model.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		delete(n.links, pod.HostLink)
	}
	return n.err
}

func (n *network) CheckAttached(_ context.Context, pod model.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.links[pod.HostLink]; !ok {
		return fmt.Errorf("link %s is gone", pod.HostLink)
	}
	return nil
}

// node is a node with podnet installed, whose agent may run.
type node struct {
	t      *testing.T
	dir    string
	socket string
	book   *cni.Book
	net    *network
	libcni *libcni.CNIConfig
	list   *libcni.NetworkConfigList
}

func newNode(t *testing.T) *node {
	t.Helper()
	source, err := buildBinaries()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "podnet-cni-node-") // t.TempDir is too long for a socket's path.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{t: t, dir: dir, socket: filepath.Join(dir, "cni.sock"), net: &network{links: map[string]model.Pod{}}}
	install := cni.InstallConfig{SourceDir: source, BinDir: dir + "/bin", ConfDir: dir + "/net.d", Socket: n.socket}
	if err := cni.Install(t.Context(), install); err != nil {
		t.Fatal(err)
	}
	if n.list, err = libcni.ConfListFromFile(dir + "/net.d/05-podnet.conflist"); err != nil {
		t.Fatal(err)
	}
	n.libcni = libcni.NewCNIConfigWithCacheDir([]string{dir + "/bin"}, dir+"/cache", nil)
	return n
}

// startAgent returns what ends it.
func (n *node) startAgent() (stop func()) {
	n.t.Helper()
	var err error
	if n.book, err = cni.OpenBook(n.t.Context(), n.dir+"/attachments", time.Now); err != nil {
		n.t.Fatal(err)
	}
	server, err := cni.NewServer(cni.ServerConfig{
		Socket: n.socket, Book: n.book, Network: n.net, Checker: n.net, Demand: &attach.Demand{},
		Present: func(_ context.Context, pods []model.Pod) ([]model.Pod, error) { return pods, nil },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	former, _ := os.Stat(n.socket) // nil where there is none
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(stop)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if current, err := os.Stat(n.socket); err == nil && !os.SameFile(former, current) {
			return stop
		}
		if time.Now().After(deadline) {
			n.t.Fatal("the agent does not listen")
		}
	}
}

func runtimeConf(id string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: id, NetNS: "/var/run/netns/" + id, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "ns"}, {"K8S_POD_NAME", "pod-" + id}, {"K8S_POD_UID", "uid-" + id}},
		CapabilityArgs: map[string]any{
			"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		},
	}
}

// inVersion returns the configuration in a version of the specification.
func (n *node) inVersion(version string) *libcni.NetworkConfigList {
	n.t.Helper()
	text := fmt.Sprintf(`{"cniVersion": %q, "name": "podnet", "plugins": [%s]}`, version, n.list.Plugins[0].Bytes)
	list, err := libcni.ConfListFromBytes([]byte(text))
	if err != nil {
		n.t.Fatal(err)
	}
	return list
}

func TestLifeOfAPodThroughLibcni(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	ctx := t.Context()
	if err := n.libcni.GetStatusNetworkList(ctx, n.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	added, err := n.libcni.AddNetworkList(ctx, n.list, runtimeConf("a"))
	if err != nil {
		t.Fatal(err)
	}
	result, err := types100.GetResult(added)
	if err != nil {
		t.Fatal(err)
	}
	hostLink := cni.Key{ContainerID: "a", IfName: "eth0"}.HostLink()
	if added.Version() != "1.1.0" || result.Interfaces[0].Name != hostLink || result.Interfaces[1].Sandbox != "/var/run/netns/a" ||
		result.IPs[0].Address.String() != "10.244.3.2/32" || result.IPs[0].Gateway.String() != "169.254.1.1" ||
		result.IPs[1].Address.String() != "fd00:3::2/128" || result.IPs[1].Gateway.String() != "fe80::1" || len(result.Routes) != 2 {
		t.Errorf("ADD: %v", result)
	}
	pod := n.book.Pods()[0]
	if pod.Name != "pod-a" || pod.Namespace != "ns" || pod.UID != "uid-a" || pod.Netns != "/run/netns/a" ||
		!reflect.DeepEqual(pod.HostPorts, []model.HostPort{{Host: 8080, Pod: 80, Protocol: "tcp"}}) {
		t.Errorf("recorded %+v", pod)
	}

	if err := n.libcni.CheckNetworkList(ctx, n.inVersion("1.1.0"), runtimeConf("a")); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	_, err = n.libcni.AddNetworkList(ctx, n.list, runtimeConf("b"))
	if err == nil || !strings.Contains(err.Error(), "host port 8080/tcp of this node is in use by pod ns/pod-a") {
		t.Errorf("ADD with the same host port: %v", err)
	}
	// A runtime deletes what it could not add, and what it deleted already.
	for _, id := range []string{"b", "a", "a", "unknown"} {
		if err := n.libcni.DelNetworkList(ctx, n.list, runtimeConf(id)); err != nil {
			t.Errorf("DEL of %s: %v", id, err)
		}
	}
	if len(n.net.links) != 0 || len(n.book.Pods()) != 0 {
		t.Errorf("left links %v, records %v", n.net.links, n.book.Pods())
	}
}

func TestGCThroughLibcni(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	for _, id := range []string{"a", "b"} {
		conf := runtimeConf(id)
		conf.CapabilityArgs = nil
		if _, err := n.libcni.AddNetworkList(t.Context(), n.list, conf); err != nil {
			t.Fatal(err)
		}
	}
	// The cache would make libcni call DEL by itself.
	if err := os.RemoveAll(n.dir + "/cache"); err != nil {
		t.Fatal(err)
	}
	valid := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "b", IfName: "eth0"}}}
	if err := n.libcni.GCNetworkList(t.Context(), n.list, valid); err != nil {
		t.Fatal(err)
	}
	if pods := n.book.Pods(); len(pods) != 1 || pods[0].ContainerID != "b" || len(n.net.links) != 1 {
		t.Errorf("left %v", pods)
	}
}

func TestVersions(t *testing.T) {
	n := newNode(t)
	for _, plugin := range n.list.Plugins {
		info, err := n.libcni.GetVersionInfo(t.Context(), plugin.Network.Type)
		if err != nil {
			t.Fatal(err)
		}
		supported := strings.Join(info.SupportedVersions(), " ")
		for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
			if !strings.Contains(supported, version) {
				t.Errorf("%s supports %s, not %s", plugin.Network.Type, supported, version)
			}
		}
	}
	n.startAgent()
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		list, id := n.inVersion(version), "v"+version
		conf := runtimeConf(id)
		conf.CapabilityArgs = nil
		result, err := n.libcni.AddNetworkList(t.Context(), list, conf)
		if err != nil {
			t.Fatal(err)
		}
		if result.Version() != version {
			t.Errorf("asked for %s, got %s", version, result.Version())
		}
		if version != "0.3.1" { // which has no CHECK
			if err := n.libcni.CheckNetworkList(t.Context(), list, conf); err != nil {
				t.Errorf("CHECK in version %s: %v", version, err)
			}
		}
		if err := n.libcni.DelNetworkList(t.Context(), list, conf); err != nil {
			t.Errorf("DEL in version %s: %v", version, err)
		}
	}
}

func wantError(t *testing.T, err error, code uint, sentence string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Msg, sentence) {
		t.Errorf("got %#v, want code %d and %q", e, code, sentence)
	}
}

// took is how long something takes that succeeds.
func (n *node) took(do func() error) time.Duration {
	n.t.Helper()
	begin := time.Now()
	if err := do(); err != nil {
		n.t.Fatal(err)
	}
	return time.Since(begin)
}

func TestAgentThatIsDown(t *testing.T) {
	for _, state := range []string{"never ran", "ended"} {
		t.Run(state, func(t *testing.T) {
			n := newNode(t)
			if state == "ended" {
				n.startAgent()()
			}
			sentence := fmt.Sprintf("podnet's agent does not answer on this node (socket %s): is the pod of DaemonSet podnet-agent running?", n.socket)
			idle := n.took(func() error { _, err := n.libcni.GetVersionInfo(t.Context(), "podnet-cni"); return err })
			begin := time.Now()
			_, err := n.libcni.AddNetworkList(t.Context(), n.list, runtimeConf("a"))
			wantError(t, err, types.ErrTryAgainLater, sentence)
			if took := time.Since(begin); took > time.Second+10*idle {
				t.Errorf("ADD took %v on a machine on which a plugin that does nothing takes %v", took, idle)
			}
			// What kubelet shows in the pod's Event has the sentence.
			if !strings.Contains(err.Error(), sentence) {
				t.Errorf("ADD: %v", err)
			}
			err = n.libcni.DelNetworkList(t.Context(), n.list, runtimeConf("a"))
			wantError(t, err, types.ErrTryAgainLater, sentence)
			wantRuntimeSeesFailure(t, err)
			wantError(t, n.libcni.GetStatusNetworkList(t.Context(), n.list), types.ErrPluginNotAvailable, sentence)
			wantError(t, n.libcni.GCNetworkList(t.Context(), n.inVersion("1.1.0"), &libcni.GCArgs{}), types.ErrTryAgainLater, sentence)

			n.startAgent()
			if _, err := n.libcni.AddNetworkList(t.Context(), n.list, runtimeConf("a")); err != nil {
				t.Errorf("ADD with the agent back: %v", err)
			}
		})
	}
}

// wantRuntimeSeesFailure checks that err has no words by which containerd's go-cni
// takes a failed DEL for a success.
func wantRuntimeSeesFailure(t *testing.T, err error) {
	t.Helper()
	for _, words := range []string{"not found", "no such file or directory"} {
		if err == nil || strings.Contains(err.Error(), words) {
			t.Errorf("a runtime takes this for a success: %v", err)
		}
	}
}

func TestDelThatFailsIsSeenByTheRuntime(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	if _, err := n.libcni.AddNetworkList(t.Context(), n.list, runtimeConf("a")); err != nil {
		t.Fatal(err)
	}
	n.net.set(errors.New("table podnet not found: no such file or directory"), nil)
	err := n.libcni.DelNetworkList(t.Context(), n.list, runtimeConf("a"))
	wantError(t, err, types.ErrInternal, "detach pod ns/pod-a: table podnet missing: missing file")
	wantRuntimeSeesFailure(t, err)
}

func TestStatusHoldsWhileTheAgentRestarts(t *testing.T) {
	n := newNode(t)
	stop := n.startAgent()
	status := func() error { return n.libcni.GetStatusNetworkList(t.Context(), n.list) }
	n.net.set(nil, errors.New("the caches have not synced yet"))
	wantError(t, status(), types.ErrPluginNotAvailable, "the caches have not synced yet")
	n.net.set(nil, nil)
	if err := status(); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := status(); err != nil {
		t.Errorf("just after the agent ended: %v", err)
	}
	n.net.set(nil, errors.New("the caches have not synced yet"))
	stop = n.startAgent()
	if err := status(); err != nil {
		t.Errorf("while the next agent starts: %v", err)
	}
	stop()
	past := time.Now().Add(-protocol.RestartGrace)
	if err := os.Chtimes(protocol.ServedPath(n.socket), past, past); err != nil {
		t.Fatal(err)
	}
	wantError(t, status(), types.ErrPluginNotAvailable, "podnet's agent does not answer")
}

func TestStdoutHasTheAnswerAlone(t *testing.T) {
	n := newNode(t)
	run := func(command string) (stdout, stderr string, ok bool) {
		c := exec.Command(n.dir + "/bin/podnet-cni")
		c.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=a", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/a", "CNI_PATH=/opt/cni/bin"}
		c.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "podnet", "type": "podnet-cni", "socket": %q}`, n.socket))
		var out, log bytes.Buffer
		c.Stdout, c.Stderr = &out, &log
		ok = c.Run() == nil
		return out.String(), log.String(), ok
	}
	for _, running := range []bool{false, true} {
		if running {
			n.startAgent()
		}
		for _, command := range []string{"ADD", "CHECK", "STATUS", "GC", "DEL", "VERSION"} {
			stdout, stderr, ok := run(command)
			if want := running || command == "VERSION"; ok != want || stderr != "" {
				t.Errorf("%s: success %t, stderr %q", command, ok, stderr)
			}
			empty := running && command != "ADD" && command != "VERSION"
			if empty != (stdout == "") || !empty && !json.Valid([]byte(stdout)) {
				t.Errorf("%s: stdout %q", command, stdout)
			}
		}
	}
}

func TestPluginStaysSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		for _, big := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/vishvananda/netlink", "github.com/podnet/podnet/api", "google.golang.org/"} {
			if strings.HasPrefix(pkg, big) {
				t.Errorf("podnet-cni contains %s", pkg)
			}
		}
	}
}
