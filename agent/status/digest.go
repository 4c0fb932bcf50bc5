package status

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/loop"
)

const (
	// driftEvery is the least time between two notes on drift, and pathsEvery that between
	// two on paths: a node that fails is news on all others at once.
	driftEvery = 10 * time.Second
	pathsEvery = 30 * time.Second
	// notesNamed is how many things a note names; the others it counts.
	notesNamed = 4
)

// Digest reports things that happen by one note for all that came since the last one.
type Digest[T any] struct {
	every time.Duration
	text  func(first []T, more int) string
	// note is given a note of some sentences. It must not block.
	note func(text string, first []T)

	wake loop.Signal
	mu   sync.Mutex
	// first are the first things since the last note, more the number of others.
	first []T
	more  int
}

// NewDrifts returns a Digest of what others had changed.
func NewDrifts(note func(text string, first []diff.Repair)) *Digest[diff.Repair] {
	return newDigest(driftEvery, driftNote, note)
}

// NewPathChanges returns a Digest of paths that changed.
func NewPathChanges(note func(text string, first []PathChange)) *Digest[PathChange] {
	return newDigest(pathsEvery, pathsNote, note)
}

func newDigest[T any](every time.Duration, text func([]T, int) string, note func(string, []T)) *Digest[T] {
	return &Digest[T]{every: every, text: text, note: note, wake: loop.NewSignal()}
}

// Add takes things. It does not block.
func (d *Digest[T]) Add(things []T) {
	if len(things) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	named := min(max(notesNamed-len(d.first), 0), len(things))
	d.first = append(d.first, things[:named]...)
	d.more += len(things) - named
	d.wake.Raise()
}

// Run gives notes until ctx ends.
func (d *Digest[T]) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			d.note(d.take())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(d.every):
		}
	}
}

func (d *Digest[T]) take() (string, []T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.first
	text := d.text(first, d.more)
	d.first, d.more = nil, 0
	return text, first
}

// driftNote says what others had changed.
func driftNote(first []diff.Repair, more int) string {
	var found []string
	for _, r := range first {
		found = append(found, r.Found)
	}
	return "Put back what something other than podnet had changed: " + enumerate(found, more) + "."
}

// enumerate lists the first of many.
func enumerate(first []string, more int) string {
	if more > 0 {
		first = append(first, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(first, "; ")
}
