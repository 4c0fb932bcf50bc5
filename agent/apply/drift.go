package apply

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
)

// Watcher reports what becomes of the kernel's objects (see kernel.Watch).
type Watcher interface {
	Watch(ctx context.Context, sysctls func() []model.Sysctl, seen func(diff.Sighting)) error
}

const (
	// driftSettle is how long further notifications are waited for after the first.
	driftSettle = 50 * time.Millisecond
	// lossSettle is how much longer is waited where something of the node went and
	// nothing came: what goes often comes back at once, or something in its place.
	lossSettle = 500 * time.Millisecond
	// driftInterval is the least time between two passes that notifications ask for.
	driftInterval = time.Second
	// maxSightings bounds what is noted between two passes.
	maxSightings = 10000
)

// Watch asks for a pass when the kernel reports something that is not as it shall
// be, or of something of the node by which that is decided, at most once a second,
// until ctx ends. What podnet does itself is reported too, and is as it shall be.
func (s *Applier) Watch(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.askForPasses(ctx)
	}()
	defer func() { <-done }()
	for {
		err := s.cfg.Watcher.Watch(ctx, s.notes.watchedSysctls, s.notes.see)
		if ctx.Err() != nil {
			return nil
		}
		log.FromContext(ctx).Error(err, "the kernel's notifications ended, subscribing again: passes find changes meanwhile")
		if !sleep(ctx, driftInterval) {
			return nil
		}
	}
}

// askForPasses asks for a pass wherever what was seen contradicts what is wanted.
func (s *Applier) askForPasses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.notes.wake:
		}
		if !sleep(ctx, driftSettle) || s.notes.onlyLost() && !sleep(ctx, lossSettle) {
			return
		}
		if !s.contradicted() {
			continue
		}
		driftPasses.Inc()
		s.Trigger()
		if !sleep(ctx, driftInterval) {
			return
		}
	}
}

// contradicted reports whether a pass has something to look for. It waits until what
// is being done, of which notifications tell halfway, is done.
func (s *Applier) contradicted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	contradicts, moved := s.notes.pending()
	// A pass that failed is tried again anyway, and less and less often: but where the
	// node is another one, it may succeed.
	return !s.Removed() && (moved || s.Ready() == nil && contradicts)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// notes are what was seen of the kernel and is not as it shall be.
type notes struct {
	// wake is raised when something was noted.
	wake loop.Signal

	mu sync.Mutex
	// wanted is what the kernel shall be and, as far as is known, was made; nil
	// before the first pass.
	wanted  *diff.Wanted
	sysctls []model.Sysctl
	// seen holds by their keys the last sightings that contradict wanted.
	seen map[any]diff.Sighting
	// anything says that anything may have changed.
	anything bool
	// came and went say that something of the node that is not podnet's, and by which
	// is decided what is podnet's, came or changed, or went.
	came, went bool
	// moved are links in use, not podnet's, that went or came, or addresses of which
	// did, since the last pass that did what it should.
	moved map[string]bool
	// peers are the endpoints of other nodes, sorted.
	peers []netip.Addr
}

func newNotes() *notes {
	return &notes{wake: loop.NewSignal(), seen: map[any]diff.Sighting{}, moved: map[string]bool{}}
}

// see notes a sighting.
func (n *notes) see(s diff.Sighting) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wanted == nil {
		return
	}
	switch o := s.Object.(type) {
	case model.HostLink, model.HostAddress, model.UnderlayRoute:
		n.seeHost(o, s.Gone)
		return
	case nil:
		n.anything = true
	default:
		key := o.Identity()
		if !n.wanted.Contradicts(s) {
			// Perhaps it contradicted for a moment.
			delete(n.seen, key)
			return
		}
		if len(n.seen) < maxSightings {
			n.seen[key] = s
		} else {
			n.anything = true
		}
	}
	n.wake.Raise()
}

// pending reports whether anything seen still contradicts what is wanted by now, and whether
// anything of the node that is not podnet's changed.
func (n *notes) pending() (contradicts, moved bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, s := range n.seen {
		if !n.wanted.Contradicts(s) {
			delete(n.seen, key)
		}
	}
	return n.anything || len(n.seen) > 0, n.came || n.went
}

// look forgets what was seen: the kernel is about to be observed.
func (n *notes) look() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.anything = false
	clear(n.seen)
}

// want sets what the kernel shall be, before it is made so, and the endpoints of other
// nodes. It returns what the kernel was to be before; nil in the first pass.
func (n *notes) want(want model.State, peers []netip.Addr) *diff.Wanted {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.wanted
	n.wanted, n.sysctls, n.peers = diff.NewWanted(want), want.Sysctls, peers
	return before
}

// settle ends a pass that did operations on what it found, of which some are left
// to be done. It returns which of those that were done undo what others did.
func (n *notes) settle(before *diff.Wanted, have model.State, ops, left []diff.Op) []diff.Repair {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted.Forget(left)
	var repairs []diff.Repair
	if before != nil && len(ops) > 0 {
		repairs = before.Repairs(without(ops, left), have, n.moved)
	}
	if len(left) == 0 {
		clear(n.moved)
	}
	return repairs
}

// without returns the operations whose objects are in none of those that are left.
func without(ops, left []diff.Op) []diff.Op {
	if len(left) == 0 {
		return ops
	}
	undone := map[any]bool{}
	for _, op := range left {
		undone[op.Object.Identity()] = true
	}
	return slices.DeleteFunc(slices.Clone(ops), func(op diff.Op) bool {
		return undone[op.Object.Identity()]
	})
}

// add and remove follow the pods between passes.
func (n *notes) add(part model.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wanted != nil {
		n.wanted.Add(part)
	}
}

func (n *notes) remove(part model.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wanted != nil {
		n.wanted.Remove(part)
	}
}

func (n *notes) watchedSysctls() []model.Sysctl {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sysctls
}

// repaired reports what others did and was put right.
func (s *Applier) repaired(ctx context.Context, repairs []diff.Repair) {
	if len(repairs) == 0 {
		return
	}
	var found []string
	for _, r := range repairs {
		drift.WithLabelValues(r.Kind).Inc()
		if len(found) < maxLogged {
			found = append(found, r.Found)
		}
	}
	log.FromContext(ctx).Info("put back what others had changed", "objects", len(repairs), "found", strings.Join(found, "; "))
	if s.cfg.Repaired != nil {
		s.cfg.Repaired(repairs)
	}
}

// maxLogged is how many repairs of one pass are named in the log.
const maxLogged = 20
