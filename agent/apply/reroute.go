package apply

import (
	"context"
	"fmt"
	"net/netip"
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
	ops := slices.DeleteFunc(diff.Diff(model.State{Routes: wanted.State.Routes}, model.State{Routes: was.State.Routes}),
		func(op diff.Op) bool { return op.Verb != diff.Put })
	changed := s.rerouted.note(ops)
	s.notes.add(model.State{Routes: changed})
	log.FromContext(ctx).Info("leaving paths that failed", "routes", len(ops))
	if err := s.cfg.Kernel.Execute(ctx, ops); err != nil {
		// The next pass puts what is missing, which nobody else has taken away.
		s.notes.remove(model.State{Routes: changed})
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

// rerouted are the routes that were put since the plan of the pass that is under way was built:
// it leaves them as they are. The lock is held while routes are put, and never while links or
// the firewall are changed.
type rerouted struct {
	mu     sync.Mutex
	routes map[netip.Prefix]model.Route
	// over says that podnet is being taken off the node.
	over bool
}

// reset is called before a pass looks at the evidence.
func (r *rerouted) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes, r.over = map[netip.Prefix]model.Route{}, false
}

// end lets no path be left any more.
func (r *rerouted) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// note takes operations that are about to be executed, and returns their routes. The caller holds mu.
func (r *rerouted) note(ops []diff.Op) []model.Route {
	var routes []model.Route
	for _, op := range ops {
		if route, ok := op.Object.(model.Route); ok {
			routes = append(routes, route)
			r.routes[route.Dst] = route
		}
	}
	return routes
}

// without returns the operations of a pass that are none on such routes.
func (r *rerouted) without(ops []diff.Op) []diff.Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.routes) == 0 {
		return ops
	}
	return slices.DeleteFunc(ops, func(op diff.Op) bool {
		route, ok := op.Object.(model.Route)
		_, left := r.routes[route.Dst]
		return ok && left
	})
}

// putAgain puts the routes once more that were put while a pass was executed: it may have put
// them as it knew them, or replaced the link that they are on.
func (s *Applier) putAgain(ctx context.Context) error {
	s.rerouted.mu.Lock()
	defer s.rerouted.mu.Unlock()
	var routes []model.Route
	for _, route := range s.rerouted.routes {
		routes = append(routes, route)
	}
	if len(routes) == 0 {
		return nil
	}
	s.notes.add(model.State{Routes: routes})
	return s.cfg.Kernel.Execute(ctx, diff.Additions(model.State{Routes: routes}))
}
