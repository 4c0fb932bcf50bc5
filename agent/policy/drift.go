package policy

import (
	"context"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/model"
)

// Tables tells of the tables of a name in the kernel.
type Tables interface {
	// Watch calls changed after each transaction that changed them, until ctx ends.
	Watch(ctx context.Context, name string, changed func()) error
	// Counters returns the packets that each counter has counted; none where there is no
	// table.
	Counters(ctx context.Context, name string) (map[string]uint64, error)
}

const (
	// quiet is how long the Enforcer may not have changed the tables before changes
	// are counted: one hears of its own with a delay.
	quiet = 300 * time.Millisecond
	// late is after how long one that it has not heard of does not count any more.
	late = 2 * time.Second
)

// tally compares the changes of the tables with those that the Enforcer made. One more
// is somebody else's.
type tally struct {
	seen atomic.Int64
	// The Enforcer's lock guards what follows.

	own  int64
	last time.Time
}

// Watch puts the tables back when others have changed them, until ctx ends.
func (e *Enforcer) Watch(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		// What was missed before, or between two subscriptions, is not known.
		e.mu.Lock()
		if e.have != nil {
			e.know(nil, nil)
			e.Trigger()
		}
		e.mu.Unlock()
		judge := time.AfterFunc(quiet, func() { e.judge(ctx) })
		defer judge.Stop()
		err := e.cfg.Tables.Watch(ctx, model.PolicyTable, func() {
			e.tally.seen.Add(1)
			judge.Reset(quiet)
		})
		if err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "cannot watch the policy tables, trying again")
		}
	}, firstRetry)
	return nil
}

// judge asks for a pass that replaces the tables where somebody else has changed them.
func (e *Enforcer) judge(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if left := quiet - time.Since(e.tally.last); left > 0 {
		time.AfterFunc(left, func() { e.judge(ctx) })
		return
	}
	if !e.foreign() {
		return
	}
	drift.Inc()
	log.FromContext(ctx).Info("others have changed the policy tables: replacing them")
	e.know(nil, nil)
	e.Trigger()
}

// foreign says whether somebody else has changed the tables since it was last asked, as
// far as all changes have come in. The caller holds mu.
func (e *Enforcer) foreign() bool {
	if time.Since(e.tally.last) < quiet {
		return false
	}
	if time.Since(e.tally.last) > late {
		e.tally.own = 0
	}
	more := e.tally.seen.Swap(0) - e.tally.own
	e.tally.own = max(0, -more)
	return e.have != nil && more > 0
}
