package nft

import (
	"context"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// quiet is how long a Writer may not have changed its tables before changes
	// are counted: one hears of its own with a delay.
	quiet = 300 * time.Millisecond
	// late is after how long one that it has not heard of does not count any more.
	late = 2 * time.Second
)

// tally compares the changes of the tables with those that the Writer made. One more
// is somebody else's.
type tally struct {
	seen atomic.Int64
	// The Writer's lock guards what follows.

	own  int64
	last time.Time
}

// Watch calls unknown, which must not block, each time when others have changed the tables, or
// may have, until ctx ends or the subscription fails; then it returns an error. The next Write
// replaces all of them.
func (w *Writer) Watch(ctx context.Context, unknown func()) error {
	// What was missed before, or between two subscriptions, is unknown.
	w.mu.Lock()
	if w.have != nil {
		w.know(nil, nil)
		unknown()
	}
	w.mu.Unlock()
	timer := time.AfterFunc(quiet, func() { w.check(ctx, unknown) })
	defer timer.Stop()
	return w.kernel.Watch(ctx, w.name, func() {
		w.tally.seen.Add(1)
		timer.Reset(quiet)
	})
}

// check calls unknown where somebody else has made changes.
func (w *Writer) check(ctx context.Context, unknown func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := quiet - time.Since(w.tally.last); left > 0 {
		time.AfterFunc(left, func() { w.check(ctx, unknown) })
		return
	}
	if !w.foreign() {
		return
	}
	w.forget(ctx)
	unknown()
}

// forget makes the next Write replace all tables, as others have changed them. The caller holds mu.
func (w *Writer) forget(ctx context.Context) {
	w.drifted()
	w.know(nil, nil)
	log.FromContext(ctx).Info("others have changed tables of nftables: replacing them", "table", w.name)
}

// foreign reports whether somebody else has changed the tables since it was last asked, as
// far as all changes have come in. The caller holds mu.
func (w *Writer) foreign() bool {
	if time.Since(w.tally.last) < quiet {
		return false
	}
	if time.Since(w.tally.last) > late {
		w.tally.own = 0
	}
	more := w.tally.seen.Swap(0) - w.tally.own
	w.tally.own = max(0, -more)
	return w.have != nil && more > 0
}
