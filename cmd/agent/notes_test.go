package main

import "testing"

func TestNotesBeyondTheQueueAreDropped(t *testing.T) {
	n := &notes{queue: make(chan note, 1)}
	n.add(driftRepaired("a"))
	n.add(driftRepaired("b"))
	if len(n.queue) != 1 {
		t.Errorf("%d notes", len(n.queue))
	}
}
