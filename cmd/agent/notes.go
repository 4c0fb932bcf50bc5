package main

import (
	"context"
	"fmt"
	"hash/fnv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/status"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// noteQueue is how many Events wait for the API server at most: one for each pod of
// a large node. Those that come then are in the log and in the metrics alone.
const noteQueue = 256

// note is what is to be recorded as an Event. client-go takes it for a repetition of one
// of the last minutes that has the same reason, action and related object: then that
// one is counted, and the text is lost. So what is to be reported of each of several objects
// has them as related objects.
type note struct {
	// reason and action are as in events.k8s.io.
	reason, action, text string
	// normal says that all is as it should be; else the Event is a warning.
	normal bool
	// regarding is what the note is about; nil for the node's NodeNetwork.
	regarding *corev1.ObjectReference
	// related is what it is about besides; it may be nil.
	related *corev1.ObjectReference
}

// notes records Events, on the node's NodeNetwork and on pods. It waits for the API server in
// place of the CNI server and of the loop.
type notes struct {
	reader   client.Reader
	recorder events.EventRecorder
	node     string
	queue    chan note
}

func newNotes(reader client.Reader, recorder events.EventRecorder, node string) *notes {
	return &notes{reader: reader, recorder: recorder, node: node, queue: make(chan note, noteQueue)}
}

// add notes an Event. It does not block.
func (n *notes) add(what note) {
	select {
	case n.queue <- what:
	default:
	}
}

// Start records Events until ctx ends.
func (n *notes) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case what := <-n.queue:
			if err := n.record(ctx, what); err != nil {
				log.FromContext(ctx).Info("cannot record an Event", "note", what.text, "reason", err.Error())
			}
		}
	}
}

func (n *notes) record(ctx context.Context, what note) error {
	var regarding, related runtime.Object
	if what.regarding != nil {
		regarding = what.regarding
	} else {
		// With its UID, the Event shows where the object is described.
		var nn podnetv1alpha1.NodeNetwork
		if err := n.reader.Get(ctx, client.ObjectKey{Name: n.node}, &nn); err != nil {
			return err
		}
		regarding = &nn
	}
	if what.related != nil {
		related = what.related
	}
	kind := corev1.EventTypeWarning
	if what.normal {
		kind = corev1.EventTypeNormal
	}
	n.recorder.Eventf(regarding, related, kind, what.reason, what.action, "%s", what.text)
	return nil
}

// podReference is a reference to a pod.
func podReference(namespace, name, uid string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: name, UID: types.UID(uid)}
}

// driftRepaired is the note on what others had changed in the kernel. Drift that goes
// on in the same way becomes one Event, whose series counts.
func (n *notes) driftRepaired(text string) note {
	return note{reason: "DriftRepaired", action: "RepairDrift", text: text, related: n.told(text)}
}

// pathChanged is the note on paths that changed.
func (n *notes) pathChanged(text string, changes []status.PathChange) note {
	return note{
		reason: "PathChanged", action: "ChangePath", text: text, normal: !status.Divergent(changes), related: n.told(text),
	}
}

// told is a related object by which notes with different texts are told apart: client-go
// would else count the later ones, and lose what they say.
func (n *notes) told(text string) *corev1.ObjectReference {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(text)) // It never fails (hash.Hash).
	return &corev1.ObjectReference{
		APIVersion: podnetv1alpha1.GroupVersion.String(), Kind: "NodeNetwork", Name: n.node, FieldPath: fmt.Sprintf("note/%x", sum.Sum64()),
	}
}
