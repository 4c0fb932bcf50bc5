package main

import (
	"context"
	"errors"
	"testing"

	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// reader has every object, but for a first time.
type reader struct {
	client.Reader
	asked int
}

func (r *reader) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	if r.asked++; r.asked == 1 {
		return errors.New("the API server is away")
	}
	return nil
}

func TestNotesBecomeEvents(t *testing.T) {
	recorder := events.NewFakeRecorder(2)
	n := &notes{reader: &reader{}, recorder: recorder, node: "a", queue: make(chan note, noteQueue)}
	n.add(driftRepaired("Lost."))
	n.add(driftRepaired("Put back the route."))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Start(ctx) }()
	if got := <-recorder.Events; got != "Warning DriftRepaired Put back the route." {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNotesBeyondTheQueueAreDropped(t *testing.T) {
	n := &notes{queue: make(chan note, 1)}
	n.add(driftRepaired("a"))
	n.add(driftRepaired("b"))
	if len(n.queue) != 1 {
		t.Errorf("%d notes", len(n.queue))
	}
}
