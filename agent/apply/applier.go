// Package apply makes the node's kernel what the objects ask for: in a loop of
// passes, each of which observes, diffs and executes, and between which attachments
// may change the kernel too. What the kernel shall be is left to internal/plan,
// how it is made so to agent/kernel.
package apply

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// Source says what the API asks for, without waiting.
type Source interface {
	Objects() (state.Objects, error)
}

// Kernel observes and changes the kernel's network.
type Kernel interface {
	Observe(ctx context.Context, want model.State) (model.State, error)
	Execute(ctx context.Context, ops []diff.Op) error
}

// Links makes the links of pods.
type Links interface {
	Attach(ctx context.Context, pod model.Pod) error
	CheckAttached(ctx context.Context, pod model.Pod) error
}

// Paths proves the paths to other nodes' blocks.
type Paths interface {
	// Netns is the namespace from which probes are sent: it is attached as a pod is.
	Netns() string
	// Listen is called when that attachment was made.
	Listen(probe model.Pod, network string) error
	// Evidence returns what is known of the paths.
	Evidence(ctx context.Context) (map[netip.Prefix]model.Evidence, error)
	// Aim takes the paths that are in force.
	Aim(choices []model.PathChoice)
}

// Node reports on the node, and takes podnet off it.
type Node interface {
	// Host returns what the node is, and what of it does not fit the options.
	Host(ctx context.Context) (model.Host, []model.Problem, error)
	// Findings returns what is in the network's way, given its ranges, the node's own
	// blocks and the attachment of the probes, nil where that is not in force. With an
	// error it returns those that it found all the same, and nil where it could not look at all.
	Findings(ctx context.Context, ranges []netip.Prefix, own []model.Block, probe *model.Pod) ([]model.Finding, error)
	// Remove takes everything that podnet made off the node.
	Remove(ctx context.Context) error
}

// Config is what an Applier works with.
type Config struct {
	// Passes, unless it is nil, is raised by others when a pass is needed.
	Passes loop.Signal
	Source Source
	Kernel Kernel
	Links  Links
	// Offers are told what new pods get after each pass.
	Offers *attach.Offers
	// Paths, unless it is nil, proves paths, and PathsNews is raised when what it knows of
	// them has changed.
	Paths     Paths
	PathsNews loop.Signal
	// Policy, unless it is nil, returns what of network policy is not enforced as asked.
	Policy func() []model.Problem
	// Rights, unless it is nil, returns what is found of the rights that agents have.
	Rights func() []model.Finding
	Node   Node
	// Pods returns the pods whose links exist on the node.
	Pods func(ctx context.Context) ([]model.Pod, error)
	// Usage returns how many addresses of each block are in use, those of pods that
	// are just being attached included, given the blocks that the node holds.
	Usage func(held []netip.Prefix) map[netip.Prefix]int64
	// Waiting returns how many pods wait for an address of IPv4 and of IPv6.
	Waiting func() [2]int64
	// Report is told what each pass found.
	Report func(status.Report)
	// Watcher reports changes to the kernel between passes, for Watch.
	Watcher Watcher
	// Repaired, unless it is nil, is told what others had changed and a pass put
	// right. It must not block.
	Repaired func([]diff.Repair)
	// PathsChanged, unless it is nil, is told which paths were changed. It must not block.
	PathsChanged func([]status.PathChange)
	// Install is called after the first pass that left the node able to carry pods,
	// and now and then after later ones.
	Install func(ctx context.Context) error
	// FullInterval is the time between passes when nothing changes.
	FullInterval time.Duration
}

// Applier makes the passes, and follows what happens between them. Its methods may be called concurrently.
type Applier struct {
	// Loop makes the passes.
	*loop.Loop
	cfg Config
	// notes are what is seen of the kernel between passes.
	notes *notes

	// rerouted is what was done while a pass was under way.
	rerouted rerouted
	// aiming is held while the prober is handed what was published last.
	aiming sync.Mutex
	// states are published by passes that have a network.
	states state.Store
	// found is what the last pass found in the kernel; nil before the first.
	found atomic.Pointer[Found]
	// outcome is what became of the last pass, and removed says that podnet was taken off
	// the node: who asks does not wait for a pass.
	outcome atomic.Pointer[outcome]
	removed atomic.Bool

	// mu is held by who writes the kernel, a pass or a pod's attachment, so that a pass
	// never takes for foreign what an attachment is just making. It guards what follows.
	mu sync.Mutex
	// fatal says why pods cannot be attached; nil where they can.
	fatal error
	// rollCall is the manager's request that the last pass answered.
	rollCall string
	// probe is the attachment of the namespace from which probes are sent, and network
	// that for which it listens; nil before it is there.
	probe   *model.Pod
	network string
	// probeRetry is after what time that is tried again.
	probeRetry loop.Backoff

	// counting is held while addresses are counted and reported, and never while the kernel
	// is written. It guards what follows.
	counting sync.Mutex
	// reported is what the last pass found, with the counts of this moment; nil before the first.
	reported *status.Report

	// What follows is the loop's alone.

	findings []model.Finding
	// looked is when findings were last looked for, and installed when Install last
	// succeeded.
	looked, installed time.Time
}

// Found is what a pass found in the kernel, before it changed any of it. It does not change.
type Found struct {
	At time.Time
	// Have is what the kernel had, and Operations what the pass did next.
	Have       model.State
	Operations []string
}

// outcome says why a pass did not do what the objects ask; nil where it did.
type outcome struct{ failed error }

// New returns an Applier that does nothing before Run.
func New(cfg Config) *Applier {
	_, unheard := cfg.Offers.Current()
	s := &Applier{cfg: cfg, notes: newNotes(), fatal: unheard, probeRetry: loop.Backoff{First: firstRetry}}
	s.outcome.Store(&outcome{failed: unheard})
	s.Loop = loop.New(loop.Config{
		Asked: cfg.Passes, Pass: s.Pass, Failure: "pass failed, trying again",
		Settle: settle, PauseFactor: pauseFactor, MostPause: mostPause, FirstRetry: firstRetry, FullInterval: cfg.FullInterval,
	})
	return s
}

// Times of the loop.
const (
	firstRetry = 500 * time.Millisecond
	settle     = 50 * time.Millisecond
	// Changes do not end for a while when thousands of paths are being proven. A path that
	// fails shall not be waited for longer than mostPause even then.
	pauseFactor = 2
	mostPause   = 300 * time.Millisecond
	// passTimeout bounds a pass that the kernel holds up.
	passTimeout = 2 * time.Minute
	// lookInterval is the least time between searches for what is in the way.
	lookInterval = 30 * time.Second
)

// Pass makes the kernel what the objects ask for, once, and reports. It returns
// an error when another try may help.
func (s *Applier) Pass(ctx context.Context) error {
	// What was begun is brought to its end also when the agent is told to stop:
	// half a change is the one thing that could be in a packet's way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), passTimeout)
	defer cancel()

	s.mu.Lock()
	if s.removed.Load() {
		s.mu.Unlock()
		return nil
	}
	report, err := s.pass(ctx)
	s.publishOffer()
	able := err == nil && s.fatal == nil && !report.Removed
	var ranges []netip.Prefix
	var own []model.Block
	var probe *model.Pod
	if st := s.states.Current(); st != nil {
		ranges, own = st.Cluster.Network.Ranges, st.Plan.Blocks
	}
	if report.InForce && !report.Refused {
		probe = s.probe
	}
	s.mu.Unlock()

	if able && time.Since(s.installed) >= s.cfg.FullInterval {
		if err = s.cfg.Install(ctx); err == nil {
			s.installed = time.Now()
		} else {
			err = fmt.Errorf("let the runtime send pods: %w", err)
			report.Problems = append(report.Problems, kernelProblem(err))
		}
	}
	if !report.Removed {
		report.Findings = s.look(ctx, ranges, own, probe)
		if s.cfg.Rights != nil {
			report.Findings = slices.Concat(report.Findings, s.cfg.Rights())
		}
	}
	s.outcome.Store(&outcome{failed: err})
	s.counting.Lock()
	defer s.counting.Unlock()
	s.report(report)
	return err
}

// kernelProblem says that the node itself keeps the agent from doing its work.
func kernelProblem(err error) model.Problem {
	return model.Problem{Reason: model.ReasonKernelError, Message: fmt.Sprintf("The agent cannot do its work on this node, and tries again: %v.", err), Fatal: true}
}

// pass is Pass without what follows from it. Its report is that of the last pass,
// with what went wrong, where it cannot tell anything new.
func (s *Applier) pass(ctx context.Context) (status.Report, error) {
	start := time.Now()
	defer func() { passSeconds.Observe(time.Since(start).Seconds()) }()
	report, err := s.program(ctx)
	if err != nil {
		report.Problems = append([]model.Problem{kernelProblem(err)}, report.Problems...)
	}
	return report, err
}

func (s *Applier) program(ctx context.Context) (status.Report, error) {
	last := status.Report{}
	if st := s.states.Current(); st != nil {
		last = status.Report{Plan: st.Plan, Host: st.Cluster.Host, Pods: withoutProbe(st.Cluster.Pods), RollCall: s.rollCall}
	}
	snap, err := s.cfg.Source.Objects()
	if err != nil {
		return last, fmt.Errorf("read the objects: %w", err)
	}
	if snap.Uninstall {
		return s.remove(ctx, last)
	}
	s.notes.lookAtHost()
	host, problems, err := s.cfg.Node.Host(ctx)
	if err != nil {
		return last, fmt.Errorf("look at the node: %w", err)
	}
	pods, err := s.cfg.Pods(ctx)
	if err != nil {
		return last, fmt.Errorf("read the attachments: %w", err)
	}
	cluster := model.Cluster{
		Network: snap.Network, Blocks: snap.Blocks, Former: snap.Former, RouteModes: snap.RouteModes, Host: host, Pods: pods,
	}
	s.leaveFormer(cluster)
	wanted, err := s.plan(ctx, cluster)
	if err != nil {
		return last, err
	}
	s.rollCall = snap.RollCall
	report := status.Report{Plan: wanted, Host: host, Pods: pods, RollCall: snap.RollCall}
	report.Problems = slices.Concat(explain(wanted.Problems, snap.RangeSummary), problems, snap.Problems)
	if s.cfg.Policy != nil {
		report.Problems = append(report.Problems, s.cfg.Policy()...)
	}
	if snap.Network == nil {
		// The network may have been deleted by mistake: what the node has stays as
		// it is until there is one again.
		s.fatal = fatalOf(report.Problems)
		return report, nil
	}
	missing, err := s.apply(ctx, wanted.State)
	if err != nil {
		// Peers that cannot be reached, for one, are no reason to keep pods waiting.
		if !missing {
			s.aim()
			report.InForce, report.Refused = true, true
			report.Problems = append(report.Problems, model.Problem{
				Reason: model.ReasonKernelError, Message: fmt.Sprintf("Part of this node's network is not set up, and the agent tries again: %v.", err),
			})
			s.fatal = fatalOf(report.Problems)
			return report, nil
		}
		s.fatal = err
		return report, err
	}
	report.InForce = true
	s.aim()
	s.fatal = fatalOf(report.Problems)
	if s.fatal == nil {
		var again time.Duration
		if again, s.fatal = attach.BlockToCome(wanted, report.Problems, time.Now()); again > 0 {
			time.AfterFunc(again, s.Trigger)
		}
	}
	return report, nil
}

// plan computes the plan of a cluster, and publishes it where there is a network.
func (s *Applier) plan(ctx context.Context, cluster model.Cluster) (model.Plan, error) {
	for {
		was := s.states.Current()
		known, problems, err := s.withPaths(ctx, cluster)
		if err != nil {
			return model.Plan{}, err
		}
		wanted := plan.Build(known)
		wanted.Problems = append(wanted.Problems, problems...)
		if known.Network == nil {
			return wanted, nil
		}
		if s.states.Publish(was, known, wanted) == nil {
			// A path was left meanwhile: more is known of it by now.
			continue
		}
		before := model.Plan{}
		if was != nil {
			before = was.Plan
		}
		s.reportChanges(ctx, before, wanted)
		return wanted, nil
	}
}

// apply executes the difference between what the kernel is and what it shall be.
// Of an error it reports whether what every pod needs is missing now.
func (s *Applier) apply(ctx context.Context, want model.State) (missing bool, err error) {
	s.notes.look()
	have, err := s.cfg.Kernel.Observe(ctx, want)
	if err != nil {
		return true, fmt.Errorf("observe the kernel: %w", err)
	}
	want = s.rerouted.in(want)
	ops := diff.Diff(want, have)
	s.found.Store(&Found{At: time.Now(), Have: have, Operations: describe(ops)})
	before := s.notes.want(want, peerEndpoints(s.states.Current().Cluster))
	if len(ops) == 0 {
		s.notes.settle(before, have, nil, nil)
		return false, nil
	}
	operations.Add(float64(len(ops)))
	log.FromContext(ctx).Info("changing the kernel", "operations", len(ops))
	failed := errors.Join(s.cfg.Kernel.Execute(ctx, ops), s.putAgain(ctx))
	if failed == nil {
		s.repaired(ctx, s.notes.settle(before, have, ops, nil))
		return false, nil
	}
	failed = fmt.Errorf("change the kernel: %w", failed)
	log.FromContext(ctx).Error(failed, "not all of the kernel is as it shall be")
	now, err := s.cfg.Kernel.Observe(ctx, want)
	if err != nil {
		// What was done is unknown: the next pass cannot blame anybody.
		s.notes.settle(before, have, ops, ops)
		return true, errors.Join(failed, err)
	}
	left := diff.Diff(want, now)
	s.repaired(ctx, s.notes.settle(before, have, ops, left))
	return slices.ContainsFunc(left, essential), failed
}

// essential reports whether pods cannot do without an operation. The address of one pod's
// link, which may be going, is none of the others' business.
func essential(op diff.Op) bool {
	if op.Verb != diff.Put {
		return false
	}
	switch o := op.Object.(type) {
	case model.Table, diff.Elements, model.Rule, model.Link:
		return true
	case model.Address:
		return !strings.HasPrefix(o.Link, model.PodLinkPrefix) || o.Link == model.BridgeLink
	default:
		return false
	}
}

// look searches for what is in the way, now and then.
func (s *Applier) look(ctx context.Context, ranges []netip.Prefix, own []model.Block, probe *model.Pod) []model.Finding {
	if time.Since(s.looked) < lookInterval {
		return s.findings
	}
	findings, err := s.cfg.Node.Findings(ctx, ranges, own, probe)
	if err != nil {
		log.FromContext(ctx).Error(err, "cannot look for all that may be in the network's way")
	}
	s.looked = time.Now()
	if err == nil || findings != nil {
		s.findings = findings
	}
	return s.findings
}

// remove takes podnet off the node. After that the agent does nothing more until
// it is started again.
func (s *Applier) remove(ctx context.Context, last status.Report) (status.Report, error) {
	s.rerouted.end()
	if err := s.cfg.Node.Remove(ctx); err != nil {
		return last, fmt.Errorf("take podnet off the node: %w", err)
	}
	s.removed.Store(true)
	s.fatal = errors.New("podnet is being uninstalled")
	log.FromContext(ctx).Info("podnet was taken off this node, as an uninstall asks")
	return status.Report{Removed: true}, nil
}

// Ready returns nil when the last pass did what the objects ask. That they ask for
// nothing, as there is no network or no block yet, is not the agent's failure: an
// installation that waits for its agents makes the network after them.
func (s *Applier) Ready() error { return s.outcome.Load().failed }

// State returns the State of the last pass that had a network; nil before there was one. It
// does not wait.
func (s *Applier) State() *state.State { return s.states.Current() }

// Found returns what the last pass found in the kernel; nil before there was one. It does not
// wait.
func (s *Applier) Found() *Found { return s.found.Load() }

// Removed reports whether podnet was taken off the node.
func (s *Applier) Removed() bool { return s.removed.Load() }

// publishOffer makes what new pods get follow from the pass.
func (s *Applier) publishOffer() {
	offer := attach.Offer{}
	if st := s.states.Current(); st != nil {
		offer = attach.OfferOf(*st.Cluster.Network, st.Plan)
	}
	s.cfg.Offers.Publish(offer, s.fatal)
}

func describe(ops []diff.Op) []string {
	out := make([]string, 0, len(ops))
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}

// explain adds the ranges' figures to the problem that only they explain.
func explain(problems []model.Problem, ranges string) []model.Problem {
	out := slices.Clone(problems)
	for i := range out {
		if out[i].Reason == model.ReasonNoBlock && ranges != "" {
			out[i].Message += fmt.Sprintf(" The network's ranges: %s.", ranges)
		}
	}
	return out
}

func fatalOf(problems []model.Problem) error {
	for _, p := range problems {
		if p.Fatal {
			return errors.New(p.Message)
		}
	}
	return nil
}
