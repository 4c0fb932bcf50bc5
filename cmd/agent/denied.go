package main

import "github.com/podnet/podnet/internal/policy"

// packetDenied is the note on a packet that network policy has denied. For each other
// pod, direction and port a pod has one Event, whose series counts: what differs in its
// text alone is counted as one, so that the port is part of the action.
func packetDenied(d policy.Denial) note {
	n := note{
		reason: "PolicyDenied", action: "Deny" + string(d.Direction) + "-" + d.Port, text: d.String(),
		regarding: podReference(d.Pod.Namespace, d.Pod.Name, d.Pod.UID),
	}
	if d.Peer != nil {
		n.related = podReference(d.Peer.Namespace, d.Peer.Name, d.Peer.UID)
	}
	return n
}
