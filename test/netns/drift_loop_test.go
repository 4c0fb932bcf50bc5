package netns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/diff"
	agentloop "github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/agent/prober"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// loop is a node's agent, as far as it looks after the kernel: its full pass
// comes so seldom that what is repaired in a test was reported by the kernel.
type loop struct {
	*node
	applier  *apply.Applier
	attacher *attach.Attacher
	offers   *attach.Offers
	// forced says that paths are taken unproven.
	forced bool

	mu sync.Mutex
	// links are the pods that were attached.
	links    []model.Pod
	passes   int
	repairs  []diff.Repair
	reported status.Report
	// events are given the sentences of Events.
	events chan string
	// probes is the path of the namespace that probes are sent from.
	probes string
	// stop ends the agent.
	stop func()
}

// newLoop starts the agent of a node, which takes the paths that are asked for
// unproven.
func newLoop(t *testing.T, n *node) *loop {
	t.Helper()
	return startLoop(t, n, false)
}

// startLoop starts the agent of a node, which proves its paths or not, with pods that
// are attached already.
func startLoop(t *testing.T, n *node, proves bool, pods ...model.Pod) *loop {
	t.Helper()
	// Most tests read no event, and the agent is not to wait until one does.
	l := &loop{node: n, links: pods, events: make(chan string, 1000), offers: attach.NewOffers()}
	passes, news := agentloop.NewSignal(), agentloop.NewSignal()
	var paths *prober.Prober
	if proves {
		var err error
		paths, err = prober.New(prober.Config{
			Changed: news.Raise,
			Taken: func(ctx context.Context) (taken map[netip.Prefix]model.Path, err error) {
				return taken, n.Try(func() error { taken, err = n.kernel.Taken(ctx); return err })
			},
			Talking: func(ctx context.Context) (addrs []netip.Addr, err error) {
				return addrs, n.Try(func() error { addrs, err = n.kernel.Talking(ctx); return err })
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		l.probes = paths.Netns()
	}
	drifts := status.NewDrifts(func(note string, _ []diff.Repair) { l.events <- note })
	subscribed := make(chan struct{})
	cfg := apply.Config{
		Passes: passes, Source: l, Kernel: n.kernel, Links: n.kernel, Offers: l.offers, Node: l,
		Watcher: &firstSight{watcher: n.kernel, done: subscribed},
		Pods: func(ctx context.Context) ([]model.Pod, error) {
			l.mu.Lock()
			pods := slices.Clone(l.links)
			l.mu.Unlock()
			return n.kernel.Present(ctx, pods)
		},
		Usage:   func([]netip.Prefix) map[netip.Prefix]int64 { return nil },
		Waiting: func() [2]int64 { return [2]int64{} },
		Report: func(r status.Report) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.reported = r
		},
		Repaired: func(repairs []diff.Repair) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.repairs = append(l.repairs, repairs...)
			drifts.Add(repairs)
		},
		Install:      func(context.Context) error { return nil },
		FullInterval: time.Hour,
	}
	parts := []func(context.Context) error{func(ctx context.Context) error { return l.applier.Run(ctx) },
		func(ctx context.Context) error { return l.applier.Watch(ctx) }, drifts.Run}
	if proves {
		cfg.Paths, cfg.PathsNews = paths, news
		parts = append(parts, paths.Run, func(ctx context.Context) error { return l.applier.Reroute(ctx) })
	}
	l.applier, l.forced = apply.New(cfg), !proves
	l.attacher = attach.New(attach.Config{
		Offers: l.offers, Kernel: l.applier, Links: n.kernel, Flows: netfilter.Conntrack{}, Pods: cfg.Pods, Passes: passes,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, part := range parts {
		wg.Go(func() {
			if err := n.Try(func() error { return part(ctx) }); err != nil {
				t.Error(err)
			}
		})
	}
	l.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(l.stop)
	<-subscribed
	gomega.NewWithT(t).Eventually(l.applier.Ready, 20*time.Second, 20*time.Millisecond).Should(gomega.Succeed())
	return l
}

// firstSight closes a channel when the kernel is being watched.
type firstSight struct {
	watcher apply.Watcher
	once    sync.Once
	done    chan struct{}
}

func (f *firstSight) Watch(ctx context.Context, sysctls func() []model.Sysctl, seen func(diff.Sighting)) error {
	return f.watcher.Watch(ctx, sysctls, func(s diff.Sighting) {
		f.once.Do(func() { close(f.done) })
		seen(s)
	})
}

// Objects implements apply.Source, and counts the passes.
func (l *loop) Objects() (state.Objects, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passes++
	network := l.cluster.network
	snap := state.Objects{Network: &network, Blocks: l.cluster.blocks, RouteModes: l.cluster.modes}
	if l.forced {
		snap.RouteModes = append(slices.Clone(snap.RouteModes), model.RouteMode{
			Name: "unproven", Between: []model.Selector{{}}, Mode: network.Mode, Forced: true,
		})
	}
	return snap, nil
}

// Host implements apply.Node.
func (l *loop) Host(context.Context) (model.Host, []model.Problem, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, err := l.node.model()
	return m.Host, nil, err
}

// Findings implements apply.Node.
func (*loop) Findings(context.Context, []netip.Prefix, []model.Block, *model.Pod) ([]model.Finding, error) {
	return nil, nil
}

// Remove implements apply.Node.
func (*loop) Remove(context.Context) error { return errors.New("nobody asked for that") }

// attach attaches a pod as the CNI server does.
func (l *loop) attach(t *testing.T, p *pod) {
	t.Helper()
	l.mu.Lock()
	l.links = append(l.links, p.Pod)
	l.mu.Unlock()
	l.Do(t, func() error { return l.attacher.Attach(context.Background(), p.Pod) })
}

// detach detaches a pod as the CNI server does.
func (l *loop) detach(t *testing.T, p *pod) {
	t.Helper()
	l.Do(t, func() error { return l.attacher.Detach(context.Background(), p.Pod) })
	l.mu.Lock()
	l.links = slices.DeleteFunc(l.links, func(x model.Pod) bool { return x.ContainerID == p.ContainerID })
	l.mu.Unlock()
}

// told returns the repairs since the last call, as their kinds and what was found.
func (l *loop) told() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, r := range l.repairs {
		out = append(out, r.Kind+": "+r.Found)
	}
	return out
}

func (l *loop) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.repairs = nil
}

func (l *loop) passed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.passes
}

// left returns what a pass would do now.
func (l *loop) left(t *testing.T) string {
	t.Helper()
	l.mu.Lock()
	pods := slices.Clone(l.links)
	l.mu.Unlock()
	var want model.State
	l.Do(t, func() error {
		m, err := l.node.model()
		m.Pods = pods
		want = plan.Build(m).State
		return err
	})
	if ops := diff.Diff(want, l.observe(t, want)); len(ops) > 0 {
		return printOps(ops)
	}
	return ""
}

// settled waits until no pass is made for longer than passes are apart.
func (l *loop) settled(t *testing.T) {
	t.Helper()
	last, since := l.passed(), time.Now()
	gomega.NewWithT(t).Eventually(func() bool {
		if now := l.passed(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 1500*time.Millisecond
	}, 30*time.Second, 50*time.Millisecond).Should(gomega.BeTrue())
}
