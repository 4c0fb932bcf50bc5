package main

import (
	"context"
	"net/netip"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestNoteOnReclaimedAddresses(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("fd00::9")
	for want, pod := range map[string]model.Pod{
		"Reclaimed addresses 10.244.1.9, fd00::9 of pod ns/p, container c0ffee: it is gone.": {
			ContainerID: "c0ffee", Namespace: "ns", Name: "p", Addrs: []netip.Addr{four, six},
		},
		"Reclaimed address 10.244.1.9 of container c0ffee: it is gone.":                   {ContainerID: "c0ffee", Addrs: []netip.Addr{four}},
		"Reclaimed no address of the damaged record of link podnabc: it is gone.":         {HostLink: "podnabc"},
		"Reclaimed address 10.244.1.9 of the damaged record of link podnabc: it is gone.": {HostLink: "podnabc", Addrs: []netip.Addr{four}},
	} {
		if got := reclaimedNote(pod, "it is gone"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// sink is an API server that takes Events.
type sink struct {
	created chan *eventsv1.Event
	// counted takes Events of which only the count is new.
	counted chan *eventsv1.Event
}

func (s *sink) Create(_ context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	s.created <- e
	return e, nil
}

func (s *sink) Patch(_ context.Context, e *eventsv1.Event, _ []byte) (*eventsv1.Event, error) {
	s.counted <- e
	return e, nil
}

func (s *sink) Update(_ context.Context, e *eventsv1.Event) (*eventsv1.Event, error) { return e, nil }

// client-go counts Events that are alike, whatever their texts: each pod of a sweep has
// one of its own all the same.
func TestEachReclaimedPodHasAnEvent(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := podnetv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api := &sink{created: make(chan *eventsv1.Event, 10), counted: make(chan *eventsv1.Event, 10)}
	broadcaster := events.NewBroadcaster(api)
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := &notes{
		reader: &reader{asked: 1}, recorder: broadcaster.NewRecorder(scheme, "podnet-agent"), node: "a",
		queue: make(chan note, noteQueue),
	}
	go n.Start(t.Context()) //nolint:errcheck // it ends with the test
	want := map[string]string{}
	for _, pod := range []model.Pod{
		{Namespace: "ns", Name: "a", UID: "1", ContainerID: "c1"},
		{Namespace: "ns", Name: "b", UID: "2", ContainerID: "c2"},
		{Namespace: "other", Name: "a", UID: "3", ContainerID: "c3"},
		{Namespace: "ns", Name: "a", UID: "4", ContainerID: "c4"}, // as of a StatefulSet
		{ContainerID: "c5"},
	} {
		n.add(addressReclaimed(pod, "it is gone"))
		want[reclaimedNote(pod, "it is gone")] = pod.UID
	}
	for range len(want) {
		select {
		case e := <-api.created:
			uid, ok := want[e.Note]
			if !ok || e.Reason != "AddressReclaimed" || (e.Related == nil) != (uid == "") || e.Related != nil && string(e.Related.UID) != uid {
				t.Errorf("got %q, related to %v", e.Note, e.Related)
			}
			delete(want, e.Note)
		case e := <-api.counted:
			t.Fatalf("counted with %q; missing are %v", e.Note, want)
		}
	}
}
