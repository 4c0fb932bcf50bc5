package netns

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/cni/protocol"
	agentloop "github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// cniNode is a node whose agent serves CNI requests on a socket, and enforces policies.
type cniNode struct {
	*policyNode
	book   *cni.Book
	socket string
	// attaching, unless it is nil, is called for each pod before it is admitted. It must not block.
	attaching func(model.Pod)
}

// newCNINode starts the agent on the first node of a cluster.
func newCNINode(t *testing.T, c *policed) *cniNode {
	t.Helper()
	// On a tmpfs, as /run is; and t.TempDir is too long for a socket's path.
	dir, err := os.MkdirTemp("/dev/shm", "podnet-cni-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &cniNode{policyNode: &policyNode{policed: c, node: c.nodes[0]}, socket: filepath.Join(dir, "cni.sock")}
	if n.book, err = cni.OpenBook(t.Context(), filepath.Join(dir, "attachments"), time.Now); err != nil {
		t.Fatal(err)
	}
	n.enforce(t, n.book.Recorded)
	api, k := &loop{node: n.node, forced: true}, n.node.kernel
	offers, demand, passes := attach.NewOffers(), &attach.Demand{}, agentloop.NewSignal()
	pods := func(ctx context.Context) ([]model.Pod, error) { return k.Present(ctx, n.book.Pods()) }
	applier := apply.New(apply.Config{
		Passes: passes, Source: api, Kernel: k, Links: k, Offers: offers, Node: api,
		Pods:         pods,
		Usage:        n.book.UsageByBlock,
		Waiting:      demand.Waiting,
		Report:       func(status.Report) {},
		Install:      func(context.Context) error { return nil },
		FullInterval: time.Hour,
	})
	attacher := attach.New(attach.Config{
		Offers: offers, Kernel: applier, Links: k, Flows: netfilter.Conntrack{}, Policy: n.enforcer, Pods: pods, Passes: passes,
	})
	server, err := cni.NewServer(cni.ServerConfig{
		Socket: n.socket, Book: n.book, Present: k.Present, Checker: attacher, Demand: demand, Wanted: applier.Recount,
		Network: inNode{node: n, Network: attacher},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{server.Run, applier.Run} {
		all.Go(func() {
			if err := n.Try(func() error { return run(ctx) }); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
	gomega.NewWithT(t).Eventually(func() error {
		_, err := offers.Current()
		return err
	}, 20*time.Second, 10*time.Millisecond).Should(gomega.Succeed())
	return n
}

// inNode is a network whose requests, of which each has a thread of its own, are served in
// the node's namespace.
type inNode struct {
	cni.Network
	node *cniNode
}

func (i inNode) Attach(ctx context.Context, pod model.Pod) error {
	if i.node.attaching != nil {
		i.node.attaching(pod)
	}
	return i.node.Try(func() error { return i.Network.Attach(ctx, pod) })
}

func (i inNode) Detach(ctx context.Context, pod model.Pod) error {
	return i.node.Try(func() error { return i.Network.Detach(ctx, pod) })
}

// request is what a runtime asks for a pod, whose UID is its name.
func request(in *topology.Namespace, namespace string) protocol.Request {
	return protocol.Request{
		ContainerID: fmt.Sprintf("%x", sha256.Sum256([]byte(in.Name))), IfName: "eth0", Netns: in.Path(),
		Config: json.RawMessage(`{"cniVersion": "1.1.0", "name": "podnet", "type": "podnet-cni"}`),
		Args:   fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", namespace, in.Name, in.Name),
	}
}

// add attaches a pod, and returns its addresses.
func (n *cniNode) add(ctx context.Context, in *topology.Namespace, namespace string) ([]netip.Addr, error) {
	var result types100.Result
	if err := protocol.Call(ctx, n.socket, protocol.Add, request(in, namespace), &result); err != nil {
		return nil, fmt.Errorf("ADD of %s: %w", in.Name, err)
	}
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}

// del detaches a pod.
func (n *cniNode) del(ctx context.Context, in *topology.Namespace, namespace string) error {
	if err := protocol.Call(ctx, n.socket, protocol.Del, request(in, namespace), nil); err != nil {
		return fmt.Errorf("DEL of %s: %w", in.Name, err)
	}
	return nil
}
