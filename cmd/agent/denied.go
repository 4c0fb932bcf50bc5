package main

import "github.com/podnet/podnet/internal/policy"

// noteBytes is how long the text of an Event may be.
const noteBytes = 1024

// packetDenied is the note on a packet that network policy has denied. For each other
// pod and direction a pod has one Event, whose series counts.
func packetDenied(d policy.Denial) note {
	text := d.String()
	n := note{
		reason: "PolicyDenied", action: "Deny" + string(d.Direction), text: text[:min(len(text), noteBytes)], normal: true,
		regarding: podReference(d.Pod.Namespace, d.Pod.Name, d.Pod.UID),
	}
	if d.Peer != nil {
		n.related = podReference(d.Peer.Namespace, d.Peer.Name, d.Peer.UID)
	}
	return n
}
