// Package attach holds what new pods get of the node's network, and makes and removes their
// attachments. Which addresses they get, and the runtime's requests, are left to agent/cni;
// all else in the kernel is left to agent/apply.
package attach

import (
	"context"
	"fmt"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// Links makes and removes the links of pods.
type Links interface {
	Attach(ctx context.Context, pod model.Pod) error
	Detach(ctx context.Context, pod model.Pod) error
	CheckAttached(ctx context.Context, pod model.Pod) error
}

// Flows ends what the kernel remembers of flows.
type Flows interface {
	// Forget makes the kernel forget the flows that came in by a pod's UDP host
	// ports: as long as packets keep coming, it would go on sending them where it
	// sent the first.
	Forget(ctx context.Context, pod model.Pod) error
}

// Kernel is the node's kernel between passes.
type Kernel interface {
	// Between runs f while nobody else writes the kernel. It is given what the last pass
	// went by, nil before the first one that had a network.
	Between(f func(*model.Cluster) error) error
	// Exchange takes a part of the plan out of the kernel and puts another in. It is to be
	// called by what Between runs.
	Exchange(ctx context.Context, gone, come model.State) error
	// Attached is told which pods hang on the node after one was attached.
	Attached(pods []model.Pod)
}

// Policy is what network policy needs of attachments.
type Policy interface {
	// Admit returns when what is to be enforced on a pod is in the kernel.
	Admit(ctx context.Context, pod model.Pod) error
	// Trigger is called after a pod was detached.
	Trigger()
}

// Config is what an Attacher works with.
type Config struct {
	Offers *Offers
	Kernel Kernel
	Links  Links
	Flows  Flows
	// Policy, unless it is nil, is asked before a link is made.
	Policy Policy
	// Pods returns the pods whose links exist on the node.
	Pods func(ctx context.Context) ([]model.Pod, error)
	// Passes is raised when a pass is needed.
	Passes loop.Signal
}

// Attacher makes and removes attachments. Its methods may be called concurrently.
type Attacher struct {
	cfg Config
}

// New returns an Attacher.
func New(cfg Config) *Attacher { return &Attacher{cfg: cfg} }

// Offer implements cni.Network.
func (a *Attacher) Offer() (Offer, error) { return a.cfg.Offers.Current() }

// Attach implements cni.Network: it makes the pod's link, and returns when the pod's
// routes, neighbours and firewall elements, and the policies that select it, are in the
// kernel.
func (a *Attacher) Attach(ctx context.Context, pod model.Pod) error {
	if a.cfg.Policy != nil {
		if err := a.cfg.Policy.Admit(ctx, pod); err != nil {
			return err
		}
	}
	return a.cfg.Kernel.Between(func(last *model.Cluster) error {
		if _, err := a.cfg.Offers.Current(); err != nil {
			return err
		}
		if err := a.cfg.Links.Attach(ctx, pod); err != nil {
			return fmt.Errorf("make the pod's link: %w", err)
		}
		cluster, err := a.current(ctx, *last)
		if err != nil {
			return err
		}
		if err := a.cfg.Kernel.Exchange(ctx, plan.Displaced(cluster, pod), plan.PodParts(cluster, pod)); err != nil {
			return fmt.Errorf("make the pod's routes: %w", err)
		}
		a.cfg.Kernel.Attached(cluster.Pods)
		return a.cfg.Flows.Forget(ctx, pod)
	})
}

// current is the cluster of the last pass with the pods of this moment, which
// decide who has a host port.
func (a *Attacher) current(ctx context.Context, cluster model.Cluster) (model.Cluster, error) {
	pods, err := a.cfg.Pods(ctx)
	if err != nil {
		return cluster, fmt.Errorf("read the attachments: %w", err)
	}
	cluster.Pods = pods
	return cluster, nil
}

// Detach implements cni.Network: it takes away what Attach made. What is gone
// already does not matter. It works before the API server was heard from. Policies are
// enforced on a pod until its record is gone.
func (a *Attacher) Detach(ctx context.Context, pod model.Pod) error {
	if a.cfg.Policy != nil {
		defer a.cfg.Policy.Trigger()
	}
	// The report counts pods; and what cannot be removed now, or is unknown
	// before the first pass, the next pass removes.
	defer a.cfg.Passes.Raise()
	return a.cfg.Kernel.Between(func(last *model.Cluster) error {
		if last != nil {
			cluster, err := a.current(ctx, *last)
			if err != nil {
				return err
			}
			if err := a.cfg.Kernel.Exchange(ctx, plan.PodParts(cluster, pod), model.State{}); err != nil {
				return fmt.Errorf("remove the pod's routes: %w", err)
			}
		}
		if err := a.cfg.Flows.Forget(ctx, pod); err != nil {
			return err
		}
		if err := a.cfg.Links.Detach(ctx, pod); err != nil {
			return fmt.Errorf("remove the pod's link: %w", err)
		}
		return nil
	})
}

// CheckAttached says what is missing of a pod's attachment.
func (a *Attacher) CheckAttached(ctx context.Context, pod model.Pod) error {
	return a.cfg.Links.CheckAttached(ctx, pod)
}
