// Package state holds what a node's agent knows, and what follows from it, as values that
// do not change: each is published whole, and read by all without waiting.
package state

import (
	"sync/atomic"

	"github.com/podnet/podnet/internal/model"
)

// State is what the agent knew at one moment. It does not change.
type State struct {
	// Version counts the states of this process, from 1.
	Version uint64
	// Cluster is what is known. Its pods have the attachment of the probes among them.
	Cluster model.Cluster
	// Plan is what follows from it for the node's kernel.
	Plan model.Plan
}

// Store holds the last State. Its methods may be called concurrently.
type Store struct {
	current atomic.Pointer[State]
}

// Current returns the last State that had a network; nil before there was one.
func (s *Store) Current() *State { return s.current.Load() }

// Publish makes a cluster and its plan the State that follows was, which is nil for the
// first one. It returns nil where another one has followed it.
func (s *Store) Publish(was *State, cluster model.Cluster, plan model.Plan) *State {
	is := &State{Version: 1, Cluster: cluster, Plan: plan}
	if was != nil {
		is.Version = was.Version + 1
	}
	if !s.current.CompareAndSwap(was, is) {
		return nil
	}
	return is
}
