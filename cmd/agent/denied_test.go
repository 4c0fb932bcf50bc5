package main

import (
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy"
)

// A denied packet is an Event of the pod whose policies deny it, in the pod's namespace.
func TestDeniedPacketIsAnEventOfItsPod(t *testing.T) {
	api := &sink{created: make(chan *eventsv1.Event, 10), counted: make(chan *eventsv1.Event, 10)}
	broadcaster := events.NewBroadcaster(api)
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := &notes{recorder: broadcaster.NewRecorder(runtime.NewScheme(), "podnet-agent"), queue: make(chan note, noteQueue)}
	go n.Start(t.Context()) //nolint:errcheck // it ends with the test
	d := policy.Denial{
		Pod: model.Pod{Namespace: "red", Name: "server", UID: "1"}, Direction: model.PolicyIngress,
		Port:       "TCP-81",
		Peer:       &model.ClusterPod{Namespace: "blue", Name: "client", UID: "2"},
		Connection: "TCP from pod blue/client (10.244.1.3) to port 81 of pod red/server (10.244.1.2)", Reason: "No rule allows it",
	}
	n.add(packetDenied(d))
	got := <-api.created
	if got.Namespace != "red" || got.Type != "Warning" || got.Reason != "PolicyDenied" || got.Action != "DenyIngress-TCP-81" || got.Note != d.String() {
		t.Errorf("got %+v", got)
	}
	if got.Regarding.Name != "server" || got.Regarding.UID != "1" || got.Related == nil || got.Related.Namespace != "blue" || got.Related.Name != "client" {
		t.Errorf("it is about %v and %v", got.Regarding, got.Related)
	}
	n.add(packetDenied(d))
	<-api.counted
	// One to another port is told.
	d.Port, d.Connection = "TCP-82", strings.Replace(d.Connection, "81", "82", 1)
	n.add(packetDenied(d))
	if got := <-api.created; got.Note != d.String() {
		t.Errorf("got %+v", got)
	}
	// Who is no pod is not related.
	d.Peer = nil
	n.add(packetDenied(d))
	if got := <-api.created; got.Related != nil || got.Note != d.String() {
		t.Errorf("got %+v", got)
	}
}
