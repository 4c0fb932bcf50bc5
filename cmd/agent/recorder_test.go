package main

import (
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
)

// Whatever a part of the agent reports, its Events are the agent's, and the API takes them.
func TestEventsAreTheAgentsAndFitTheAPI(t *testing.T) {
	s := &ownEvents{EventSinkImpl: events.EventSinkImpl{Interface: fake.NewClientset().EventsV1()}, node: strings.Repeat("n", 200)}
	for note, want := range map[string]string{
		"short":                        "short",
		strings.Repeat("a", noteBytes): strings.Repeat("a", noteBytes),
		strings.Repeat("ä", noteBytes): strings.Repeat("ä", (noteBytes-len("…"))/len("ä")) + "…",
	} {
		made, err := s.Create(t.Context(), &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{GenerateName: "e", Namespace: "default", Name: "e" + want[:1] + want[len(want)-1:]}, Note: note})
		if err != nil {
			t.Fatal(err)
		}
		if made.Note != want || len(made.Note) > noteBytes {
			t.Errorf("the note has %d bytes: %q", len(made.Note), made.Note)
		}
		if !strings.HasPrefix(made.ReportingInstance, "podnet-agent-nnn") || len(made.ReportingInstance) != instanceBytes {
			t.Errorf("reported by %q", made.ReportingInstance)
		}
	}
}
