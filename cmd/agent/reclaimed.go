package main

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// reclaimedReason is the reason of Events about addresses of pods that were gone.
const reclaimedReason = "AddressReclaimed"

// reclaimedQueue is how many Events wait for the API server at most. Those of more
// pods at once are in the log and in the metric alone.
const reclaimedQueue = 100

// reclaims records an Event on the node's NodeNetwork for each pod whose addresses
// were taken back. It waits for the API server in place of the CNI server.
type reclaims struct {
	reader   client.Reader
	recorder events.EventRecorder
	node     string
	notes    chan string
}

// add notes a pod for an Event. It does not block.
func (r *reclaims) add(pod model.Pod, why string) {
	select {
	case r.notes <- reclaimedNote(pod, why):
	default:
	}
}

// Start records Events until ctx ends.
func (r *reclaims) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case note := <-r.notes:
			// With its UID, the Event shows where the object is described.
			var nn podnetv1alpha1.NodeNetwork
			if err := r.reader.Get(ctx, client.ObjectKey{Name: r.node}, &nn); err != nil {
				log.FromContext(ctx).Info("cannot record an Event", "note", note, "reason", err.Error())
				continue
			}
			r.recorder.Eventf(&nn, nil, corev1.EventTypeWarning, reclaimedReason, "ReclaimAddress", "%s", note)
		}
	}
}

// reclaimedNote says whose addresses were taken back, and why.
func reclaimedNote(pod model.Pod, why string) string {
	addrs := make([]string, 0, len(pod.Addrs))
	for _, a := range pod.Addrs {
		addrs = append(addrs, a.String())
	}
	of := fmt.Sprintf("pod %s/%s, container %s", pod.Namespace, pod.Name, pod.ContainerID)
	switch {
	case pod.ContainerID == "":
		of = "the damaged record of link " + pod.HostLink
	case pod.Name == "":
		of = "container " + pod.ContainerID
	}
	held := "addresses " + strings.Join(addrs, ", ")
	switch len(addrs) {
	case 0:
		held = "no address"
	case 1:
		held = "address " + addrs[0]
	}
	return fmt.Sprintf("Reclaimed %s of %s: %s.", held, of, why)
}
