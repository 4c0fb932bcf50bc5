// Package host looks at the node as others made it: what the agent has to know of it
// (Facts), and what is, or may come, in the network's way (Findings). It changes nothing,
// but for what it makes for a moment to learn something. What follows from it is left to
// internal/plan.
package host

import (
	"context"
	"sync"

	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/internal/nft"
)

// Tables tries, makes and removes tables of nftables (see agent/nft).
type Tables interface {
	Check(ctx context.Context, t nft.Table) error
	Add(ctx context.Context, tables ...nft.Table) error
	Remove(ctx context.Context, name string) error
}

// Config is what a Host works with.
type Config struct {
	Kernel *kernel.Kernel
	NFT    Tables
	// StateDir is the folder in which the agent keeps what outlives it.
	StateDir string
}

// Host is the node, as seen from the calling thread's network namespace. Its methods may
// be called concurrently.
type Host struct {
	cfg Config

	mu sync.Mutex
	// vxlan says that a VXLAN device could be made once, and modules that the kernel had
	// all of nftables that podnet needs.
	vxlan, modules bool
	// traced says that there may be tables of a trace.
	traced bool
}

// New returns a Host.
func New(cfg Config) *Host { return &Host{cfg: cfg, traced: true} }
