package main

import (
	"context"
	"fmt"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	typedeventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// reporter is the reportingController of the agents' Events.
const reporter = "podnet-agent"

// instanceBytes is how long the API lets a reportingInstance be, and noteBytes how long it
// lets a note be.
const (
	instanceBytes = 128
	noteBytes     = 1024
)

// ownEvents makes Events in the name of one node's agent, which all of its parts report by
// it, and cuts off what is too long for the API. client-go names the
// instance after the host, which may be called otherwise than its node, and the
// admission policy podnet-agent-events goes by the node.
type ownEvents struct {
	events.EventSinkImpl
	node string
}

// Create implements events.EventSink.
func (s *ownEvents) Create(ctx context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	e.ReportingInstance = reporter + "-" + s.node
	e.ReportingInstance = e.ReportingInstance[:min(len(e.ReportingInstance), instanceBytes)]
	if len(e.Note) > noteBytes {
		e.Note = strings.ToValidUTF8(e.Note[:noteBytes-len("…")], "") + "…"
	}
	return s.EventSinkImpl.Create(ctx, e)
}

// newRecorder returns what records the Events of a node's agent until ctx ends.
func newRecorder(ctx context.Context, mgr manager.Manager, node string) (events.EventRecorder, error) {
	client, err := typedeventsv1.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("make a client for Events: %w", err)
	}
	broadcaster := events.NewBroadcaster(&ownEvents{EventSinkImpl: events.EventSinkImpl{Interface: client}, node: node})
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return nil, fmt.Errorf("record Events: %w", err)
	}
	return broadcaster.NewRecorder(mgr.GetScheme(), reporter), nil
}
