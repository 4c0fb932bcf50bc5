package main

import (
	"context"
	"errors"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
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
	n.add(n.driftRepaired("Lost."))
	n.add(n.driftRepaired("Put back the route."))
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

// client-go counts Events that are alike, whatever their texts: drift that is another one is
// reported all the same, and the same again is counted.
func TestOtherDriftIsAnEventOfItsOwn(t *testing.T) {
	api := &sink{created: make(chan *eventsv1.Event, 10), counted: make(chan *eventsv1.Event, 10)}
	broadcaster := events.NewBroadcaster(api)
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := podnetv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	n := &notes{
		reader: &reader{asked: 1}, recorder: broadcaster.NewRecorder(scheme, "podnet-agent"), node: "a", queue: make(chan note, noteQueue),
	}
	go n.Start(t.Context()) //nolint:errcheck // it ends with the test
	for _, text := range []string{"The route was missing.", "The rule was missing."} {
		n.add(n.driftRepaired(text))
		if got := <-api.created; got.Note != text {
			t.Errorf("got %q", got.Note)
		}
	}
	n.add(n.driftRepaired("The route was missing."))
	if got := <-api.counted; got.Note != "The route was missing." {
		t.Errorf("counted %q", got.Note)
	}
}

func TestNotesBeyondTheQueueAreDropped(t *testing.T) {
	n := &notes{queue: make(chan note, 1)}
	n.add(n.driftRepaired("a"))
	n.add(n.driftRepaired("b"))
	if len(n.queue) != 1 {
		t.Errorf("%d notes", len(n.queue))
	}
}
