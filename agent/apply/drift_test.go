package apply

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/model"
)

// watched is a node whose kernel tells what the test says.
type watched struct {
	*node
	applier *Applier
	seen    chan func(diff.Sighting)
	passes  chan struct{}
	repairs chan []diff.Repair
}

// Watch implements Watcher.
func (w *watched) Watch(ctx context.Context, _ func() []model.Sysctl, seen func(diff.Sighting)) error {
	w.seen <- seen
	<-ctx.Done()
	return ctx.Err()
}

// Objects implements Source, and reports the passes.
func (w *watched) Objects() (state.Objects, error) {
	w.passes <- struct{}{}
	return w.node.Objects()
}

// watch runs the loop of a node, and returns what tells it of the kernel.
func watch(t *testing.T, n *node) (*watched, func(diff.Sighting)) {
	t.Helper()
	w := &watched{node: n, seen: make(chan func(diff.Sighting)), passes: make(chan struct{}, 100), repairs: make(chan []diff.Repair, 100)}
	cfg := n.applier().cfg
	cfg.Watcher = w
	cfg.Source = w
	cfg.Repaired = func(r []diff.Repair) { w.repairs <- r }
	w.applier = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- w.applier.Run(ctx) }()
	go func() { ended <- w.applier.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	<-w.passes
	gomega.NewWithT(t).Eventually(w.applier.Ready).Should(gomega.Succeed())
	return w, <-w.seen
}

var peerRoute = netip.MustParsePrefix("10.244.2.0/24")

// route returns the route to the other node's block.
func (n *node) route(t *testing.T) model.Route {
	t.Helper()
	for _, r := range n.kernel.State().Routes {
		if r.Dst == peerRoute {
			return r
		}
	}
	t.Fatal("no route to the other node")
	return model.Route{}
}

func TestRemovedRouteIsPutBackAndToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n := newNode()
		w, seen := watch(t, n)
		gone := n.route(t)
		g.Expect(n.kernel.Execute(t.Context(), []diff.Op{{Verb: diff.Delete, Object: gone}})).To(gomega.Succeed())
		start := time.Now()
		seen(diff.Sighting{Object: gone, Gone: true})
		g.Eventually(w.repairs, 5*time.Second).Should(gomega.Receive(gomega.ConsistOf(gomega.HaveField("Kind", "route"))))
		g.Expect(time.Since(start)).To(gomega.BeNumerically("<", 2*time.Second))
		g.Expect(n.route(t)).To(gomega.Equal(gone))
	})
}

func TestWhatIsAsWantedAsksForNoPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n := newNode()
		w, seen := watch(t, n)
		r := n.route(t)
		// Also where it was not for a moment.
		seen(diff.Sighting{Object: r, Gone: true})
		seen(diff.Sighting{Object: r})
		g.Expect(n.attacher(w.applier).Attach(t.Context(), pod())).To(gomega.Succeed())
		seen(diff.Sighting{Object: model.Route{Dst: netip.MustParsePrefix("10.244.1.2/32"), Link: "podc0ffee"}})
		seen(diff.Sighting{Object: model.HostLink{Name: "eth7", Up: true}})
		g.Consistently(w.passes, 300*time.Millisecond).ShouldNot(gomega.Receive())
		seen(diff.Sighting{Object: model.HostLink{Name: "eth0", Up: true}})
		g.Eventually(w.passes).Should(gomega.Receive())
	})
}

func TestManySightingsLeadToOnePassASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n := newNode()
		w, seen := watch(t, n)
		for range 150 {
			seen(diff.Sighting{})
			time.Sleep(10 * time.Millisecond)
		}
		g.Expect(len(w.passes)).To(gomega.BeNumerically("<=", 3))
		g.Expect(w.repairs).To(gomega.BeEmpty())
	})
}

// failing is a watcher that fails the first time.
type failing struct{ calls chan struct{} }

func (b failing) Watch(ctx context.Context, _ func() []model.Sysctl, _ func(diff.Sighting)) error {
	b.calls <- struct{}{}
	if len(b.calls) < 2 {
		return errors.New("no more")
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestEndedSubscriptionIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		cfg := newNode().applier().cfg
		watcher := failing{make(chan struct{}, 10)}
		cfg.Watcher = watcher
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- New(cfg).Watch(ctx) }()
		g.Eventually(func() int { return len(watcher.calls) }, 5*time.Second).Should(gomega.Equal(2))
		cancel()
		g.Expect(<-done).To(gomega.Succeed())
	})
}

func TestChangedObjectsAreNoDrift(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	var repairs []diff.Repair
	s := n.applier()
	s.cfg.Repaired = func(r []diff.Repair) { repairs = append(repairs, r...) }
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	n.snapshot.Blocks = n.snapshot.Blocks[:2]
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	n.snapshot.Blocks = append(n.snapshot.Blocks, block("10.244.3.0/24", "c", "192.0.2.3"))
	n.refuse = netip.MustParsePrefix("10.244.3.0/24")
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	n.refuse = netip.Prefix{}
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.routes(t)).To(gomega.ContainElement(netip.MustParsePrefix("10.244.3.0/24")))
	g.Expect(repairs).To(gomega.BeEmpty())
}

// While one route is refused, others that are removed are put back and reported.
func TestDriftIsToldOfThoughSomethingElseFails(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.snapshot.Blocks = append(n.snapshot.Blocks, block("10.244.3.0/24", "c", "192.0.2.3"))
	n.refuse = netip.MustParsePrefix("10.244.3.0/24")
	var repairs []diff.Repair
	s := n.applier()
	s.cfg.Repaired = func(r []diff.Repair) { repairs = append(repairs, r...) }
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.kernel.Execute(t.Context(), []diff.Op{{Verb: diff.Delete, Object: n.route(t)}})).To(gomega.Succeed())
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(repairs).To(gomega.ConsistOf(gomega.HaveField("Found", gomega.ContainSubstring("10.244.2.0/24"))))
}

func BenchmarkSightingOfManyPeers(b *testing.B) {
	var state model.State
	for i := range 5000 {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		state.Routes = append(state.Routes, model.Route{Dst: dst, Link: "eth0"})
	}
	n := newNotes()
	n.want(state, nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n.see(diff.Sighting{Object: state.Routes[i%len(state.Routes)]})
	}
}

// prober is the attachment of the probes, of whose paths nothing is known.
type prober struct{}

func (prober) Netns() string                                                     { return "/proc/1/fd/3" }
func (prober) Listen(model.Pod, string) error                                    { return nil }
func (prober) Aim([]model.PathChoice)                                            {}
func (prober) Evidence(context.Context) (map[netip.Prefix]model.Evidence, error) { return nil, nil }

// With a block go the probes' address of it and its elements of the firewall: that is
// podnet's own doing.
func TestReleaseOfABlockIsNoDrift(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.kernel = difftest.New(model.State{}, "eth0", model.ProbeLink)
	n.snapshot.Blocks = append(n.snapshot.Blocks, block("10.244.9.0/24", "a", "192.0.2.1"))
	var repairs []diff.Repair
	s := n.applier()
	s.cfg.Paths = prober{}
	s.cfg.Repaired = func(r []diff.Repair) { repairs = append(repairs, r...) }
	for range 3 {
		g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	}
	last := &n.snapshot.Blocks[len(n.snapshot.Blocks)-1]
	for _, state := range []model.BlockState{model.BlockDraining, model.BlockReleased} {
		last.State = state
		n.ops = 0
		g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	}
	g.Expect(n.ops).NotTo(gomega.BeZero())
	g.Expect(repairs).To(gomega.BeEmpty())
}
