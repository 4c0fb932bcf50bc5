package v1alpha1

import "time"

// The agent of each node renews a Lease (coordination.k8s.io) of the node's name in
// podnet's own namespace, by which the manager knows that it is alive.
const (
	// HeartbeatLabel on a Lease says that it is such a one, with the value HeartbeatOfAgent.
	HeartbeatLabel   = "podnet.dev/heartbeat"
	HeartbeatOfAgent = "agent"
	// HeartbeatInterval is the time between two renewals, and HeartbeatPatience the time
	// without one after which an agent counts as not responding.
	HeartbeatInterval = 20 * time.Second
	HeartbeatPatience = 60 * time.Second
)

// AgentFieldOwner owns the fields of NodeNetwork.status in server-side apply. What the
// manager writes there in place of an agent that does not respond it writes under this
// name too, so that the agent overwrites it, and removes it, as if it had written it itself.
const AgentFieldOwner = "podnet-agent"
