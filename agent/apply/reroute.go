package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
	"github.com/podnet/podnet/internal/plan"
)

// Reroute leaves paths as soon as they have failed, until ctx ends. It waits for no pass,
// which the kernel may hold up for seconds. All else that is known of paths by then is the
// next pass's, for which it asks.
func (s *Applier) Reroute(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.cfg.PathsNews:
		}
		begun := time.Now()
		if err := s.reroute(ctx); err != nil {
			log.FromContext(ctx).Error(err, "cannot leave all paths that failed at once: the next pass tries again")
		}
		s.Trigger()
		if !sleep(ctx, min(pauseFactor*time.Since(begun), mostPause)) {
			return nil
		}
	}
}

// reroute replaces the routes of paths that have failed. That is one step for each, and what
// the other path needs is there.
func (s *Applier) reroute(ctx context.Context) error {
	s.rerouted.mu.Lock()
	defer s.rerouted.mu.Unlock()
	for !s.rerouted.over {
		was := s.states.Current()
		if was == nil {
			return nil
		}
		evidence, err := s.cfg.Paths.Evidence(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(was.Plan.Paths, func(c model.PathChoice) bool { return isLeft(c, evidence[c.Block]) }) {
			return nil
		}
		cluster := was.Cluster
		cluster.Evidence = evidence
		wanted := plan.Build(cluster)
		if s.states.Publish(was, cluster, wanted) == nil {
			// A pass has published meanwhile, which may have looked at the evidence before.
			continue
		}
		s.reportChanges(ctx, was.Plan, wanted)
		return s.leave(ctx, was.Plan, wanted)
	}
	return nil
}

// leave puts the routes of a plan that another one has otherwise. The caller holds rerouted.mu.
func (s *Applier) leave(ctx context.Context, was, wanted model.Plan) error {
	var changed model.State
	for _, op := range diff.Diff(model.State{Routes: wanted.State.Routes}, model.State{Routes: was.State.Routes}) {
		if route, ok := op.Object.(model.Route); ok && op.Verb == diff.Put {
			changed.Routes = append(changed.Routes, route)
			s.rerouted.routes[route.Identity()] = route
		}
	}
	log.FromContext(ctx).Info("leaving paths that failed", "routes", len(changed.Routes))
	s.notes.add(changed)
	if err := s.cfg.Kernel.Execute(ctx, diff.Additions(changed)); err != nil {
		// The next pass puts what is missing, which nobody else has taken away.
		s.notes.remove(changed)
		return fmt.Errorf("leave paths that failed: %w", err)
	}
	s.aim()
	return nil
}

// isLeft reports whether the path to a block has failed and another one is to be taken.
func isLeft(c model.PathChoice, e model.Evidence) bool {
	for i, way := range c.Ways {
		if way.Path == c.Path && e.Proof(i).Standing == model.Failed {
			return paths.Choose(c.PathQuestion, e).Path != c.Path
		}
	}
	return false
}

// rerouted are the routes that were put since the plan of the pass that is under way was built,
// by their identities. The lock is held while routes are put, and never while links or the
// firewall are changed.
type rerouted struct {
	mu     sync.Mutex
	routes map[any]model.Route
	// over says that podnet is being taken off the node.
	over bool
}

// reset is called before a pass looks at the evidence.
func (r *rerouted) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes, r.over = map[any]model.Route{}, false
}

// end lets no path be left any more.
func (r *rerouted) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// in returns what a pass wants with these routes in the place of those that it knew.
func (r *rerouted) in(want model.State) model.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	want.Routes = slices.Clone(want.Routes)
	for i, route := range want.Routes {
		if now, changed := r.routes[route.Identity()]; changed {
			want.Routes[i] = now
		}
	}
	return want
}

// putAgain puts the routes once more that were put while a pass was executed: it may have put
// them as it knew them, or replaced the link that they are on.
func (s *Applier) putAgain(ctx context.Context) error {
	s.rerouted.mu.Lock()
	defer s.rerouted.mu.Unlock()
	if len(s.rerouted.routes) == 0 {
		return nil
	}
	routes := model.State{Routes: slices.Collect(maps.Values(s.rerouted.routes))}
	routes.Sort()
	s.notes.add(routes)
	return s.cfg.Kernel.Execute(ctx, diff.Additions(routes))
}
