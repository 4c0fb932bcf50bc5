package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/nft"
)

// Kernel does what a Writer needs of nftables, as Conn does.
type Kernel interface {
	// Do does a step in one transaction.
	Do(ctx context.Context, step nft.Step) error
	// List returns the tables of a name as they are, with the fingerprints of rules alone.
	List(ctx context.Context, name string) ([]nft.Table, error)
	// Watch calls changed after each transaction that changed a table of a name, until
	// ctx ends.
	Watch(ctx context.Context, name string, changed func()) error
	// Counters returns the packets that each counter of the inet table of a name has
	// counted; none where there is no table.
	Counters(ctx context.Context, name string) (map[string]uint64, error)
}

// Writer writes the tables of one name, which are nobody else's. Large ones, as those of network
// policy, it keeps as they shall be (Write): it remembers what it wrote last and writes what
// differs, so that a change costs what changed; of what others do to the tables it hears
// (Watch), and then writes all. Whoever compares by itself what the kernel has (Read)
// does single steps (Do). Its methods may be called concurrently: one writes at a time, and no
// Writer waits for another, as long as each has a Conn of its own.
type Writer struct {
	kernel Kernel
	name   string
	// drifted is called when others have changed the tables.
	drifted func()

	counters counters
	// mayHave are the tables that the kernel may have, those before a change and after it
	// while it is under way; nil where that is unknown.
	mayHave atomic.Pointer[[]nft.Table]

	// mu is held while tables are written, which may take seconds. It guards what follows.
	mu sync.Mutex
	// have are the tables as they were last written; nil where it is unknown what
	// the kernel has, which stays as it is until all of it is replaced at once.
	have []nft.Table
	// old are parts of them that were emptied and are to be deleted.
	old   map[nft.Family]nft.Parts
	tally tally
}

// NewWriter returns what writes the tables of a name. It calls drifted, which must not block,
// each time when others have changed them.
func NewWriter(kernel Kernel, name string, drifted func()) *Writer {
	return &Writer{kernel: kernel, name: name, drifted: drifted, counters: newCounters(kernel, name)}
}

// Write makes the tables what they shall be, each by one transaction, and deletes
// those of other families. Tables have texts of rules, and counters, sets, elements and chains
// sorted. After an error it is unknown what the kernel has, and the next Write replaces all.
func (w *Writer) Write(ctx context.Context, want []nft.Table) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.foreign() {
		w.forget(ctx)
	}
	steps, old := w.steps(want)
	if len(steps) > 0 && w.have != nil {
		both := slices.Concat(w.have, want)
		w.mayHave.Store(&both)
	}
	if err := w.all(ctx, steps); err != nil {
		w.know(nil, nil)
		return err
	}
	w.deleteLeftover(ctx, want)
	w.know(want, old)
	w.counters.keep(want)
	w.sweep(ctx)
	return nil
}

// know sets which tables the kernel has, and what of them is old; nil where that is
// unknown. The caller holds mu.
func (w *Writer) know(tables []nft.Table, old map[nft.Family]nft.Parts) {
	w.have, w.old = tables, old
	if tables == nil {
		w.mayHave.Store(nil)
		return
	}
	w.mayHave.Store(&tables)
}

// MayHave returns the tables that the kernel may have: while a Write is under way, those of
// before and those of after it. It is nil where that is unknown, and waits for nothing.
func (w *Writer) MayHave() []nft.Table {
	if tables := w.mayHave.Load(); tables != nil {
		return *tables
	}
	return nil
}

// Read returns the tables as the kernel has them, with the fingerprints of rules alone.
func (w *Writer) Read(ctx context.Context) ([]nft.Table, error) { return w.kernel.List(ctx, w.name) }

// Do does a step on the tables.
func (w *Writer) Do(ctx context.Context, step nft.Step) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.know(nil, nil)
	return w.do(ctx, step)
}

// steps returns what turns the tables into those that are wanted, and the
// parts of these that are old then.
func (w *Writer) steps(want []nft.Table) ([]nft.Step, map[nft.Family]nft.Parts) {
	old := map[nft.Family]nft.Parts{}
	var steps []nft.Step
	for _, t := range want {
		i := slices.IndexFunc(w.have, func(h nft.Table) bool { return h.Family == t.Family })
		if i < 0 {
			steps = append(steps, nft.Put{Table: t})
			continue
		}
		change, ok := nft.Difference(t, w.have[i])
		if !ok {
			steps = append(steps, nft.Put{Table: t})
			continue
		}
		if !change.Empty() {
			steps = append(steps, change)
		}
		old[t.Family] = w.old[t.Family].With(change.Old).Without(t)
	}
	for _, h := range w.have {
		if !has(want, h.Family) {
			steps = append(steps, nft.DeleteTable{Family: h.Family, Name: w.name})
		}
	}
	return steps, old
}

func has(tables []nft.Table, family nft.Family) bool {
	return slices.ContainsFunc(tables, func(t nft.Table) bool { return t.Family == family })
}

// all does all steps, also after one fails. One that replaces the table that has counters
// waits until they are read. The caller holds mu.
func (w *Writer) all(ctx context.Context, steps []nft.Step) error {
	run := func() error {
		var errs []error
		for _, s := range steps {
			if err := w.do(ctx, s); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s, err))
			}
		}
		return errors.Join(errs...)
	}
	if !slices.ContainsFunc(steps, replacesCounters) {
		return run()
	}
	return w.counters.replace(ctx, run)
}

// replacesCounters reports whether a step replaces the table that has counters.
func replacesCounters(s nft.Step) bool {
	p, whole := s.(nft.Put)
	return whole && p.Family == nft.Inet
}

// do does a step. The caller holds mu.
func (w *Writer) do(ctx context.Context, s nft.Step) error {
	w.tally.own++
	err := w.kernel.Do(ctx, s)
	w.tally.last = time.Now()
	return err
}

// deleteLeftover deletes the table of the bridge family that an earlier agent may have
// left, where none is wanted. Where the kernel has no such tables there is none to delete.
// The caller holds mu.
func (w *Writer) deleteLeftover(ctx context.Context, want []nft.Table) {
	if w.have != nil || has(want, nft.Bridge) {
		return
	}
	if err := w.do(ctx, nft.DeleteTable{Family: nft.Bridge, Name: w.name}); err != nil {
		log.FromContext(ctx).V(1).Info("cannot delete a table of the bridge family", "table", w.name, "reason", err.Error())
	}
}

// sweep deletes what is old. The kernel may still count it as used: then it is
// tried again after the next change, and harms nobody until then. The caller holds mu.
func (w *Writer) sweep(ctx context.Context) {
	for family, old := range w.old {
		if old.Empty() {
			continue
		}
		if err := w.do(ctx, nft.DeleteParts{Parts: old}); err != nil {
			log.FromContext(ctx).V(1).Info("cannot delete old parts of a table yet", "table", w.name, "reason", err.Error())
			continue
		}
		delete(w.old, family)
	}
}

// Remove deletes the tables.
func (w *Writer) Remove(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.know(nil, nil)
	w.deleteLeftover(ctx, nil)
	return w.do(ctx, nft.DeleteTable{Family: nft.Inet, Name: w.name})
}
