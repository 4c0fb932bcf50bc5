package apply

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
)

// heldNode is a node on which changes of the firewall may take long.
type heldNode struct {
	*node
	// holds says, once something has been received from it, that the firewall is being
	// changed; until held is closed.
	holds chan struct{}
	held  chan struct{}
	// failed says that the routed path to the other node's blocks has failed.
	failed bool
	// asked, unless it is nil, is called after the evidence was asked for, once.
	asked func()
	// aimed are the paths that the prober was handed last.
	aimed []model.PathChoice
}

// newHeldNode returns a node whose path to the other one is routed, and its Applier.
func newHeldNode(t *testing.T) (*heldNode, *Applier) {
	t.Helper()
	g := gomega.NewWithT(t)
	n := &heldNode{node: newNode(), holds: make(chan struct{}, 1)}
	n.kernel = difftest.New(model.State{}, "eth0", model.ProbeLink)
	n.snapshot.Network.Mode = model.ModeRouted
	cfg := n.applier().cfg
	cfg.Kernel, cfg.Links, cfg.Paths, cfg.PathsNews = n, n, n, loop.NewSignal()
	s := New(cfg)
	for range 2 {
		g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	}
	g.Expect(n.route(t).Link).To(gomega.Equal("eth0"), "the path is routed")
	return n, s
}

// Execute implements Kernel.
func (n *heldNode) Execute(ctx context.Context, ops []diff.Op) error {
	if n.held != nil && slices.ContainsFunc(ops, func(op diff.Op) bool { return op.Object.ObjectKind() == model.KindFirewall }) {
		n.holds <- struct{}{}
		<-n.held
	}
	return n.node.Execute(ctx, ops)
}

func (*heldNode) Netns() string                  { return "/proc/1/fd/3" }
func (*heldNode) Listen(model.Pod, string) error { return nil }
func (n *heldNode) Aim(c []model.PathChoice)     { n.aimed = c }

// Evidence implements Paths: both paths are proven, or the routed one has failed.
func (n *heldNode) Evidence(context.Context) (map[netip.Prefix]model.Evidence, error) {
	proven := model.Proof{Standing: model.Proven, Fresh: true, Answers: true}
	e := model.Evidence{Node: "b", Taken: model.PathRouted, Proofs: []model.Proof{proven, proven}}
	if n.failed {
		e.Proofs[0] = model.Proof{Standing: model.Failed}
	}
	if n.asked != nil {
		defer n.asked()
		n.asked = nil
	}
	return map[netip.Prefix]model.Evidence{peerRoute: e, netip.MustParsePrefix("fd00:10:244:2::/64"): e}, nil
}

// While nft takes ten seconds, a path that fails is left, and nobody who only asks waits.
func TestNobodyWaitsForTheFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n, s := newHeldNode(t)
		ctx, cancel := context.WithCancel(t.Context())
		rerouted := make(chan error, 1)
		go func() { rerouted <- s.Reroute(ctx) }()

		// Another node's endpoint changes the firewall, and somebody has taken the route away.
		g.Expect(n.node.Execute(t.Context(), []diff.Op{{Verb: diff.Delete, Object: n.route(t)}})).To(gomega.Succeed())
		n.held = make(chan struct{})
		n.snapshot.Blocks = append(n.snapshot.Blocks, block("10.244.3.0/24", "c", "192.0.2.3"))
		passed := make(chan error, 1)
		go func() { passed <- s.Pass(t.Context()) }()
		<-n.holds
		begun := time.Now()
		n.failed = true
		s.cfg.PathsNews.Raise()
		synctest.Wait()
		g.Expect(n.route(t).Link).To(gomega.Equal(model.VXLANLink4), "the path that failed was left")
		g.Expect(s.Ready()).To(gomega.Succeed())
		g.Expect(s.Removed()).To(gomega.BeFalse())
		offer, err := n.offers.Current()
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(offer.Blocks).NotTo(gomega.BeEmpty())
		reports := len(n.reports)
		s.Recount()
		g.Expect(n.reports).To(gomega.HaveLen(reports+1), "an ADD that waits for an address is counted")
		g.Expect(time.Since(begun)).To(gomega.BeZero())

		time.Sleep(10 * time.Second)
		close(n.held)
		g.Expect(<-passed).To(gomega.Succeed())
		g.Expect(n.route(t).Link).To(gomega.Equal(model.VXLANLink4), "the pass leaves it alone that knew less")
		contradicts, _ := s.notes.pending()
		g.Expect(contradicts).To(gomega.BeFalse())
		g.Expect(n.aimed).To(gomega.ContainElement(gomega.HaveField("Path", model.PathOverlay)))
		g.Expect(n.aimed).NotTo(gomega.ContainElement(gomega.HaveField("Path", model.PathRouted)), "the prober is handed what is in force")
		g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
		g.Expect(n.route(t).Link).To(gomega.Equal(model.VXLANLink4))
		cancel()
		g.Expect(<-rerouted).To(gomega.Succeed())
	})
}

// A pass that looked at the evidence before a path failed may publish its plan afterwards.
func TestPathIsLeftThatAPassKnewNothingOf(t *testing.T) {
	g := gomega.NewWithT(t)
	n, s := newHeldNode(t)
	n.failed = true
	n.asked = func() {
		was := s.states.Current()
		g.Expect(s.states.Publish(was, was.Cluster, was.Plan)).NotTo(gomega.BeNil())
	}
	g.Expect(s.reroute(t.Context())).To(gomega.Succeed())
	g.Expect(n.route(t).Link).To(gomega.Equal(model.VXLANLink4))
	// Nothing is left any more once podnet is being taken off the node.
	n.failed = false
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	is := n.route(t)
	s.rerouted.end()
	n.failed = true
	g.Expect(s.reroute(t.Context())).To(gomega.Succeed())
	g.Expect(n.route(t)).To(gomega.Equal(is))
}

// What was put between a pass's look at the evidence and its look at the kernel is what the pass
// wants, each route in its own table.
func TestPassTakesRoutesAsTheyWerePutMeanwhile(t *testing.T) {
	g := gomega.NewWithT(t)
	_, s := newHeldNode(t)
	want := s.states.Current().Plan.State
	i := slices.IndexFunc(want.Routes, func(r model.Route) bool { return r.Dst == peerRoute && r.Table == 0 })
	put := want.Routes[i]
	put.Link, put.MTU = model.VXLANLink4, 1450
	s.rerouted.routes[put.Identity()] = put
	got := s.rerouted.in(want)
	g.Expect(got.Routes[i]).To(gomega.Equal(put))
	for j := range got.Routes {
		if j != i {
			g.Expect(got.Routes[j]).To(gomega.Equal(want.Routes[j]))
		}
	}
	g.Expect(want.Routes[i].Link).To(gomega.Equal("eth0"), "what was published does not change")
}
