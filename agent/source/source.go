// Package source reads what the API holds: it keeps caches of the objects that concern
// an agent, says when they are complete, and calls back when one changes. What was there
// before is left to agent/state, and what follows from it all to internal/plan.
package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/agent/state"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/clusterpolicies"
	"github.com/podnet/podnet/internal/convert"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/restored"
)

// startRetry is the time between attempts to start watching while the API
// server, or podnet's kinds on it, are not there yet.
const startRetry = 2 * time.Second

// Source reads the objects that concern an agent out of a cache. It never
// watches Nodes or NodeNetworks: their changes would reach every agent.
type Source struct {
	newCache func() (cache.Cache, error)
	live     client.Reader

	synced chan struct{}
	// renew asks for a new cache.
	renew loop.Signal
	// versions are those of the API server's store that were seen.
	versions restored.Versions

	// policyChanged, unless it is nil, is called when something changes that network
	// policy goes by.
	policyChanged func()

	mu sync.Mutex
	// cache is the one that is complete; nil before there is one. kept is what policy
	// goes by in it; nil where nobody asks for it.
	cache cache.Cache
	kept  *kept
}

// staleInterval is how often an agent compares its cache with the API server, and
// the least time between two caches; stalePatience is how long a cache may lag
// behind. 5,000 agents ask 170 times a second.
const (
	staleInterval = 30 * time.Second
	stalePatience = 5 * time.Second
	// spread is the largest share by which an interval is longer than it says.
	spread = 0.1
	// renewDelay, and up to as much again, is the time from noticing to reading again.
	renewDelay = time.Second
)

// New returns a Source that reads from caches which newCache makes and nobody
// else runs, and looks with live at the API server itself.
func New(newCache func() (cache.Cache, error), live client.Reader) *Source {
	return &Source{
		newCache: newCache, live: live,
		synced: make(chan struct{}), renew: loop.NewSignal(),
	}
}

// WatchPolicies makes the Source watch what network policy goes by too, and call
// changed when something of it changes. It is to be called before Run.
func (s *Source) WatchPolicies(changed func()) { s.policyChanged = changed }

// Renew makes the Source begin with a new cache, since somebody has seen that the
// API server was put back to an older state.
func (s *Source) Renew() { s.renew.Raise() }

// Run keeps a cache, and calls changed whenever an object changes, until ctx ends.
// While the API server, or podnet's kinds on it, cannot be reached, it keeps
// trying. Where the API server was put back to an older state, as by a restore of
// etcd from a backup, a watch misses all that comes before the last version that it
// saw: then it begins with a new cache, and reads from the last one until that is
// complete.
func (s *Source) Run(ctx context.Context, changed func()) error {
	stopLast := func() {}
	defer func() { stopLast() }()
	for ctx.Err() == nil {
		c, err := s.newCache()
		if err != nil {
			return fmt.Errorf("make a cache: %w", err)
		}
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- c.Start(running) }()
		kept, err := s.watch(running, c, changed)
		if err != nil {
			stop()
			return errors.Join(err, <-ended)
		}
		s.use(c, kept)
		stopLast()
		stopLast = func() {
			stop()
			if err := <-ended; err != nil {
				log.FromContext(ctx).Error(err, "a cache ended badly")
			}
		}
		changed()
		if s.policyChanged != nil {
			s.policyChanged()
		}
		if why := s.stale(ctx, c); why != "" {
			log.FromContext(ctx).Info("reading all objects again", "reason", why)
		}
	}
	return nil
}

// stale returns why a cache is to be recreated, and nothing when ctx ends. Every
// manager that begins to lead changes the roll call, so that no restore of the API
// server passes by without a difference.
func (s *Source) stale(ctx context.Context, c cache.Cache) string {
	began := time.Now()
	for {
		why := ""
		select {
		case <-ctx.Done():
			return ""
		case <-s.renew:
			why = "the node's report is not there as it was written"
		case <-time.After(wait.Jitter(staleInterval, spread)):
			if s.lags(ctx, c) {
				why = "a watch has missed changes: the API server may have been restored from a backup"
			}
		}
		if why == "" {
			continue
		}
		// All agents notice at once, and the API server may be busy.
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(max(wait.Jitter(staleInterval, 1)-time.Since(began), wait.Jitter(renewDelay, 1))):
			return why
		}
	}
}

// lags reports whether the cache does not get to know what the API server has.
func (s *Source) lags(ctx context.Context, c cache.Cache) bool {
	is, version := rollCall(ctx, s.live)
	before, _ := rollCall(ctx, c)
	if version == "" {
		return false
	}
	if errors.Is(s.versions.Next(version), restored.ErrRestored) {
		return true
	}
	if is == "" || is == before {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(stalePatience):
	}
	// It may have changed again: the cache lags only if it has not moved at all.
	later, _ := rollCall(ctx, c)
	return later == before
}

// rollCall reads the PodNetwork's roll call and the version of the store, which a
// list has; nothing where they cannot be read.
func rollCall(ctx context.Context, from client.Reader) (call, version string) {
	ctx, cancel := context.WithTimeout(ctx, stalePatience)
	defer cancel()
	var list podnetv1alpha1.PodNetworkList
	if err := from.List(ctx, &list); err != nil {
		return "", ""
	}
	for i := range list.Items {
		if list.Items[i].Name == podnetv1alpha1.DefaultPodNetwork {
			call = list.Items[i].Status.RollCall
		}
	}
	return call, list.ResourceVersion
}

// watch makes changed be called whenever an object changes, and returns when
// the cache holds all that the API server holds, and so does what is kept of it. It
// fails only with ctx.
func (s *Source) watch(ctx context.Context, c cache.Cache, changed func()) (*kept, error) {
	kinds := []watched{
		{&podnetv1alpha1.PodNetwork{}, notify(changed)}, {&podnetv1alpha1.NodeSubnet{}, notify(changed)}, {&podnetv1alpha1.RouteMode{}, notify(changed)},
	}
	var keeps *kept
	if s.policyChanged != nil {
		keeps = &kept{
			pods:     &pods{byID: map[types.NamespacedName]model.ClusterPod{}},
			policies: clusterpolicies.New(s.live, c, s.policyChanged),
		}
		kinds = append(kinds,
			watched{&networkingv1.NetworkPolicy{}, notify(s.policyChanged)}, watched{&corev1.Namespace{}, notifyLabels(s.policyChanged)},
			watched{&corev1.Pod{}, keeps.pods.handler(s.policyChanged)})
	}
	var handled []toolscache.InformerSynced
	for _, kind := range kinds {
		err := wait.PollUntilContextCancel(ctx, startRetry, true, func(ctx context.Context) (bool, error) {
			var registration toolscache.ResourceEventHandlerRegistration
			informer, err := c.GetInformer(ctx, kind.object, cache.BlockUntilSynced(false))
			if err == nil {
				registration, err = informer.AddEventHandler(kind.handler)
			}
			if err != nil {
				log.FromContext(ctx).Info("cannot watch yet, trying again", "kind", fmt.Sprintf("%T", kind.object), "reason", err.Error())
				// It may pass, so it is tried again.
				return false, nil
			}
			if keeps != nil {
				handled = append(handled, registration.HasSynced)
			}
			return true, nil
		})
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", kind.object, err)
		}
	}
	if !c.WaitForCacheSync(ctx) || !toolscache.WaitForCacheSync(ctx.Done(), handled...) {
		return nil, fmt.Errorf("fill the caches: %w", context.Cause(ctx))
	}
	if keeps != nil {
		// Not before: where the kind goes meanwhile, the cache is not complete until it is given up.
		// Nor is it waited for: blocks and routes do not depend on it, and policies fail to be read until then.
		go keeps.policies.Run(ctx)
	}
	return keeps, nil
}

// watched is a kind of object, and who hears of it.
type watched struct {
	object  client.Object
	handler toolscache.ResourceEventHandler
}

// use makes a cache the one that is read from.
func (s *Source) use(c cache.Cache, kept *kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil {
		close(s.synced)
	}
	s.cache, s.kept = c, kept
}

// notifyLabels is notify for namespaces, whose generation says nothing of their labels.
func notifyLabels(changed func()) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() },
		UpdateFunc: func(before, after any) {
			was, ok := before.(client.Object)
			is, also := after.(client.Object)
			if !ok || !also || !maps.Equal(was.GetLabels(), is.GetLabels()) {
				changed()
			}
		},
		DeleteFunc: func(any) { changed() },
	}
}

func notify(changed func()) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() },
		UpdateFunc: func(before, after any) {
			if concerns(before, after) {
				changed()
			}
		},
		DeleteFunc: func(any) { changed() },
	}
}

// concerns reports whether an update changes what an agent goes by. The counts in a
// status change with every pod of the cluster.
func concerns(before, after any) bool {
	was, ok := before.(client.Object)
	is, also := after.(client.Object)
	if !ok || !also || was.GetUID() != is.GetUID() || was.GetGeneration() != is.GetGeneration() ||
		!maps.Equal(was.GetAnnotations(), is.GetAnnotations()) {
		return true
	}
	network, ok := before.(*podnetv1alpha1.PodNetwork)
	later, also := after.(*podnetv1alpha1.PodNetwork)
	return ok && also &&
		(network.Status.RollCall != later.Status.RollCall || convert.Exhausted(network.Status.Ranges) != convert.Exhausted(later.Status.Ranges))
}

// Synced is closed once the caches are complete. Before that, what is absent is
// not known to be absent.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// errUnheard is why nothing can be said of the objects.
var errUnheard = errors.New("the agent has not heard all from the API server yet")

// Objects implements state.Source. It fails before the caches are complete.
func (s *Source) Objects(ctx context.Context) (state.Objects, error) {
	s.mu.Lock()
	from := s.cache
	s.mu.Unlock()
	var out state.Objects
	if from == nil {
		return out, errUnheard
	}
	var pn podnetv1alpha1.PodNetwork
	err := from.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, &pn)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return out, fmt.Errorf("read PodNetwork %s: %w", podnetv1alpha1.DefaultPodNetwork, err)
	default:
		_, out.Uninstall = pn.Annotations[podnetv1alpha1.UninstallAnnotation]
		out.RangeSummary, out.RollCall = convert.RangeSummary(pn.Status.Ranges), pn.Status.RollCall
		if out.Network, err = convert.Network(&pn); err != nil {
			return out, err
		}
	}

	var subnets podnetv1alpha1.NodeSubnetList
	if err := from.List(ctx, &subnets); err != nil {
		return out, fmt.Errorf("read NodeSubnets: %w", err)
	}
	for i := range subnets.Items {
		if subnets.Items[i].Spec.Network != podnetv1alpha1.DefaultPodNetwork {
			continue
		}
		b, err := convert.Block(&subnets.Items[i])
		if err != nil {
			out.Problems = append(out.Problems, unreadable(err))
			continue
		}
		out.Blocks = append(out.Blocks, b)
	}

	var modes podnetv1alpha1.RouteModeList
	if err := from.List(ctx, &modes); err != nil {
		return out, fmt.Errorf("read RouteModes: %w", err)
	}
	for i := range modes.Items {
		m, err := convert.RouteMode(&modes.Items[i])
		if err != nil {
			out.Problems = append(out.Problems, unreadable(err))
			continue
		}
		out.RouteModes = append(out.RouteModes, m)
	}
	return out, nil
}

func unreadable(err error) model.Problem {
	return model.Problem{Reason: podnetv1alpha1.ReasonDegraded, Message: fmt.Sprintf("%v. The object is ignored: correct it.", err)}
}
