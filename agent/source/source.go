// Package source turns what the API holds into values: it keeps caches of the
// objects that concern an agent, says when they are complete, and calls back
// when one changes. What follows from the values is left to internal/plan.
package source

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// startRetry is the time between attempts to start watching while the API
// server, or podnet's kinds on it, are not there yet.
const startRetry = 2 * time.Second

// Source reads the objects that concern an agent out of a cache. It never
// watches Nodes or NodeNetworks: their changes would reach every agent.
type Source struct {
	cache  cache.Cache
	synced atomic.Bool
	lost   *lost
}

// New returns a Source that reads from a cache that somebody else runs.
func New(c cache.Cache) *Source { return &Source{cache: c, lost: newLost(clock.RealClock{})} }

// Watch makes changed be called whenever an object changes, and returns when
// the caches hold all that the API server holds. While the API server, or
// podnet's kinds on it, cannot be reached, it keeps trying; it fails only with ctx.
func (s *Source) Watch(ctx context.Context, changed func()) error {
	kinds := []client.Object{&podnetv1alpha1.PodNetwork{}, &podnetv1alpha1.NodeSubnet{}, &podnetv1alpha1.RouteMode{}}
	for _, kind := range kinds {
		err := wait.PollUntilContextCancel(ctx, startRetry, true, func(ctx context.Context) (bool, error) {
			informer, err := s.cache.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
			if err == nil {
				_, err = informer.AddEventHandler(notify(changed))
			}
			if err != nil {
				log.FromContext(ctx).Info("cannot watch yet, trying again", "kind", fmt.Sprintf("%T", kind), "reason", err.Error())
				// It may pass, so it is tried again.
				return false, nil
			}
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind, err)
		}
	}
	if !s.cache.WaitForCacheSync(ctx) {
		return fmt.Errorf("fill the caches: %w", context.Cause(ctx))
	}
	s.synced.Store(true)
	changed()
	return nil
}

func notify(changed func()) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(any, any) { changed() },
		DeleteFunc: func(any) { changed() },
	}
}

// Snapshot is what the API holds at one moment.
type Snapshot struct {
	// Network is nil as long as there is no PodNetwork named default.
	Network    *model.Network
	Blocks     []model.Block
	RouteModes []model.RouteMode
	// RollCall is the manager's last request to report the blocks in use; empty where there was none.
	RollCall string
	// Uninstall says that podnet shall be taken off every node.
	Uninstall bool
	// RangeSummary says, for people, how many blocks each range has and has free.
	RangeSummary string
	// Problems are the objects that could not be read, a sentence each.
	Problems []model.Problem
}

// Synced says whether the caches are complete. Before that, what is absent is
// not known to be absent.
func (s *Source) Synced() bool { return s.synced.Load() }

// Snapshot reads the caches. It fails before they are complete.
func (s *Source) Snapshot(ctx context.Context) (Snapshot, error) {
	var out Snapshot
	if !s.Synced() {
		return out, fmt.Errorf("the agent has not heard all from the API server yet")
	}
	var pn podnetv1alpha1.PodNetwork
	err := s.cache.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, &pn)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return out, fmt.Errorf("read PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	default:
		_, out.Uninstall = pn.Annotations[podnetv1alpha1.UninstallAnnotation]
		out.RangeSummary, out.RollCall = rangeSummary(pn.Status.Ranges), pn.Status.RollCall
		if out.Network, err = network(&pn); err != nil {
			return out, err
		}
	}

	var subnets podnetv1alpha1.NodeSubnetList
	if err := s.cache.List(ctx, &subnets); err != nil {
		return out, fmt.Errorf("read NodeSubnets: %w", err)
	}
	for i := range subnets.Items {
		if subnets.Items[i].Spec.Network != podnetv1alpha1.DefaultPodNetwork {
			continue
		}
		b, err := block(&subnets.Items[i])
		if err != nil {
			out.Problems = append(out.Problems, unreadable(err))
			continue
		}
		out.Blocks = append(out.Blocks, b)
	}
	out.Blocks = append(out.Blocks, s.lost.blocks(out.Blocks)...)

	var modes podnetv1alpha1.RouteModeList
	if err := s.cache.List(ctx, &modes); err != nil {
		return out, fmt.Errorf("read RouteModes: %w", err)
	}
	for i := range modes.Items {
		m, err := routeMode(&modes.Items[i])
		if err != nil {
			out.Problems = append(out.Problems, unreadable(err))
			continue
		}
		out.RouteModes = append(out.RouteModes, m)
	}
	return out, nil
}

func unreadable(err error) model.Problem {
	return model.Problem{Reason: podnetv1alpha1.ReasonDegraded, Message: fmt.Sprintf("%v; the object is left out until it is mended.", err)}
}

func rangeSummary(ranges []podnetv1alpha1.RangeStatus) string {
	out := ""
	for _, r := range ranges {
		if r.BlocksTotal == nil || r.BlocksFree == nil {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf("range %s has %d blocks of which %d are free", r.CIDR, *r.BlocksTotal, *r.BlocksFree)
	}
	return out
}
