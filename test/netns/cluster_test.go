// Package netns tests the agent's way to the kernel with real packets: nodes are
// network namespaces, whose kernels are observed and changed as the agent does.
package netns

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
	"github.com/podnet/podnet/test/netns/topology"
)

func TestMain(m *testing.M) {
	if err := topology.Check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Agents here are judged by what they do.
	log.SetLogger(logr.Discard())
	flag.Parse()
	// Most of the time tests wait for what shall not come.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set(fmt.Sprint(2 * runtime.GOMAXPROCS(0))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// port is where pods and hosts serve.
const port = 8080

// options say what a test's cluster is like. The zero value has one node.
type options struct {
	nodes      int
	attachment model.Attachment
	mode       model.Mode
	// families are the underlay's, and ranges the pods' where they differ.
	families, ranges topology.Families
	// mtu is the underlay's; 0 stands for 1500.
	mtu int
	// noBridgeNetfilter is a node without br_netfilter, noVXLAN one without VXLAN.
	noBridgeNetfilter, noVXLAN bool
	masqueradeExclude          []netip.Prefix
}

var (
	onlyIPv4 = topology.Families{IPv4: true}
	onlyIPv6 = topology.Families{IPv6: true}
	dual     = topology.Families{IPv4: true, IPv6: true}
)

// cluster is what the API of a test's cluster holds, and its nodes.
type cluster struct {
	options
	underlay *topology.Underlay
	network  model.Network
	blocks   []model.Block
	modes    []model.RouteMode
	nodes    []*node
}

// node is a node with its agent.
type node struct {
	*topology.Host
	cluster *cluster
	nft     *nft.Conn
	kernel  *kernel.Kernel
	host    *host.Host
	pods    []model.Pod
	// made counts the pods that ever were.
	made int
	// stateDir outlives the agent.
	stateDir string
	// nodeIPs are the addresses by which Kubernetes knows the node, heard are the
	// blocks as its agent has heard of them, where that is not all, and former the
	// endpoints that it remembers.
	nodeIPs []netip.Addr
	heard   []model.Block
	former  []model.FormerEndpoint
}

// pod is a pod, in whose namespace a server answers.
type pod struct {
	*topology.Namespace
	model.Pod
	node *node
}

// newCluster makes a cluster whose nodes have their blocks, and brings them up.
func newCluster(t *testing.T, o options) *cluster {
	t.Helper()
	if o.mtu == 0 {
		o.mtu = 1500
	}
	c := &cluster{options: o, underlay: topology.NewUnderlay(t, o.mtu)}
	c.network = model.Network{
		BlockBits: [2]int{24, 64}, Attachment: o.attachment, Mode: o.mode, VNI: 7466, Port: 4789, Masquerade: true,
		MasqueradeExclude: o.masqueradeExclude,
	}
	if o.ranges == (topology.Families{}) {
		o.ranges = o.families
	}
	if o.ranges.IPv4 {
		c.network.Ranges = append(c.network.Ranges, netip.MustParsePrefix("10.244.0.0/16"))
	}
	if o.ranges.IPv6 {
		c.network.Ranges = append(c.network.Ranges, netip.MustParsePrefix("fd44::/48"))
	}
	for range max(o.nodes, 1) {
		c.addNode(t)
	}
	c.sync(t)
	return c
}

// addNode makes a node and its blocks. Other nodes hear of it at their next sync.
func (c *cluster) addNode(t *testing.T) *node {
	t.Helper()
	i := len(c.nodes) + 1
	name := fmt.Sprintf("node%d", i)
	n := &node{cluster: c, Host: c.underlay.AddHost(t, name, c.families), stateDir: t.TempDir()}
	n.restart(t)
	var endpoints []netip.Addr
	for _, p := range []netip.Prefix{n.IPv4, n.IPv6} {
		if p.IsValid() {
			endpoints = append(endpoints, p.Addr())
		}
	}
	for _, r := range c.network.Ranges {
		b := model.Block{Node: name, State: model.BlockActive, Endpoints: endpoints, Created: time.Unix(int64(i), 0)}
		if r.Addr().Is4() {
			b.CIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)
		} else {
			b.CIDR = netip.MustParsePrefix(fmt.Sprintf("fd44:0:0:%d::/64", i))
		}
		b.Name = b.CIDR.String()
		c.blocks = append(c.blocks, b)
	}
	c.nodes = append(c.nodes, n)
	return n
}

// sync makes a pass on every node, and checks that each leaves nothing to do.
func (c *cluster) sync(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		n.sync(t)
	}
}

// model returns what the node's agent knows. Call it in the node's namespace.
func (n *node) model() (model.Cluster, error) {
	facts, err := n.host.Facts(context.Background())
	if err != nil {
		return model.Cluster{}, err
	}
	endpoints, _ := plan.ChooseEndpoints(facts.Links, facts.Routes, model.EndpointOptions{NodeIPs: n.nodeIPs})
	host := model.Host{
		Node: n.Name, Endpoints: endpoints, Addresses: plan.Addresses(facts.Links, facts.Routes), Routes: facts.Routes, IPv6: facts.IPv6, AcceptRA: facts.AcceptRA,
		VXLAN:           facts.VXLAN && !n.cluster.noVXLAN,
		BridgeNetfilter: facts.BridgeNetfilter && !n.cluster.noBridgeNetfilter,
	}
	network, blocks := n.cluster.network, n.cluster.blocks
	if n.heard != nil {
		blocks = n.heard
	}
	return model.Cluster{
		Network: &network, Blocks: blocks, Former: n.former, RouteModes: n.cluster.modes, Host: host, Pods: n.pods,
		Evidence: n.cluster.proven(),
	}, nil
}

// proven is what is known where all paths work, as they do but where a test is about
// those that do not.
func (c *cluster) proven() map[netip.Prefix]model.Evidence {
	all := map[netip.Prefix]model.Evidence{}
	for _, b := range c.blocks {
		proof := model.Proof{Standing: model.Proven, Fresh: true}
		all[b.CIDR] = model.Evidence{Proofs: []model.Proof{proof, proof}}
	}
	return all
}

// want returns the node's plan.
func (n *node) want(t *testing.T) model.Plan {
	t.Helper()
	var p model.Plan
	n.Do(t, func() error {
		m, err := n.model()
		p = plan.Build(m)
		return err
	})
	return p
}

// pass makes one pass and returns what it did.
func (n *node) pass(t *testing.T) []diff.Op {
	t.Helper()
	var ops []diff.Op
	n.Do(t, func() error {
		ctx := context.Background()
		m, err := n.model()
		if err != nil {
			return err
		}
		wanted := plan.Build(m)
		for _, p := range wanted.Problems {
			if p.Fatal {
				return fmt.Errorf("the plan has a fatal problem: %s", p.Message)
			}
		}
		have, err := n.kernel.Observe(ctx, wanted.State)
		if err != nil {
			return err
		}
		ops = diff.Diff(wanted.State, have)
		return n.kernel.Execute(ctx, ops)
	})
	return ops
}

// sync makes a pass and checks that a second one finds nothing to do.
func (n *node) sync(t *testing.T) {
	t.Helper()
	n.pass(t)
	if ops := n.pass(t); len(ops) > 0 {
		t.Fatalf("%s: a second pass over an unchanged node does %d operations: %s", n.Name, len(ops), printOps(ops))
	}
}

func printOps(ops []diff.Op) string {
	var out string
	for _, op := range ops {
		out += fmt.Sprintf("\n  %s %T %+v", op.Verb, op.Object, op.Object)
	}
	return out
}

// addPod attaches a pod as a CNI ADD does, and lets it serve.
func (n *node) addPod(t *testing.T, hostPorts ...model.HostPort) *pod {
	t.Helper()
	p := n.newPod(t, hostPorts...)
	n.attach(t, p)
	p.Serve(t, port)
	return p
}

// newPod makes a pod that is not yet attached.
func (n *node) newPod(t *testing.T, hostPorts ...model.HostPort) *pod {
	t.Helper()
	n.made++
	number := n.made
	name := fmt.Sprintf("pod%d-of-%s", number, n.Name)
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	p := &pod{node: n, Namespace: topology.NewNamespace(t, name)}
	p.Pod = model.Pod{
		ContainerID: id, IfName: "eth0", Namespace: "test", Name: name, Netns: p.Path(),
		Attachment: n.cluster.network.Attachment, HostLink: "podn" + id[:11],
		HostMAC: model.DeriveMAC(id + "host"), PodMAC: model.DeriveMAC(id + "pod"), HostPorts: hostPorts,
		Since: time.Unix(int64(number), 0),
	}
	wanted := n.want(t)
	p.MTU = wanted.MTU
	for _, b := range wanted.Blocks {
		addr := b.CIDR.Addr()
		for range number + 1 {
			addr = addr.Next()
		}
		p.Blocks = append(p.Blocks, b.CIDR)
		p.Addrs = append(p.Addrs, addr)
	}
	return p
}

// attach does what a CNI ADD does. What it makes is what a pass wants.
func (n *node) attach(t *testing.T, p *pod) {
	t.Helper()
	n.Do(t, func() error {
		ctx := context.Background()
		if err := n.kernel.Attach(ctx, p.Pod); err != nil {
			return err
		}
		m, err := n.model()
		if err != nil {
			return err
		}
		ops := append(diff.Removals(plan.Displaced(m, p.Pod)), diff.Additions(plan.PodParts(m, p.Pod))...)
		if err := n.kernel.Execute(ctx, ops); err != nil {
			return err
		}
		return n.kernel.CheckAttached(ctx, p.Pod)
	})
	n.pods = append(n.pods, p.Pod)
	if ops := n.pass(t); len(ops) > 0 {
		t.Fatalf("%s: a pass after a pod was attached does %d operations: %s", n.Name, len(ops), printOps(ops))
	}
}

// addr returns the pod's address of a family.
func (p *pod) addr(is4 bool) netip.Addr {
	for _, a := range p.Addrs {
		if a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

// each runs a test for every combination of attachment, mode and families.
func each(t *testing.T, test func(t *testing.T, o options)) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
			for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6, "dual": dual} {
				t.Run(fmt.Sprintf("%s/%s/%s", attachment, mode, name), func(t *testing.T) {
					t.Parallel()
					test(t, options{attachment: attachment, mode: mode, families: families})
				})
			}
		}
	}
}

// rooms returns what an agent looks at the kernel with, and changes it.
func rooms(stateDir string) (*nft.Conn, *kernel.Kernel, *host.Host, error) {
	tables, err := nft.Open()
	if err != nil {
		return nil, nil, nil, err
	}
	k, err := kernel.New(kernel.Config{StateDir: stateDir, Tables: nft.NewWriter(tables, model.FirewallTable, func() {}), NFT: tables})
	return tables, k, host.New(host.Config{Kernel: k, NFT: tables, StateDir: stateDir}), err
}
