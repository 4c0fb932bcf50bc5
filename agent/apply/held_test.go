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
func (*heldNode) Aim([]model.PathChoice)         {}

// Evidence implements Paths: both paths are proven, or the routed one has failed.
func (n *heldNode) Evidence(context.Context) (map[netip.Prefix]model.Evidence, error) {
	proven := model.Proof{Standing: model.Proven, Fresh: true, Answers: true}
	e := model.Evidence{Node: "b", Taken: model.PathRouted, Proofs: []model.Proof{proven, proven}}
	if n.failed {
		e.Proofs[0] = model.Proof{Standing: model.Failed}
	}
	return map[netip.Prefix]model.Evidence{peerRoute: e, netip.MustParsePrefix("fd00:10:244:2::/64"): e}, nil
}

// While nft takes ten seconds, a path that fails is left, and nobody who only asks waits.
func TestNobodyWaitsForTheFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		ctx, cancel := context.WithCancel(t.Context())
		rerouted := make(chan error, 1)
		go func() { rerouted <- s.Reroute(ctx) }()

		// Another node's endpoint changes the firewall.
		n.held = make(chan struct{})
		n.snapshot.Blocks = append(n.snapshot.Blocks, block("10.244.3.0/24", "c", "192.0.2.3"))
		passed := make(chan error, 1)
		go func() { passed <- s.Pass(t.Context()) }()
		<-n.holds
		begun := time.Now()
		n.failed = true
		cfg.PathsNews.Raise()
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
		g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
		g.Expect(n.route(t).Link).To(gomega.Equal(model.VXLANLink4))
		cancel()
		g.Expect(<-rerouted).To(gomega.Succeed())
	})
}
