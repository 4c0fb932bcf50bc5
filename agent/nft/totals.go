package nft

import (
	"context"
	"maps"
	"slices"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/nft"
)

// counters add up what the counters of the inet table say, one table after the other:
// they begin again when the table is replaced.
type counters struct {
	kernel Kernel
	table  string

	mu sync.Mutex
	// written says that there is a table which this Writer has made.
	written bool
	// before is what the counters of former tables had counted, and last what those of
	// this one said when they were read last.
	before, last map[string]uint64
}

func newCounters(kernel Kernel, table string) counters {
	return counters{kernel: kernel, table: table, before: map[string]uint64{}, last: map[string]uint64{}}
}

// Counters returns what each counter of the inet table has counted since the Writer began,
// also through replacements of the table. With an error the counts are those of the last time.
func (w *Writer) Counters(ctx context.Context) (map[string]uint64, error) {
	c := &w.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.written {
		err = c.read(ctx)
	}
	totals := maps.Clone(c.before)
	for name, packets := range c.last {
		totals[name] += packets
	}
	return totals, err
}

// replace runs what replaces the table, so that nothing is counted twice or lost but what
// comes between reading the counters and replacing them.
func (c *counters) replace(ctx context.Context, run func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.written {
		if err := c.read(ctx); err != nil {
			log.FromContext(ctx).Error(err, "failed to read the counters of a table that is replaced: what they counted last is lost", "table", c.table)
		}
	}
	if err := run(); err != nil {
		return err
	}
	c.written = true
	for name := range c.last {
		c.begin(name)
	}
	return nil
}

// keep forgets what counters have counted that no table has any more.
func (c *counters) keep(tables []nft.Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := func(name string, _ uint64) bool {
		return !slices.ContainsFunc(tables, func(t nft.Table) bool { return slices.Contains(t.Counters, name) })
	}
	maps.DeleteFunc(c.before, gone)
	maps.DeleteFunc(c.last, gone)
}

// read reads the counters. The caller holds mu.
func (c *counters) read(ctx context.Context) error {
	now, err := c.kernel.Counters(ctx, c.table)
	if err != nil {
		return err
	}
	for name, packets := range now {
		if packets < c.last[name] {
			// Somebody else has reset it.
			c.begin(name)
		}
		c.last[name] = packets
	}
	return nil
}

// begin lets a counter begin at zero.
func (c *counters) begin(name string) {
	c.before[name] += c.last[name]
	delete(c.last, name)
}
