package apply

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
)

// node is a node in memory: what the API says of it, its kernel and its pods.
type node struct {
	kernel   *difftest.Fake
	offers   *attach.Offers
	snapshot state.Objects
	err      error
	pods     []model.Pod
	attach   error
	// refuse is a destination to which the kernel takes no route.
	refuse   netip.Prefix
	reports  []status.Report
	installs int
	removed  int
	ops      int
	usage    map[netip.Prefix]int64
	waiting  [2]int64
	// findings and blind are what a search returns, and searches how many there were.
	findings []model.Finding
	blind    error
	searches int
}

func newNode() *node {
	return &node{offers: attach.NewOffers(), kernel: difftest.New(model.State{}, "eth0", "podc0ffee"), snapshot: state.Objects{
		Network: &model.Network{
			Ranges:     []netip.Prefix{netip.MustParsePrefix("fd00:10:244::/48"), netip.MustParsePrefix("10.244.0.0/16")},
			Attachment: model.PointToPoint, Mode: model.ModeOverlay, VNI: 7466, Port: 4789,
		},
		Blocks: []model.Block{
			block("10.244.1.0/24", "a", "192.0.2.1"), block("fd00:10:244:1::/64", "a", "192.0.2.1"),
			block("10.244.2.0/24", "b", "192.0.2.2"), block("fd00:10:244:2::/64", "b", "192.0.2.2"),
		},
	}}
}

func block(cidr, node, endpoint string) model.Block {
	return model.Block{
		Name: cidr, CIDR: netip.MustParsePrefix(cidr), Node: node, State: model.BlockActive,
		Endpoints: []netip.Addr{netip.MustParseAddr(endpoint)},
	}
}

func (n *node) applier() *Applier {
	return New(Config{
		Source: n, Kernel: n, Links: n, Offers: n.offers, Node: n,
		Pods:         func(context.Context) ([]model.Pod, error) { return n.pods, nil },
		Usage:        func([]netip.Prefix) map[netip.Prefix]int64 { return n.usage },
		Waiting:      func() [2]int64 { return n.waiting },
		Report:       func(r status.Report) { n.reports = append(n.reports, r) },
		Install:      func(context.Context) error { n.installs++; return nil },
		FullInterval: time.Hour,
	})
}

// attacher attaches pods to the node whose passes an Applier makes.
func (n *node) attacher(s *Applier) *attach.Attacher {
	return attach.New(attach.Config{Offers: n.offers, Kernel: s, Links: n, Flows: n, Pods: s.cfg.Pods, Passes: loop.NewSignal()})
}

func (n *node) Objects() (state.Objects, error) { return n.snapshot, n.err }

func (n *node) Observe(ctx context.Context, want model.State) (model.State, error) {
	return n.kernel.Observe(ctx, want)
}

func (n *node) Execute(ctx context.Context, ops []diff.Op) error {
	n.ops += len(ops)
	var errs []error
	allowed := slices.DeleteFunc(slices.Clone(ops), func(op diff.Op) bool {
		r, isRoute := op.Object.(model.Route)
		if isRoute && r.Dst == n.refuse {
			errs = append(errs, errors.New("no way"))
			return true
		}
		return false
	})
	return errors.Join(append(errs, n.kernel.Execute(ctx, allowed))...)
}

func (n *node) Attach(context.Context, model.Pod) error        { return n.attach }
func (n *node) Detach(context.Context, model.Pod) error        { return nil }
func (n *node) Forget(context.Context, model.Pod) error        { return nil }
func (n *node) CheckAttached(context.Context, model.Pod) error { return nil }

func (n *node) Host(context.Context) (model.Host, []model.Problem, error) {
	return model.Host{
		Node: "a", VXLAN: true, IPv6: true,
		Endpoints: []model.Endpoint{{Addr: netip.MustParseAddr("192.0.2.1"), Link: "eth0", MTU: 1500}},
		Routes:    []model.UnderlayRoute{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0"}},
	}, nil, nil
}

func (n *node) Findings(context.Context, []netip.Prefix, []model.Block, *model.Pod) ([]model.Finding, error) {
	n.searches++
	return n.findings, n.blind
}

func (n *node) Remove(context.Context) error {
	n.removed++
	n.kernel = difftest.New(model.State{}, "eth0")
	return nil
}

func (n *node) routes(t *testing.T) []netip.Prefix {
	t.Helper()
	state, err := n.kernel.Observe(t.Context(), model.State{})
	if err != nil {
		t.Fatal(err)
	}
	var out []netip.Prefix
	for _, r := range state.Routes {
		out = append(out, r.Dst)
	}
	return out
}

func pod() model.Pod {
	return model.Pod{
		ContainerID: "c", IfName: "eth0", Attachment: model.PointToPoint, HostLink: "podc0ffee",
		Addrs:  []netip.Addr{netip.MustParseAddr("10.244.1.2")},
		Blocks: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	}
}

func TestSecondPassOverAnUnchangedNodeChangesNothing(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.ops).NotTo(gomega.BeZero())
	n.ops = 0
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.ops).To(gomega.BeZero())
}

func TestNothingIsChangedBeforeTheObjectsAreKnown(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.err = errors.New("not synced")
	g.Expect(n.applier().Pass(t.Context())).To(gomega.MatchError(gomega.ContainSubstring("not synced")))
	g.Expect(n.ops).To(gomega.BeZero())
	g.Expect(n.installs).To(gomega.BeZero())
}

func TestDeletedNetworkChangesNoPacketsWay(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	before := n.routes(t)
	n.snapshot.Network, n.ops = nil, 0
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.ops).To(gomega.BeZero())
	g.Expect(n.routes(t)).To(gomega.Equal(before))
	_, err := n.offers.Current()
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("no PodNetwork")))
	g.Expect(n.reports[len(n.reports)-1].Problems[0].Reason).To(gomega.Equal(model.ReasonNoNetwork))
}

func TestAgentIsReadyThoughThereIsNoNetworkYet(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.snapshot.Network = nil
	s := n.applier()
	g.Expect(s.Ready()).NotTo(gomega.Succeed(), "nothing was heard yet")
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(s.Ready()).To(gomega.Succeed(), "helm install --wait makes the network after the agents are ready")
	n.err = errors.New("gone")
	g.Expect(s.Pass(t.Context())).NotTo(gomega.Succeed())
	g.Expect(s.Ready()).NotTo(gomega.Succeed())
}

func TestAttachedPodIsWhatTheNextPassExpects(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.attacher(s).Attach(t.Context(), pod())).To(gomega.Succeed())
	g.Expect(n.routes(t)).To(gomega.ContainElement(netip.MustParsePrefix("10.244.1.2/32")))
	n.pods, n.ops = []model.Pod{pod()}, 0
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.ops).To(gomega.BeZero())

	g.Expect(n.attacher(s).Detach(t.Context(), pod())).To(gomega.Succeed())
	g.Expect(n.routes(t)).NotTo(gomega.ContainElement(netip.MustParsePrefix("10.244.1.2/32")))
	n.pods, n.ops = nil, 0
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.ops).To(gomega.BeZero())
}

func TestPodsWaitUntilTheFirstPass(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	_, err := n.offers.Current()
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("has just started")))
	g.Expect(n.attacher(s).Attach(t.Context(), pod())).NotTo(gomega.Succeed())
	g.Expect(n.attacher(s).Detach(t.Context(), pod())).To(gomega.Succeed(), "pods may leave while the API server is away")
}

func TestPodsWaitForABlockAndAreToldOfTheRanges(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.snapshot.Blocks = n.snapshot.Blocks[2:]
	n.snapshot.RangeSummary = "range 10.244.0.0/16 has 1 blocks of which 0 are free"
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	_, err := n.offers.Current()
	g.Expect(err).To(gomega.MatchError(gomega.And(
		gomega.ContainSubstring("no block of IPv4"), gomega.ContainSubstring("has 1 blocks of which 0 are free"))))
	g.Expect(n.installs).To(gomega.BeZero())
}

func TestPodsOfANewNodeWaitForTheSecondFamilyForAWhile(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.snapshot.Blocks = slices.Delete(n.snapshot.Blocks, 1, 2)
	n.snapshot.Blocks[0].Created = time.Now()
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	_, err := n.offers.Current()
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("no block of IPv6")))

	n.snapshot.Blocks[0].Created = time.Now().Add(-time.Minute)
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	offer, err := n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred(), "the other family works")
	g.Expect(offer.Blocks).To(gomega.HaveLen(1))
	g.Expect(n.reports[len(n.reports)-1].Problems[0].Reason).To(gomega.Equal(model.ReasonNoBlock))
}

func TestPodWhoseLinkVanishedKeepsNoOthersWaiting(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	gone := pod()
	gone.HostLink, gone.Addrs = "podndeadbeef", []netip.Addr{netip.MustParseAddr("fd00:10:244:1::2")}
	n.pods = []model.Pod{gone}
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.reports[0].Refused).To(gomega.BeTrue())
	_, err := n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred())
}

func TestPeerThatTheKernelRefusesKeepsNoPodsWaiting(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.refuse = netip.MustParsePrefix("10.244.2.0/24")
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	_, err := n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	problem := n.reports[0].Problems[0]
	g.Expect(problem.Reason).To(gomega.Equal(model.ReasonKernelError))
	g.Expect(problem.Fatal).To(gomega.BeFalse())
	g.Expect(problem.Message).To(gomega.ContainSubstring("no way"))
	g.Expect(n.reports[0].InForce).To(gomega.BeTrue(), "blocks come and go as asked")
	g.Expect(n.reports[0].Refused).To(gomega.BeTrue())
}

func TestPodsWaitForAFamilyWhoseBlockVanished(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	n.snapshot.Blocks[1].State, n.snapshot.Blocks[1].Vanished = model.BlockDraining, true
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	_, err := n.offers.Current()
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("disappeared without being released")))
	n.snapshot.Blocks = append(n.snapshot.Blocks, block("fd00:10:244:3::/64", "a", "192.0.2.1"))
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	_, err = n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred(), "another block gives addresses")
}

func TestFailureToLetTheRuntimeSendPodsIsReported(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	s.cfg.Install = func(context.Context) error { return errors.New("read-only file system") }
	g.Expect(s.Pass(t.Context())).NotTo(gomega.Succeed())
	g.Expect(s.Ready()).NotTo(gomega.Succeed())
	g.Expect(n.reports[0].Problems[0].Message).To(gomega.ContainSubstring("read-only file system"))
}

func TestPrimaryFamilyIsThatOfTheFirstRange(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	offer, err := n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(offer.Blocks).To(gomega.Equal([]netip.Prefix{
		netip.MustParsePrefix("fd00:10:244:1::/64"), netip.MustParsePrefix("10.244.1.0/24"),
	}))
}

func TestOfferReportsWhenItChangesAndWhetherItCanGrow(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.snapshot.Network.MaxBlocks = 2
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	before, err := n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(before.Growing).To(gomega.Equal([2]bool{true, true}))
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(before.Changed).NotTo(gomega.BeClosed(), "nothing has changed")

	n.snapshot.Blocks = append(n.snapshot.Blocks, block("10.244.3.0/24", "a", "192.0.2.1"))
	n.snapshot.Network.Exhausted[1] = true
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(before.Changed).To(gomega.BeClosed())
	after, err := n.offers.Current()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(after.Blocks).To(gomega.ContainElement(netip.MustParsePrefix("10.244.3.0/24")))
	g.Expect(after.Growing).To(gomega.Equal([2]bool{}))
	g.Expect(after.NotGrowing[0]).To(gomega.ContainSubstring("holds 2 blocks"))
	g.Expect(after.NotGrowing[1]).To(gomega.ContainSubstring("no free block"))
}

func TestReportAnswersTheRollCallAndSaysWhatIsInForce(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	n.snapshot.RollCall, n.waiting = "call", [2]int64{3, 0}
	n.usage = map[netip.Prefix]int64{netip.MustParsePrefix("10.244.1.0/24"): 5}
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	report := n.reports[len(n.reports)-1]
	g.Expect(report.RollCall).To(gomega.Equal("call"))
	g.Expect(report.InForce).To(gomega.BeTrue())
	g.Expect(report.Used).To(gomega.Equal(n.usage))
	g.Expect(report.Waiting).To(gomega.Equal(n.waiting))
	n.err = errors.New("the API server is away")
	g.Expect(s.Pass(t.Context())).NotTo(gomega.Succeed())
	report = n.reports[len(n.reports)-1]
	g.Expect(report.InForce).To(gomega.BeFalse())
	g.Expect(report.RollCall).To(gomega.Equal("call"))
}

func TestAttachmentIsCountedAtOnce(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	s.Recount()
	g.Expect(n.reports).To(gomega.BeEmpty(), "nothing is known yet")
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	passes := len(n.reports)
	n.usage = map[netip.Prefix]int64{netip.MustParsePrefix("10.244.1.0/24"): 1}
	n.pods = []model.Pod{{HostLink: "podc0ffee"}}
	g.Expect(n.attacher(s).Attach(t.Context(), n.pods[0])).To(gomega.Succeed())
	g.Expect(n.reports).To(gomega.HaveLen(passes + 1))
	report := n.reports[passes]
	g.Expect(report.Used).To(gomega.Equal(n.usage))
	g.Expect(report.Pods).To(gomega.Equal(n.pods))
	g.Expect(report.InForce).To(gomega.BeTrue(), "the others are as the last pass found it")
	n.waiting = [2]int64{2, 0}
	s.Recount()
	g.Expect(n.reports[passes+1].Waiting).To(gomega.Equal(n.waiting))
}

func TestFailureOfTheKernelIsReportedAndTriedAgain(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := New(Config{
		Source: n, Kernel: moduleless{}, Links: n, Offers: n.offers, Node: n,
		Pods:    func(context.Context) ([]model.Pod, error) { return nil, nil },
		Usage:   func([]netip.Prefix) map[netip.Prefix]int64 { return nil },
		Waiting: func() [2]int64 { return n.waiting },
		Report:  func(r status.Report) { n.reports = append(n.reports, r) },
		Install: func(context.Context) error { n.installs++; return nil },
	})
	g.Expect(s.Pass(t.Context())).To(gomega.MatchError(gomega.ContainSubstring("no such module")))
	g.Expect(n.reports[0].Problems[0].Fatal).To(gomega.BeTrue())
	g.Expect(n.reports[0].Problems[0].Reason).To(gomega.Equal(model.ReasonKernelError))
	g.Expect(n.installs).To(gomega.BeZero())
}

// What of network policy cannot be enforced is said on the node, whose pods it keeps from nothing.
func TestWhatIsNotEnforcedIsReported(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	refused := model.Problem{Reason: model.ReasonKernelError, Message: "The kernel refuses."}
	s.cfg.Policy = func() []model.Problem { return []model.Problem{refused} }
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.reports[0].Problems).To(gomega.ContainElement(refused))
	g.Expect(s.Ready()).To(gomega.Succeed())
}

type moduleless struct{}

func (moduleless) Observe(context.Context, model.State) (model.State, error) {
	return model.State{}, nil
}
func (moduleless) Execute(context.Context, []diff.Op) error { return errors.New("no such module") }

func TestUninstallIsDoneOnceAndLeavesTheNodeAlone(t *testing.T) {
	g := gomega.NewWithT(t)
	n := newNode()
	s := n.applier()
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	n.snapshot.Uninstall = true
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.removed).To(gomega.Equal(1))
	g.Expect(n.reports[len(n.reports)-1].Removed).To(gomega.BeTrue())
	n.snapshot.Uninstall, n.ops = false, 0
	g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
	g.Expect(n.ops).To(gomega.BeZero(), "the annotation goes before the agent does")
	_, err := n.offers.Current()
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("uninstalled")))
}

// slow is a kernel of which a pass takes a second.
type slow struct{ *node }

func (s slow) Observe(ctx context.Context, want model.State) (model.State, error) {
	time.Sleep(time.Second)
	return s.node.Observe(ctx, want)
}

func TestPassesPauseWhereChangesDoNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		s := n.applier()
		s.cfg.Kernel = slow{n}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		for range 100 {
			s.Trigger()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if passes := len(n.reports); passes < 7 || passes > 9 {
			t.Errorf("%d passes of a second in ten, want one in 1.3 seconds", passes)
		}
		// One change alone does not wait.
		before := len(n.reports)
		s.Trigger()
		time.Sleep(settle + time.Second + time.Millisecond)
		synctest.Wait()
		if len(n.reports) != before+1 {
			t.Error("a change after a time without any has to wait")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSearchThatFailsInPartReportsTheOthersAndWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n := newNode()
		n.findings, n.blind = []model.Finding{{Type: "ForeignRoute"}}, errors.New("no socket")
		s := n.applier()
		for range 3 {
			g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
			g.Expect(n.reports[len(n.reports)-1].Findings).To(gomega.Equal(n.findings))
		}
		g.Expect(n.searches).To(gomega.Equal(1))

		// What was found stays where nothing can be looked at.
		time.Sleep(lookInterval)
		found := n.findings
		n.findings = nil
		g.Expect(s.Pass(t.Context())).To(gomega.Succeed())
		g.Expect(n.searches).To(gomega.Equal(2))
		g.Expect(n.reports[len(n.reports)-1].Findings).To(gomega.Equal(found))
	})
}
