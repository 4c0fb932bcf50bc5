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
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/clusterpolicies"
	"github.com/podnet/podnet/internal/model"
	compiler "github.com/podnet/podnet/internal/policy"
)

// Source says what the API holds.
type Source interface {
	Policies(ctx context.Context) (state.Policies, error)
}

// Kernel changes the kernel's network.
type Kernel interface {
	Execute(ctx context.Context, ops []diff.Op) error
}

// Config is what an Enforcer works with.
type Config struct {
	// Passes, unless it is nil, is raised by others when a pass is needed.
	Passes loop.Signal
	Source Source
	Kernel Kernel
	Tables Tables
	Log    Log
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

	// written are the tables that the kernel may have, those before a change and after it
	// while it is under way; nil where that is not known.
	written atomic.Pointer[[]model.Table]

	// mu is held while tables are computed and changed, which may take seconds: who asks
	// for anything but that must not wait for it. It guards what follows.
	mu sync.Mutex
	// changed is closed when there is another index.
	changed chan struct{}
	// have are the tables as they were last written; nil where it is not known what
	// the kernel has, which stays as it is until all of it is replaced at once.
	have []model.Table
	// old are parts of them that were emptied and are to be deleted.
	old map[string]diff.TableParts
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
	tally            tally
	counts           *counts
	teller           *teller
}

// New returns an Enforcer that does nothing before Run.
func New(cfg Config) *Enforcer {
	e := &Enforcer{cfg: cfg, changed: make(chan struct{}), counts: newCounts(cfg.Tables), teller: newTeller(cfg.Denied)}
	e.Loop = loop.New(loop.Config{
		Asked: cfg.Passes, Pass: e.Pass, Failure: "cannot enforce network policy as it is, trying again",
		Expected: func(err error) bool { return errors.Is(err, clusterpolicies.ErrUnknown) },
		Settle:   settle, RestFactor: restFactor, FirstRetry: firstRetry, FullInterval: cfg.FullInterval,
		Answered: func(after time.Duration) { propagationSeconds.Observe(after.Seconds()) },
	})
	return e
}

// Families of the tables.
const (
	inet   = "inet"
	bridge = "bridge"
)

// Times of the loop.
const (
	// settle is how long a pass waits for further changes after the first.
	settle = 20 * time.Millisecond
	// restFactor is how many times as long as a pass takes the rest after it is: where
	// changes do not end, passes take a fifth of the time.
	restFactor = 4
	firstRetry = 200 * time.Millisecond
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
	found.Objects.Sample = e.teller.want(found.Denied)
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
	if e.foreign() {
		drift.Inc()
		e.know(nil, nil)
	}
	result := e.index.Load().Build(e.cfg.Pods())
	e.unknown, e.notCounted = result.Unknown, result.NotCounted
	e.tooLarge, e.closed = result.TooLarge, result.Closed
	ops, old := e.operations(result.Tables)
	if len(ops) > 0 {
		if e.have != nil {
			both := slices.Concat(e.have, result.Tables)
			e.written.Store(&both)
		}
		if e.failed = e.change(ctx, ops); e.failed != nil {
			// What the kernel has now is not known. All of it is replaced next time.
			e.know(nil, nil)
			failures.Inc()
			return fmt.Errorf("change the policy tables: %w", e.failed)
		}
	}
	e.forgetBridge(ctx, result.Tables)
	e.know(result.Tables, old)
	e.counts.keep(result.Counted)
	e.sweep(ctx)
	return nil
}

// know sets which tables the kernel has, and what of them is old; nil where that is not
// known. The caller holds mu.
func (e *Enforcer) know(tables []model.Table, old map[string]diff.TableParts) {
	e.have, e.old = tables, old
	if tables == nil {
		e.written.Store(nil)
		return
	}
	e.written.Store(&tables)
}

// change changes what is enforced. The caller holds mu.
func (e *Enforcer) change(ctx context.Context, ops []diff.Op) error {
	if !slices.ContainsFunc(ops, replacesCounters) {
		return e.execute(ctx, ops)
	}
	return e.counts.replace(ctx, func() error { return e.execute(ctx, ops) })
}

// replacesCounters reports whether an operation replaces the table that has counters.
func replacesCounters(op diff.Op) bool {
	t, whole := op.Object.(model.Table)
	return whole && t.Family == inet
}

// execute changes the kernel, by a transaction for each operation. The caller holds mu.
func (e *Enforcer) execute(ctx context.Context, ops []diff.Op) error {
	e.tally.own += int64(len(ops))
	err := e.cfg.Kernel.Execute(ctx, ops)
	e.tally.last = time.Now()
	return err
}

// operations returns what turns the tables into those that are wanted, and the
// parts of these that are old then.
func (e *Enforcer) operations(want []model.Table) ([]diff.Op, map[string]diff.TableParts) {
	old := map[string]diff.TableParts{}
	var ops []diff.Op
	for _, w := range want {
		i := slices.IndexFunc(e.have, func(h model.Table) bool { return h.Family == w.Family })
		if i < 0 {
			ops = append(ops, diff.Op{Verb: diff.Put, Object: w})
			continue
		}
		change, ok := diff.ChangeTable(w, e.have[i])
		if !ok {
			ops = append(ops, diff.Op{Verb: diff.Put, Object: w})
			continue
		}
		if !change.Empty() {
			ops = append(ops, diff.Op{Verb: diff.Put, Object: change})
		}
		old[w.Family] = e.old[w.Family].With(change.Old).Without(w)
	}
	for _, h := range e.have {
		if !slices.ContainsFunc(want, func(w model.Table) bool { return w.Family == h.Family }) {
			ops = append(ops, deletion(h.Family))
		}
	}
	return ops, old
}

func deletion(family string) diff.Op {
	return diff.Op{Verb: diff.Delete, Object: model.Table{Family: family, Name: model.PolicyTable}}
}

// forgetBridge deletes the table of the bridge family that an earlier agent may have
// left, where none is wanted. Where the kernel has no such tables there is none to delete.
func (e *Enforcer) forgetBridge(ctx context.Context, want []model.Table) {
	if e.have != nil || slices.ContainsFunc(want, func(w model.Table) bool { return w.Family == bridge }) {
		return
	}
	if err := e.execute(ctx, []diff.Op{deletion(bridge)}); err != nil {
		log.FromContext(ctx).V(1).Info("cannot delete a policy table of the bridge family", "reason", err.Error())
	}
}

// sweep deletes what is old. The kernel may still count it as used: then it is
// tried again after the next change, and harms nobody until then.
func (e *Enforcer) sweep(ctx context.Context) {
	for family, old := range e.old {
		if old.Empty() {
			continue
		}
		if err := e.execute(ctx, []diff.Op{{Verb: diff.Delete, Object: old}}); err != nil {
			log.FromContext(ctx).V(1).Info("cannot delete old parts of a policy table yet", "reason", err.Error())
			continue
		}
		delete(e.old, family)
	}
}

// remove takes the tables away, once, as podnet goes.
func (e *Enforcer) remove(ctx context.Context) error {
	if e.removed {
		return nil
	}
	e.know(nil, nil)
	e.index.Store(nil)
	e.forgetBridge(ctx, nil)
	if err := e.execute(ctx, []diff.Op{deletion(inet)}); err != nil {
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

// admit enforces what there is to be enforced on a pod; where that is not known, it returns
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
		return e.changed, fmt.Errorf("the labels of pod %s/%s are not known, which say what network policies select it: "+
			"the API server has not told the agent of the pod (UID %s) within %s", pod.Namespace, pod.Name, pod.UID, labelsWait)
	}
	if err := e.enforce(ctx); err != nil {
		// The next pass makes all of it anew.
		e.Trigger()
		return nil, err
	}
	return nil, nil
}

// isFree reports whether no policy is about a pod, and none was about a former pod that had
// its addresses, whether the change that is under way succeeds or not.
func (e *Enforcer) isFree(pod model.Pod) bool {
	index, written := e.index.Load(), e.written.Load()
	if index == nil || written == nil || !index.CanAttach(pod) {
		return false
	}
	return !mentions(*written, pod) && !mentions(index.Build(e.cfg.Pods()).Tables, pod)
}

// mentions reports whether an element of some tables is about a pod.
func mentions(tables []model.Table, pod model.Pod) bool {
	keys := []string{pod.HostLink}
	for _, a := range pod.Addrs {
		keys = append(keys, a.String())
	}
	for _, t := range tables {
		for _, s := range t.Sets {
			if slices.ContainsFunc(s.Elements, func(e model.Element) bool {
				return slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(e.Key, key) })
			}) {
				return true
			}
		}
	}
	return false
}

// Tables returns the policy tables that the kernel has, those before a change and those after
// it while it is under way; false where that is not known. It does not wait.
func (e *Enforcer) Tables() ([]model.Table, bool) {
	written := e.written.Load()
	if written == nil {
		return nil, false
	}
	return *written, true
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
	return slices.Concat(found, e.teller.problems())
}

// publish says what is not enforced as asked. The caller holds mu.
func (e *Enforcer) publish() {
	problems := slices.Clone(e.unread)
	if e.failed != nil {
		problems = append(problems, model.Problem{
			Reason:  model.ReasonKernelError,
			Message: fmt.Sprintf("Network policy is enforced as it was before, since the kernel refuses a change of it: %v.", e.failed),
		})
	}
	if len(e.unknown) > 0 {
		var names []string
		for _, p := range e.unknown[:min(len(e.unknown), namedPods)] {
			names = append(names, p.Namespace+"/"+p.Name)
		}
		problems = append(problems, model.Problem{
			Reason: model.ReasonDegraded,
			Message: fmt.Sprintf("The labels of %d pods of this node are not known, as the API server has no such pods (%s): "+
				"every network policy of their namespaces isolates them.", len(e.unknown), strings.Join(names, ", ")),
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
