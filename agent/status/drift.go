package status

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/podnet/podnet/agent/diff"
)

const (
	// driftEvery is the least time between two notes on drift.
	driftEvery = 10 * time.Second
	// driftNamed is how many repairs a note names; the others it counts.
	driftNamed = 4
	// maxNote is the longest note of an Event, in bytes.
	maxNote = 1000
)

// Drifts tells of what others had changed, by one note for all that came since the
// last one.
type Drifts struct {
	// Note is given a note of some sentences. It must not block.
	Note func(string)

	wake chan struct{}
	mu   sync.Mutex
	// first are the first repairs since the last note, more the number of others.
	first []diff.Repair
	more  int
}

// NewDrifts returns a Drifts that gives its notes to a function.
func NewDrifts(note func(string)) *Drifts { return &Drifts{Note: note, wake: make(chan struct{}, 1)} }

// Add takes repairs. It does not block.
func (d *Drifts) Add(repairs []diff.Repair) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range repairs {
		if len(d.first) < driftNamed {
			d.first = append(d.first, r)
		} else {
			d.more++
		}
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run gives notes until ctx ends.
func (d *Drifts) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			d.Note(d.take())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(driftEvery):
		}
	}
}

func (d *Drifts) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	note := driftNote(d.first, d.more)
	d.first, d.more = nil, 0
	return note
}

// driftNote says what others had changed.
func driftNote(first []diff.Repair, more int) string {
	var found []string
	for _, r := range first {
		found = append(found, r.Found)
	}
	if more > 0 {
		found = append(found, fmt.Sprintf("and %d more", more))
	}
	note := "Put back what something other than podnet had changed: " + strings.Join(found, "; ")
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote], "") + "…"
	}
	return note + "."
}
