package agent

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/policy"
	"github.com/podnet/podnet/internal/model"
)

// stopwatch is a kernel that tells when it first has an element for an address.
type stopwatch struct {
	policy.Kernel

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

// Execute implements policy.Kernel.
func (s *stopwatch) Execute(ctx context.Context, ops []diff.Op) error {
	err := s.Kernel.Execute(ctx, ops)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.has.IsZero() && s.puts(ops) {
		s.has = now
	}
	return err
}

// puts says whether operations put an element for the awaited address.
func (s *stopwatch) puts(ops []diff.Op) bool {
	for _, op := range ops {
		if op.Verb != diff.Put {
			continue
		}
		switch o := op.Object.(type) {
		case model.Table:
			if s.among(o.Sets) {
				return true
			}
		case diff.TableChange:
			if s.among(o.Sets) || s.puts(o.Changes) {
				return true
			}
		case diff.Elements:
			if s.among([]model.Set{{Elements: o.Elements}}) {
				return true
			}
		}
	}
	return false
}

func (s *stopwatch) among(sets []model.Set) bool {
	for _, set := range sets {
		for _, e := range set.Elements {
			if len(e.Key) == 1 && e.Key[0] == s.awaited {
				return true
			}
		}
	}
	return false
}
