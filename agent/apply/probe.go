package apply

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// withPaths returns a cluster with what is known of the paths, and with the attachment of
// the probes, which it makes.
func (s *Applier) withPaths(ctx context.Context, cluster model.Cluster) (model.Cluster, []model.Problem, error) {
	if cluster.Network == nil || s.cfg.Paths == nil {
		return cluster, nil, nil
	}
	s.rerouted.reset()
	var err error
	if cluster.Evidence, err = s.cfg.Paths.Evidence(ctx); err != nil {
		return cluster, nil, err
	}
	if s.states.Current() == nil {
		// What the attachment hangs on is made by this pass.
		s.Trigger()
		return cluster, nil, nil
	}
	if probe := plan.Probe(cluster); probe.MTU != 0 && (len(probe.Addrs) > 0 || s.probe != nil) {
		err = s.attachProbe(ctx, probe, cluster.Network.ID)
	}
	if s.probe != nil {
		cluster.Pods = append(slices.Clone(cluster.Pods), *s.probe)
	}
	if err != nil {
		time.AfterFunc(s.probeRetry.Next(), s.Trigger)
		return cluster, []model.Problem{{
			Reason: model.ReasonDegraded, Message: fmt.Sprintf("Paths cannot be proven and stay as they are, and the agent tries again: %v.", err),
		}}, nil
	}
	s.probeRetry.Reset()
	return cluster, nil, nil
}

// withoutProbe returns the pods of a cluster but for the attachment of the probes.
func withoutProbe(pods []model.Pod) []model.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p model.Pod) bool { return p.HostLink == model.ProbeLink })
}

// attachProbe makes the attachment of the namespace from which probes are sent.
func (s *Applier) attachProbe(ctx context.Context, probe model.Pod, network string) error {
	probe.Netns = s.cfg.Paths.Netns()
	if s.probe != nil && reflect.DeepEqual(*s.probe, probe) && s.network == network && s.cfg.Links.CheckAttached(ctx, probe) == nil {
		return nil
	}
	if s.probe != nil {
		// What goes with the former attachment is nobody's doing.
		s.notes.remove(plan.PodParts(s.states.Current().Cluster, *s.probe))
	}
	s.probe = nil
	if err := s.cfg.Links.Attach(ctx, probe); err != nil {
		return fmt.Errorf("attach the namespace of the probes: %w", err)
	}
	s.probe = &probe
	if err := s.cfg.Paths.Listen(probe, network); err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	s.network = network
	return nil
}

// aim hands the prober the paths that are in force, those of what was published last.
func (s *Applier) aim() {
	if s.cfg.Paths == nil {
		return
	}
	s.aiming.Lock()
	defer s.aiming.Unlock()
	s.cfg.Paths.Aim(s.states.Current().Plan.Paths)
}
