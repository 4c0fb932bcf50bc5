// Package policy keeps the node's policy tables: it has them computed when something
// changes that they follow from, puts the change into the kernel, and makes a pod's ADD
// wait until what is to be enforced on the pod is in the kernel. What the tables are is left
// to internal/policy, and the doing to agent/kernel.
package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/agent/loop"
	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/clusterpolicies"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	compiler "github.com/podnet/podnet/internal/policy"
)

// Source says what the API holds.
type Source interface {
	Policies(ctx context.Context) (state.Policies, error)
}

// Config is what an Enforcer works with.
type Config struct {
	// Passes, unless it is nil, is raised by others when a pass is needed.
	Passes loop.Signal
	Source Source
	// NFT is nftables on the node.
	NFT writer.Kernel
	Log Log
	// Denied records an Event on a denial.
	Denied func(compiler.Denial)
	// Pods returns all pods that have addresses of this node, whether their links are
	// made, to be made, or to be removed.
	Pods func() []model.Pod
	// FullInterval is the time between passes when nothing changes.
	FullInterval time.Duration
}

// Enforcer is the loop that enforces network policy. Its methods may be called
// concurrently.
type Enforcer struct {
	// Loop makes the passes.
	*loop.Loop
	cfg Config

	// index is what the API held when it was last read; nil before.
	index atomic.Pointer[compiler.Index]
	// problems are those that were found last, for others to read while tables are changed.
	problems atomic.Pointer[[]model.Problem]

	// tables are those of the node.
	tables *writer.Writer
	// counted are the rules whose packets are counted.
	counted atomic.Pointer[[]compiler.CountedRule]

	// mu is held while tables are computed and changed, which may take seconds: who asks
	// for anything but that must not wait for it. It guards what follows.
	mu sync.Mutex
	// changed is closed when there is another index.
	changed chan struct{}
	// removed says that podnet was taken off the node.
	removed bool
	// unread are the problems of objects, unknown are attached pods without labels, and
	// notCounted policies that are too many to be counted.
	unread     []model.Problem
	unknown    []model.Pod
	notCounted []string
	// tooLarge are policies, and closed namespaces, that cost too much to be enforced as asked.
	tooLarge, closed []string
	failed           error
	reporter         *reporter
}

// New returns an Enforcer that does nothing before Run.
func New(cfg Config) *Enforcer {
	e := &Enforcer{cfg: cfg, changed: make(chan struct{}), tables: writer.NewWriter(cfg.NFT, model.PolicyTable, drift.Inc), reporter: newReporter(cfg.Denied)}
	e.Loop = loop.New(loop.Config{
		Asked: cfg.Passes, Pass: e.Pass, Failure: "cannot enforce network policy as it is, trying again",
		Expected: func(err error) bool { return errors.Is(err, clusterpolicies.ErrUnknown) },
		Settle:   settle, PauseFactor: pauseFactor, FirstRetry: firstRetry, FullInterval: cfg.FullInterval,
		Answered: func(after time.Duration) { propagationSeconds.Observe(after.Seconds()) },
	})
	return e
}

// Times of the loop.
const (
	// settle is how long a pass waits for further changes after the first.
	settle = 20 * time.Millisecond
	// pauseFactor is how many times as long as a pass takes the pause after it is: where
	// changes do not end, passes take a fifth of the time.
	pauseFactor = 4
	firstRetry  = 200 * time.Millisecond
	// passTimeout bounds a pass that the kernel holds up.
	passTimeout = time.Minute
	// labelsWait is how long an ADD waits for a pod's labels. The rest of its time is
	// for an address, and for the link.
	labelsWait = 10 * time.Second
)

// Pass reads the objects and enforces what they say.
func (e *Enforcer) Pass(ctx context.Context) error {
	// What was begun is brought to its end also when the agent is told to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), passTimeout)
	defer cancel()
	start := time.Now()
	defer func() { passSeconds.Observe(time.Since(start).Seconds()) }()
	found, err := e.cfg.Source.Policies(ctx)
	if err != nil {
		return fmt.Errorf("read what policies go by: %w", err)
	}
	found.Objects.Sample = e.reporter.want(found.Denied)
	index := compiler.NewIndex(found.Objects, found.Blocks)
	e.mu.Lock()
	defer e.mu.Unlock()
	if found.Uninstall || e.removed {
		// Once it was taken off, an agent does nothing more until it is started again: the
		// object that asked for it goes before the agent does.
		return e.remove(ctx)
	}
	e.index.Store(index)
	e.unread = found.Problems
	close(e.changed)
	e.changed = make(chan struct{})
	return e.enforce(ctx)
}

// enforce makes the kernel's tables what they shall be. The caller holds mu.
func (e *Enforcer) enforce(ctx context.Context) error {
	defer e.publish()
	result := e.index.Load().Build(e.cfg.Pods())
	e.unknown, e.notCounted = result.Unknown, result.NotCounted
	e.tooLarge, e.closed = result.TooLarge, result.Closed
	if e.failed = e.tables.Write(ctx, result.Tables); e.failed != nil {
		failures.Inc()
		return fmt.Errorf("change the policy tables: %w", e.failed)
	}
	e.counted.Store(&result.Counted)
	return nil
}

// remove takes the tables away, once, as podnet goes.
func (e *Enforcer) remove(ctx context.Context) error {
	if e.removed {
		return nil
	}
	e.index.Store(nil)
	if err := e.tables.Remove(ctx); err != nil {
		return fmt.Errorf("take the policy tables away: %w", err)
	}
	e.removed = true
	return nil
}

// Admit returns when the kernel enforces the policies that select a pod which is about
// to be attached, and nothing else may send to it or get from it what they forbid. It
// waits for the pod's labels.
func (e *Enforcer) Admit(ctx context.Context, pod model.Pod) error {
	limit := time.NewTimer(labelsWait)
	defer limit.Stop()
	for {
		changed, err := e.admit(ctx, pod)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the labels of pod %s/%s: %w", pod.Namespace, pod.Name, context.Cause(ctx))
		case <-limit.C:
			return types.NewError(types.ErrTryAgainLater, err.Error(), "")
		}
	}
}

// admit enforces what there is to be enforced on a pod; where that is unknown, it returns
// a channel that is closed when it may be, and why it is not.
func (e *Enforcer) admit(ctx context.Context, pod model.Pod) (<-chan struct{}, error) {
	if !e.mu.TryLock() {
		// A large change may take seconds.
		if e.isFree(pod) {
			return nil, nil
		}
		e.mu.Lock()
	}
	defer e.mu.Unlock()
	index := e.index.Load()
	if index == nil {
		return e.changed, errors.New("the agent has not heard from the API server yet which network policies there are")
	}
	if !index.CanAttach(pod) {
		return e.changed, fmt.Errorf("the labels of pod %s/%s are unknown, which say what network policies select it: "+
			"the API server has not told the agent of the pod (UID %s) within %s", pod.Namespace, pod.Name, pod.UID, labelsWait)
	}
	if err := e.enforce(ctx); err != nil {
		// The next pass writes all of it.
		e.Trigger()
		return nil, err
	}
	return nil, nil
}

// isFree reports whether no policy is about a pod, and none was about a former pod that had
// its addresses, whether the change that is under way succeeds or not.
func (e *Enforcer) isFree(pod model.Pod) bool {
	index, written := e.index.Load(), e.tables.MayHave()
	if index == nil || written == nil || !index.CanAttach(pod) {
		return false
	}
	keys := []string{pod.HostLink}
	for _, a := range pod.Addrs {
		keys = append(keys, a.String())
	}
	for _, t := range slices.Concat(written, index.Build(e.cfg.Pods()).Tables) {
		if t.Mentions(keys) {
			return false
		}
	}
	return true
}

// Tables returns the policy tables that the kernel may have, those before a change and those after
// it while it is under way; false where that is unknown. It does not wait.
func (e *Enforcer) Tables() ([]nft.Table, bool) {
	tables := e.tables.MayHave()
	return tables, tables != nil
}

// namedPods is how many pods, or policies, a problem names.
const namedPods = 3

// Problems returns what of the policies is not enforced as asked, a sentence each. It
// does not wait for a change of the tables.
func (e *Enforcer) Problems() []model.Problem {
	var found []model.Problem
	if p := e.problems.Load(); p != nil {
		found = *p
	}
	return slices.Concat(found, e.reporter.problems())
}

// publish says what is not enforced as asked. The caller holds mu.
func (e *Enforcer) publish() {
	problems := slices.Clone(e.unread)
	if e.failed != nil {
		problems = append(problems, model.Problem{
			Reason: model.ReasonKernelError,
			Message: fmt.Sprintf("The kernel refuses a change of network policy, and the former policies stay in force: %v. "+
				"The agent tries again; if this stays, undo the last change of a policy.", e.failed),
		})
	}
	if len(e.unknown) > 0 {
		var names []string
		for _, p := range e.unknown[:min(len(e.unknown), namedPods)] {
			names = append(names, p.Namespace+"/"+p.Name)
		}
		problems = append(problems, model.Problem{
			Reason: model.ReasonDegraded,
			Message: fmt.Sprintf("The labels of %d pods of this node are unknown, as the API server has no such pods (%s): "+
				"every network policy of their namespaces isolates them. Remove those from the node that should not run (crictl rmp).", len(e.unknown), strings.Join(names, ", ")),
		})
	}
	if n := len(e.tooLarge); n > 0 {
		problems = append(problems, model.Problem{
			Reason: model.ReasonDegraded,
			Message: fmt.Sprintf("%d NetworkPolicies allow nothing (%s), as the NetworkPolicies of a namespace may name %d blocks at most: "+
				"name larger blocks, or fewer.", n, strings.Join(e.tooLarge[:min(n, namedPods)], ", "), compiler.MostBlocks),
		})
	}
	if n := len(e.closed); n > 0 {
		problems = append(problems, model.Problem{
			Reason: model.ReasonDegraded,
			Message: fmt.Sprintf("The NetworkPolicies of %d namespaces allow their pods on this node nothing (%s), as they name so many different peers "+
				"that their rules would take more than %d elements of nftables: let rules share their peers, or merge policies.",
				n, strings.Join(e.closed[:min(n, namedPods)], ", "), compiler.MostElements),
		})
	}
	if n := len(e.notCounted); n > 0 {
		problems = append(problems, model.Problem{
			Reason: model.ReasonDegraded,
			Message: fmt.Sprintf("The packets of %d policies are not counted, though their annotation podnet.dev/count asks for it (%s): "+
				"a node counts those of %d policies at most, and none that has very many rules or peers. "+
				"They are enforced all the same. Take the annotation off others.",
				n, strings.Join(e.notCounted[:min(n, namedPods)], ", "), compiler.MostCounted),
		})
	}
	e.problems.Store(&problems)
}
