// Package protocol is what podnet-cni and the agent say to each other: HTTP over
// a Unix socket, one POST a verb, JSON both ways. It holds the messages and the
// client, and stays small, since podnet-cni is started for each pod. What the
// messages mean is left to package cni, which serves them.
package protocol

import (
	"encoding/json"
	"path/filepath"
	"time"
)

// DefaultSocket is where the agent listens unless told otherwise.
const DefaultSocket = "/run/podnet/cni.sock"

// Verb is a verb of the CNI specification that the agent answers.
type Verb string

// The verbs. VERSION is not among them: podnet-cni answers it alone.
const (
	Add    Verb = "ADD"
	Del    Verb = "DEL"
	Check  Verb = "CHECK"
	GC     Verb = "GC"
	Status Verb = "STATUS"
)

// Path is the path of the HTTP endpoint that serves the verb. It names the
// version of the messages: an agent and a podnet-cni of two releases may meet
// while a node is upgraded.
func (v Verb) Path() string { return "/v1/" + string(v) }

// Request is what the runtime gave to podnet-cni. The agent makes sense of it.
type Request struct {
	// ContainerID, IfName, Netns and Args are CNI_CONTAINERID, CNI_IFNAME,
	// CNI_NETNS and CNI_ARGS.
	ContainerID string `json:"containerID,omitempty"`
	IfName      string `json:"ifName,omitempty"`
	Netns       string `json:"netns,omitempty"`
	Args        string `json:"args,omitempty"`
	// Config is the network configuration that came on stdin.
	Config json.RawMessage `json:"config"`
}

// RestartGrace is how long after an agent last served STATUS the runtime is told
// that the network is ready although no agent can serve. Runtimes report STATUS
// as the node's readiness, and a node that is not ready takes its pods out of
// all Services, which the restart of an agent must not do: the pods' packets flow
// all the while, and an ADD that comes meanwhile fails and is tried again.
const RestartGrace = 2 * time.Minute

// ServedPath is the path of an empty file beside the socket that the agent
// touches whenever it finds, asked for STATUS, that it can serve.
func ServedPath(socket string) string { return filepath.Join(filepath.Dir(socket), "served") }
