package status

import (
	"context"
	"fmt"
	"testing"

	"github.com/podnet/podnet/agent/diff"
)

func TestNoteNamesTheFirstRepairsAndCountsTheOthers(t *testing.T) {
	var repairs []diff.Repair
	for i := range 7 {
		repairs = append(repairs, diff.Repair{Kind: "route", Found: fmt.Sprintf("route %d was missing", i)})
	}
	notes := make(chan string, 2)
	d := NewDrifts(func(note string, _ []diff.Repair) { notes <- note })
	d.Add(repairs[:5])
	d.Add(repairs[5:])
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	want := "Put back what something other than podnet had changed: route 0 was missing; route 1 was missing; " +
		"route 2 was missing; route 3 was missing; and 3 more."
	if got := <-notes; got != want {
		t.Errorf("got %q", got)
	}
	// What comes right after a note waits.
	d.Add(repairs[:1])
	cancel()
	if err := <-done; err != nil || len(notes) != 0 {
		t.Errorf("%v, %d notes", err, len(notes))
	}
}
