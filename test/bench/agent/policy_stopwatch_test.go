package agent

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/internal/nft"
)

// stopwatch is a kernel that tells when it first has an element for an address.
type stopwatch struct {
	writer.Kernel

	mu      sync.Mutex
	awaited string
	has     time.Time
}

// await makes it wait for an address.
func (s *stopwatch) await(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited, s.has = a.String(), time.Time{}
}

// since returns when the kernel had it first, and false before.
func (s *stopwatch) since() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has, !s.has.IsZero()
}

// Do implements nft.Kernel of agent/nft.
func (s *stopwatch) Do(ctx context.Context, step nft.Step) error {
	err := s.Kernel.Do(ctx, step)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.has.IsZero() && s.puts(step) {
		s.has = now
	}
	return err
}

// puts reports whether a step puts an element for the awaited address.
func (s *stopwatch) puts(step nft.Step) bool {
	switch o := step.(type) {
	case nft.Put:
		return s.among(o.Sets)
	case nft.Change:
		return s.among(o.Sets) || slices.ContainsFunc(o.Add, func(e nft.Elements) bool { return s.among([]nft.Set{{Elements: e.List}}) })
	}
	return false
}

func (s *stopwatch) among(sets []nft.Set) bool {
	for _, set := range sets {
		for _, e := range set.Elements {
			if len(e.Key) == 1 && e.Key[0] == s.awaited {
				return true
			}
		}
	}
	return false
}
