package apply

import (
	"context"
	"fmt"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// Attach implements cni.Network: it makes the pod's link, and returns when the
// pod's routes, neighbours and firewall elements are in the kernel.
func (s *Applier) Attach(ctx context.Context, pod model.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return s.fatal
	}
	if err := s.cfg.Links.Attach(ctx, pod); err != nil {
		return fmt.Errorf("make the pod's link: %w", err)
	}
	cluster, err := s.current(ctx)
	if err != nil {
		return err
	}
	part, displaced := plan.PodParts(cluster, pod), plan.Displaced(cluster, pod)
	s.notes.remove(displaced)
	s.notes.add(part)
	if err := s.cfg.Kernel.Execute(ctx, append(diff.Removals(displaced), diff.Additions(part)...)); err != nil {
		s.notes.remove(part)
		// Something that the last pass made is gone: the next one makes it again.
		s.Trigger()
		return fmt.Errorf("make the pod's routes: %w", err)
	}
	if s.reported != nil {
		s.reported.Pods = cluster.Pods
		s.report(*s.reported)
	}
	return s.cfg.Flows.Forget(ctx, pod)
}

// current is the cluster of the last pass with the pods of this moment, which
// decide who has a host port.
func (s *Applier) current(ctx context.Context) (model.Cluster, error) {
	cluster := *s.cluster
	pods, err := s.cfg.Pods(ctx)
	if err != nil {
		return cluster, fmt.Errorf("read the attachments: %w", err)
	}
	cluster.Pods = pods
	return cluster, nil
}

// Detach implements cni.Network: it takes away what Attach made. What is gone
// already does not matter. It works before the API server was heard from.
func (s *Applier) Detach(ctx context.Context, pod model.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The report counts pods; and what cannot be removed now, or is not known
	// before the first pass, the next pass removes.
	defer s.Trigger()
	if s.cluster != nil {
		cluster, err := s.current(ctx)
		if err != nil {
			return err
		}
		part := plan.PodParts(cluster, pod)
		s.notes.remove(part)
		if err := s.cfg.Kernel.Execute(ctx, diff.Removals(part)); err != nil {
			return fmt.Errorf("remove the pod's routes: %w", err)
		}
	}
	if err := s.cfg.Flows.Forget(ctx, pod); err != nil {
		return err
	}
	if err := s.cfg.Links.Detach(ctx, pod); err != nil {
		return fmt.Errorf("remove the pod's link: %w", err)
	}
	return nil
}

// CheckAttached says what is missing of a pod's attachment.
func (s *Applier) CheckAttached(ctx context.Context, pod model.Pod) error {
	return s.cfg.Links.CheckAttached(ctx, pod)
}
