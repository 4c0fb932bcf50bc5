package main

import "github.com/podnet/podnet/internal/policy"

// noteBytes is how long the text of an Event may be.
const noteBytes = 1024

// packetDenied is the note on a packet that network policy has denied. For each other
// pod, direction and port a pod has one Event, whose series counts: what differs in its
// text alone is counted as one, so that the port is part of the action.
func packetDenied(d policy.Denial) note {
	text := d.String()
	n := note{
		reason: "PolicyDenied", action: "Deny" + string(d.Direction) + "-" + d.Port, text: text[:min(len(text), noteBytes)],
		regarding: podReference(d.Pod.Namespace, d.Pod.Name, d.Pod.UID),
	}
	if d.Peer != nil {
		n.related = podReference(d.Peer.Namespace, d.Peer.Name, d.Peer.UID)
	}
	return n
}
