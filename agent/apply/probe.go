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

// plans computes the plan of a cluster, to which it adds what is known of the paths
// and the attachment of the probes, which it makes.
func (s *Applier) plans(ctx context.Context, cluster *model.Cluster) (model.Plan, error) {
	if cluster.Network == nil || s.cfg.Paths == nil {
		return plan.Build(*cluster), nil
	}
	var err error
	if cluster.Evidence, err = s.cfg.Paths.Evidence(ctx); err != nil {
		return model.Plan{}, err
	}
	wanted := plan.Build(s.withProbe(*cluster))
	if s.plan == nil {
		// What the attachment hangs on is made by this pass.
		s.Trigger()
		return wanted, nil
	}
	if wanted.Probe.MTU == 0 || len(wanted.Probe.Addrs) == 0 && s.probe == nil {
		return wanted, nil
	}
	changed, err := s.attachProbe(ctx, wanted.Probe, cluster.Network.ID)
	if changed {
		wanted = plan.Build(s.withProbe(*cluster))
	}
	if err != nil {
		time.AfterFunc(s.probeRetry.Next(), s.Trigger)
		wanted.Problems = append(wanted.Problems, model.Problem{
			Reason: model.ReasonDegraded, Message: fmt.Sprintf("Paths cannot be proven, and stay as they are: %v.", err),
		})
		return wanted, nil
	}
	s.probeRetry.Reset()
	return wanted, nil
}

// withProbe returns a cluster to whose pods the attachment of the probes is added.
func (s *Applier) withProbe(cluster model.Cluster) model.Cluster {
	if s.probe != nil {
		cluster.Pods = append(slices.Clone(cluster.Pods), *s.probe)
	}
	return cluster
}

// attachProbe makes the attachment of the namespace from which probes are sent, and
// says whether it is another one than before.
func (s *Applier) attachProbe(ctx context.Context, probe model.Pod, network string) (bool, error) {
	probe.Netns = s.cfg.Paths.Netns()
	if s.probe != nil && reflect.DeepEqual(*s.probe, probe) && s.network == network && s.cfg.Links.CheckAttached(ctx, probe) == nil {
		return false, nil
	}
	if s.probe != nil && s.cluster != nil {
		// What goes with the former attachment is nobody's doing.
		s.notes.remove(plan.PodParts(*s.cluster, *s.probe))
	}
	s.probe = nil
	if err := s.cfg.Links.Attach(ctx, probe); err != nil {
		return true, fmt.Errorf("attach the namespace of the probes: %w", err)
	}
	s.probe = &probe
	if err := s.cfg.Paths.Listen(probe, network); err != nil {
		return true, fmt.Errorf("listen for probes: %w", err)
	}
	s.network = network
	return true, nil
}

// aim tells which paths are in force.
func (s *Applier) aim(wanted model.Plan) {
	if s.cfg.Paths != nil {
		s.cfg.Paths.Aim(wanted.Paths)
	}
}
