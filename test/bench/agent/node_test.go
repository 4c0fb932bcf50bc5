package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/agent/node"
	"github.com/podnet/podnet/agent/policy"
	"github.com/podnet/podnet/agent/prober"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// agent is the agent of one node, without what talks to the API server and to
// the container runtime.
type agent struct {
	*topology.Host
	underlay *topology.Underlay
	// cluster is what the API holds, where that is made up.
	cluster  *cluster
	kernel   *meter
	prober   *prober.Prober
	applier  *apply.Applier
	attacher *attach.Attacher
	enforcer *policy.Enforcer
	enforced *stopwatch

	mu       sync.Mutex
	reported status.Report
	// pods hang on the node, and played ones only have a record, and policies.
	pods, played []model.Pod
}

// objects are what the API holds.
type objects interface {
	apply.Source
	policy.Source
}

// meter is a kernel that counts what is done to it.
type meter struct {
	*kernel.Kernel
	// operations were executed in the last pass, which took executing of processor time.
	operations int
	executing  time.Duration
	// told counts the changes of which the kernel has told.
	told atomic.Int64
}

// Execute implements apply.Kernel.
func (m *meter) Execute(ctx context.Context, ops []diff.Op) error {
	used := processorTime()
	err := m.Kernel.Execute(ctx, ops)
	m.operations += len(ops)
	m.executing += processorTime() - used
	return err
}

// Watch implements apply.Watcher.
func (m *meter) Watch(ctx context.Context, sysctls func() []model.Sysctl, seen func(diff.Sighting)) error {
	return m.Kernel.Watch(ctx, sysctls, func(s diff.Sighting) {
		switch s.Object.(type) {
		case nil, model.Sysctl: // Nobody reported a change: it was looked at.
		default:
			m.told.Add(1)
		}
		seen(s)
	})
}

// fullInterval is that of an agent without options.
const fullInterval = 30 * time.Second

// newAgent makes a node in a cluster, and its agent, which does not run yet.
func newAgent(b *testing.B, c *cluster) *agent {
	b.Helper()
	topology.Require(b)
	a := newAgentOn(b, topology.NewUnderlay(b, 1500), self, c)
	a.cluster = c
	c.blocks[0].Endpoints = []netip.Addr{a.IPv4.Addr()}
	return a
}

// newAgentOn makes a node on an underlay, and its agent.
func newAgentOn(b *testing.B, underlay *topology.Underlay, name string, source objects) *agent {
	b.Helper()
	log.SetLogger(logr.Discard())
	a := &agent{underlay: underlay, Host: underlay.AddHost(b, name, topology.Families{IPv4: true})}
	tables, err := nft.Open()
	must(b, "looking for nft", err)
	dir := b.TempDir()
	k, err := kernel.New(kernel.Config{StateDir: dir, Tables: nft.NewWriter(tables, model.FirewallTable, func() {}), NFT: tables})
	must(b, "making the kernel", err)
	a.kernel = &meter{Kernel: k}
	offers, passes, news := attach.NewOffers(), loop.NewSignal(), loop.NewSignal()
	pods := func(context.Context) ([]model.Pod, error) { return a.attached(), nil }
	a.prober, err = prober.New(prober.Config{
		Changed: news.Raise,
		Taken: func(ctx context.Context) (taken map[netip.Prefix]model.Path, err error) {
			return taken, a.Try(func() error { taken, err = k.Taken(ctx); return err })
		},
		Talking: func(ctx context.Context) (addrs []netip.Addr, err error) {
			return addrs, a.Try(func() error { addrs, err = k.Talking(ctx); return err })
		},
	})
	must(b, "making the prober", err)
	a.applier = apply.New(apply.Config{
		Passes: passes, Source: source, Kernel: a.kernel, Links: k, Offers: offers, Paths: a.prober, PathsNews: news, Watcher: a.kernel,
		Node: &node.Local{
			Name: name, Network: k, Inspector: host.New(host.Config{Kernel: k, NFT: tables, StateDir: dir}), Known: node.NewKnown(nil, nil), ConfDir: b.TempDir(),
			Uninstall: func(context.Context) error { return errors.ErrUnsupported },
		},
		Pods:    pods,
		Usage:   func([]netip.Prefix) map[netip.Prefix]int64 { return nil },
		Waiting: func() [2]int64 { return [2]int64{} },
		Report: func(r status.Report) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.reported = r
		},
		Install:      func(context.Context) error { return nil },
		FullInterval: fullInterval,
	})
	a.attacher = attach.New(attach.Config{Offers: offers, Kernel: a.applier, Links: k, Flows: netfilter.Conntrack{}, Pods: pods, Passes: passes})
	policies, err := nft.Open()
	must(b, "looking for nft", err)
	a.enforced = &stopwatch{Kernel: policies}
	a.enforcer = policy.New(policy.Config{
		Source: source, NFT: a.enforced, Log: netfilter.Log{NFT: tables}, FullInterval: fullInterval,
		Pods: func() []model.Pod { return append(a.attached(), a.played...) },
	})
	return a
}

// attached returns the node's pods.
func (a *agent) attached() []model.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pods)
}

// attach makes a pod and attaches it to the node, whose agent has made a pass. It is as
// an object of the API says.
func (a *agent) attach(b *testing.B, object model.ClusterPod) *topology.Namespace {
	b.Helper()
	netns := topology.NewNamespace(b, object.Name)
	p := model.Pod{
		ContainerID: object.Name, IfName: "eth0", Namespace: object.Namespace, Name: object.Name, UID: object.UID, Netns: netns.Path(),
		Attachment: model.PointToPoint, HostLink: model.PodLinkPrefix + object.Name,
		HostMAC: model.DeriveMAC(object.Name + "/host"), PodMAC: model.DeriveMAC(object.Name + "/pod"),
		Addrs: object.Addrs, MTU: a.report().Plan.MTU,
	}
	for _, addr := range p.Addrs {
		p.Blocks = append(p.Blocks, netip.PrefixFrom(addr, 24).Masked())
	}
	a.mu.Lock()
	a.pods = append(a.pods, p)
	a.mu.Unlock()
	a.Do(b, func() error { return a.attacher.Attach(b.Context(), p) })
	return netns
}

// start runs parts of the agent until the benchmark ends.
func (a *agent) start(b *testing.B, parts ...func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() {
			if err := a.Try(func() error { return part(ctx) }); err != nil {
				b.Error(err)
			}
		})
	}
	b.Cleanup(func() { cancel(); running.Wait() })
}

// begin makes the first pass, says what it cost, and makes the second, which attaches
// the namespace of the probes.
func (a *agent) begin(b *testing.B) cost {
	b.Helper()
	first := a.pass(b)
	a.pass(b)
	return first
}

// pass makes a pass, and says what it cost.
func (a *agent) pass(b *testing.B) cost {
	b.Helper()
	a.kernel.operations, a.kernel.executing = 0, 0
	told, used, start := a.kernel.told.Load(), processorTime(), time.Now()
	a.Do(b, func() error { return a.applier.Pass(b.Context()) })
	c := cost{
		took: time.Since(start), used: processorTime() - used, executing: a.kernel.executing, operations: a.kernel.operations,
	}
	must(b, "making a pass", a.applier.Ready())
	// What the kernel reports comes a moment later.
	for last := told - 1; last != a.kernel.told.Load(); time.Sleep(hush) {
		last = a.kernel.told.Load()
	}
	c.told = int(a.kernel.told.Load() - told)
	return c
}

// hush is the time after which nothing more is expected.
const hush = 50 * time.Millisecond

// cost is what a pass cost.
type cost struct {
	took time.Duration
	// used is the processor time, and executing that part of it in which the kernel was
	// changed.
	used, executing time.Duration
	// told is of how many changes the kernel told.
	operations, told int
}

// report returns what the last pass found.
func (a *agent) report() status.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reported
}

func must(b *testing.B, what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}
