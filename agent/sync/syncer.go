// Package sync makes the node's kernel what the objects ask for: it holds the
// one loop of the agent, in which every change, however many came at once, leads
// to one pass of observe, diff and execute, and it serves the CNI server's
// requests between passes. What the kernel shall be is left to internal/plan,
// how it is made so to agent/kernel.
package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/source"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// Source says what the API holds.
type Source interface {
	Snapshot(ctx context.Context) (source.Snapshot, error)
}

// Kernel observes and changes the kernel's network.
type Kernel interface {
	Observe(ctx context.Context, want model.State) (model.State, error)
	Execute(ctx context.Context, ops []diff.Op) error
}

// Links makes and removes the links of pods.
type Links interface {
	Attach(ctx context.Context, pod model.Pod) error
	Detach(ctx context.Context, pod model.Pod) error
	CheckAttached(ctx context.Context, pod model.Pod) error
}

// Node tells about the node, and takes podnet off it.
type Node interface {
	// Host returns what the node is, and what of it does not fit the options.
	Host(ctx context.Context) (model.Host, []model.Problem, error)
	// Findings returns what is in the network's way, given the node's own blocks.
	Findings(ctx context.Context, own []model.Block) ([]model.Finding, error)
	// Remove takes everything that podnet made off the node.
	Remove(ctx context.Context) error
}

// Config is what a Syncer works with.
type Config struct {
	Source Source
	Kernel Kernel
	Links  Links
	Node   Node
	// Pods returns the pods whose links exist on the node.
	Pods func(ctx context.Context) ([]model.Pod, error)
	// Report is told what each pass found.
	Report func(status.Report)
	// Serve is called after each pass that left the node able to carry pods.
	Serve func(ctx context.Context) error
	// Sweep is called after each pass that nothing but time asked for: it lets go
	// of attachments whose pods went without a word from the runtime.
	Sweep func(ctx context.Context) error
	// FullInterval is the time between passes when nothing changes.
	FullInterval time.Duration
}

// Syncer is the agent's loop. Its methods may be called concurrently.
type Syncer struct {
	cfg     Config
	trigger chan struct{}

	// mu is held through a pass and through a pod's attachment, so that a pass
	// never takes for foreign what an attachment is just making.
	mu sync.Mutex
	// cluster and plan are those of the last pass that had a network; nil before.
	cluster *model.Cluster
	plan    *model.Plan
	// fatal says why pods cannot be attached; nil where they can.
	fatal error
	// failed says why the last pass did not do what the objects ask; nil where it did.
	failed   error
	removed  bool
	findings []model.Finding
	// looked is when findings were last looked for.
	looked time.Time
}

// New returns a Syncer that does nothing before Run.
func New(cfg Config) *Syncer {
	unheard := errors.New("the agent has just started and has not heard from the API server yet")
	return &Syncer{cfg: cfg, trigger: make(chan struct{}, 1), fatal: unheard, failed: unheard}
}

// Trigger asks for a pass. Any number of calls before the pass begins lead to one.
func (s *Syncer) Trigger() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

// Times between passes after failures, doubling from the first to the second.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	// settle is how long a pass waits for further changes after the first.
	settle = 50 * time.Millisecond
	// lookInterval is the least time between searches for what is in the way.
	lookInterval = 30 * time.Second
)

// Run makes passes until ctx ends: when triggered, when the last one failed, and
// at least every FullInterval.
func (s *Syncer) Run(ctx context.Context) error {
	retry := firstRetry
	wait := time.Duration(0)
	for {
		full := false
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.trigger:
			timer.Stop()
			// Changes come in bursts: let the burst pass.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		case <-timer.C:
			full = true
		}
		err := s.Pass(ctx)
		if err == nil && full {
			err = s.cfg.Sweep(ctx)
		}
		if err != nil {
			log.FromContext(ctx).Error(err, "pass failed, trying again", "after", retry.String())
			wait = retry
			retry = min(2*retry, lastRetry)
			continue
		}
		retry, wait = firstRetry, s.cfg.FullInterval
	}
}

// Pass makes the kernel what the objects ask for, once, and reports. It returns
// an error when another try may help.
func (s *Syncer) Pass(ctx context.Context) error {
	s.mu.Lock()
	report, err := s.pass(ctx)
	s.failed = err
	serving := err == nil && s.fatal == nil
	s.mu.Unlock()
	if report != nil {
		s.cfg.Report(*report)
	}
	if err != nil {
		return err
	}
	if serving {
		return s.cfg.Serve(ctx)
	}
	return nil
}

func (s *Syncer) pass(ctx context.Context) (*status.Report, error) {
	start := time.Now()
	defer func() { passSeconds.Observe(time.Since(start).Seconds()) }()
	if s.removed {
		return nil, nil
	}
	snap, err := s.cfg.Source.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the objects: %w", err)
	}
	if snap.Uninstall {
		return s.remove(ctx)
	}
	host, problems, err := s.cfg.Node.Host(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the node: %w", err)
	}
	pods, err := s.cfg.Pods(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the attachments: %w", err)
	}
	cluster := model.Cluster{Network: snap.Network, Blocks: snap.Blocks, RouteModes: snap.RouteModes, Host: host, Pods: pods}
	wanted := plan.Build(cluster)
	report := &status.Report{Plan: wanted, Host: host, Pods: pods}
	report.Problems = slices.Concat(explain(wanted.Problems, snap.RangeSummary), problems, snap.Problems)
	if snap.Network == nil {
		// The network may have been deleted by mistake: what the node has stays as
		// it is until there is one again.
		s.fatal = fatalOf(report.Problems)
		return report, nil
	}
	err = s.apply(ctx, wanted.State)
	if err != nil {
		report.Problems = append([]model.Problem{{Reason: model.ReasonKernelError, Message: fmt.Sprintf("%v.", err), Fatal: true}}, report.Problems...)
	}
	s.cluster, s.plan, s.fatal = &cluster, &wanted, fatalOf(report.Problems)
	report.Findings = s.look(ctx, wanted.Blocks)
	return report, err
}

// apply executes the difference between what the kernel is and what it shall be.
func (s *Syncer) apply(ctx context.Context, want model.State) error {
	have, err := s.cfg.Kernel.Observe(ctx, want)
	if err != nil {
		return fmt.Errorf("observe the kernel: %w", err)
	}
	ops := diff.Diff(want, have)
	if len(ops) == 0 {
		return nil
	}
	operations.Add(float64(len(ops)))
	log.FromContext(ctx).Info("changing the kernel", "operations", len(ops))
	if err := s.cfg.Kernel.Execute(ctx, ops); err != nil {
		return fmt.Errorf("change the kernel: %w", err)
	}
	return nil
}

// look searches for what is in the way, now and then: it lists every rule of the node.
func (s *Syncer) look(ctx context.Context, own []model.Block) []model.Finding {
	if time.Since(s.looked) < lookInterval {
		return s.findings
	}
	findings, err := s.cfg.Node.Findings(ctx, own)
	if err != nil {
		log.FromContext(ctx).Error(err, "cannot look for what is in the network's way")
		return s.findings
	}
	s.findings, s.looked = findings, time.Now()
	return findings
}

// remove takes podnet off the node. After that the agent does nothing more until
// it is started again.
func (s *Syncer) remove(ctx context.Context) (*status.Report, error) {
	if err := s.cfg.Node.Remove(ctx); err != nil {
		return nil, fmt.Errorf("take podnet off the node: %w", err)
	}
	s.removed = true
	s.fatal = errors.New("podnet is being uninstalled")
	log.FromContext(ctx).Info("podnet was taken off this node, as an uninstall asks")
	return &status.Report{Removed: true}, nil
}

// Ready returns nil when the last pass did what the objects ask. That they ask for
// nothing, as there is no network or no block yet, is not the agent's failure: an
// installation that waits for its agents makes the network after them.
func (s *Syncer) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Removed says whether podnet was taken off the node.
func (s *Syncer) Removed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
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

// Serving implements cni.Network.
func (s *Syncer) Serving() (cni.Serving, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return cni.Serving{}, s.fatal
	}
	out := cni.Serving{Attachment: s.cluster.Network.Attachment, MTU: s.plan.MTU}
	for _, b := range s.plan.Blocks {
		if b.State == model.BlockActive {
			out.Blocks = append(out.Blocks, b.CIDR)
		}
	}
	// A pod's primary address is of the family that the network names first.
	primary4 := s.cluster.Network.Ranges[0].Addr().Is4()
	slices.SortStableFunc(out.Blocks, func(a, b netip.Prefix) int {
		return cmp.Compare(rank(a, primary4), rank(b, primary4))
	})
	return out, nil
}

func rank(p netip.Prefix, primary4 bool) int {
	if p.Addr().Is4() == primary4 {
		return 0
	}
	return 1
}

// Attach implements cni.Network: it makes the pod's link, and returns when the
// pod's routes, neighbours and firewall elements are in the kernel.
func (s *Syncer) Attach(ctx context.Context, pod model.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return s.fatal
	}
	if err := s.cfg.Links.Attach(ctx, pod); err != nil {
		return fmt.Errorf("make the pod's link: %w", err)
	}
	if err := s.cfg.Kernel.Execute(ctx, diff.Additions(plan.PodParts(*s.cluster, pod))); err != nil {
		return fmt.Errorf("make the pod's routes: %w", err)
	}
	return nil
}

// Detach implements cni.Network: it takes away what Attach made. What is gone
// already does not matter. It works before the API server was heard from.
func (s *Syncer) Detach(ctx context.Context, pod model.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != nil {
		if err := s.cfg.Kernel.Execute(ctx, diff.Removals(plan.PodParts(*s.cluster, pod))); err != nil {
			return fmt.Errorf("remove the pod's routes: %w", err)
		}
	}
	if err := s.cfg.Links.Detach(ctx, pod); err != nil {
		return fmt.Errorf("remove the pod's link: %w", err)
	}
	// The report counts pods; and before the first pass, it is the pass that
	// removes the pod's routes.
	s.Trigger()
	return nil
}

// CheckAttached says what is missing of a pod's attachment.
func (s *Syncer) CheckAttached(ctx context.Context, pod model.Pod) error {
	return s.cfg.Links.CheckAttached(ctx, pod)
}
