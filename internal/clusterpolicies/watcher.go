// Package clusterpolicies keeps the cluster's ClusterNetworkPolicies in a cache. Their
// CRD is not podnet's: it need not be there, and may come and go. An informer of a kind
// that is not served is never complete, and whoever waits for it waits for ever.
package clusterpolicies

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

const (
	// interval is the time between two looks whether the API server has the kind, and
	// retry that after a look that failed while nothing is known yet.
	interval, retry = 30 * time.Second, 2 * time.Second
	// spread is the largest share by which an interval is longer than it says.
	spread = 0.1
	// patience is how long a look may take, and how long it may take to fill the cache.
	patience = 10 * time.Second
	// doubt is the time to a second look, before it is believed that there are none.
	doubt = 3 * time.Second
)

// ErrUnknown says that it is too early to say which policies there are, as it is for a
// moment after a program has started.
var ErrUnknown = errors.New("the ClusterNetworkPolicies are still unknown")

// Cache is what a Watcher needs of a cache, which somebody else runs.
type Cache interface {
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
	GetInformer(ctx context.Context, object client.Object, opts ...cache.InformerGetOption) (cache.Informer, error)
	RemoveInformer(ctx context.Context, object client.Object) error
}

// Watcher keeps ClusterNetworkPolicies in a cache for as long as the API server has the kind.
type Watcher struct {
	live    client.Reader
	cache   Cache
	changed func()
	// known is closed once it is known whether the API server has the kind.
	known chan struct{}

	// mu keeps the informer from being taken away while somebody reads, as the read would
	// make a new one.
	mu sync.Mutex
	// served says that the cache holds all of them; if not, there are none.
	served bool
}

// New returns a Watcher that asks the API server by live, and calls changed when it is
// first known which there are, and when one changes in more than its status.
func New(live client.Reader, c Cache, changed func()) *Watcher {
	return &Watcher{live: live, cache: c, changed: changed, known: make(chan struct{})}
}

// List returns the ClusterNetworkPolicies, which nobody may change; none where the API
// server has no such kind. It fails as long as that is unknown.
func (w *Watcher) List(ctx context.Context) ([]policyv1alpha2.ClusterNetworkPolicy, error) {
	if !w.isKnown() {
		return nil, ErrUnknown
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	list := &policyv1alpha2.ClusterNetworkPolicyList{}
	if !w.served {
		return nil, nil
	}
	if err := w.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("read ClusterNetworkPolicies: %w", err)
	}
	return list.Items, nil
}

func (w *Watcher) isKnown() bool {
	select {
	case <-w.known:
		return true
	default:
		return false
	}
}

// Run follows the kind until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := wait.Jitter(interval, spread)
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Info("cannot list the ClusterNetworkPolicies, trying again", "reason", err.Error())
			if !w.isKnown() {
				pause = retry
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// look begins or ends to watch the kind when it has come or gone.
func (w *Watcher) look(ctx context.Context) error {
	served, err := w.isServed(ctx)
	before := w.served // Nobody else writes it.
	if err == nil && !served && (before || !w.isKnown()) {
		// A CRD that is replaced, and an API server that lags behind, say so too.
		select {
		case <-ctx.Done():
		case <-time.After(doubt):
		}
		served, err = w.isServed(ctx)
	}
	if err != nil {
		return err
	}
	switch {
	case served && !before:
		err = w.begin(ctx)
	case !served && before:
		err = w.end(ctx)
	}
	if err != nil {
		return err
	}
	first := !w.isKnown()
	if first {
		close(w.known)
	}
	if first || served != before {
		log.FromContext(ctx).Info("looked for the kind ClusterNetworkPolicy", "served", served)
		w.changed()
	}
	return nil
}

// isServed asks the API server whether it has the kind. Any other failure than that it
// has not is no answer.
func (w *Watcher) isServed(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := w.live.List(ctx, &policyv1alpha2.ClusterNetworkPolicyList{}, client.Limit(1))
	switch {
	case err == nil:
		return true, nil
	// The second is the answer about a kind that was there when the client last looked.
	case apimeta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return false, nil
	}
	return false, fmt.Errorf("list ClusterNetworkPolicies: %w", err)
}

// begin returns when the cache holds all.
func (w *Watcher) begin(ctx context.Context) error {
	full, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	informer, err := w.cache.GetInformer(full, &policyv1alpha2.ClusterNetworkPolicy{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch ClusterNetworkPolicies: %w", err)
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { w.changed() },
		UpdateFunc: func(before, after any) {
			was, ok := before.(client.Object)
			is, also := after.(client.Object)
			if !ok || !also || was.GetUID() != is.GetUID() || was.GetGeneration() != is.GetGeneration() ||
				!maps.Equal(was.GetAnnotations(), is.GetAnnotations()) {
				w.changed()
			}
		},
		DeleteFunc: func(any) { w.changed() },
	})
	if err == nil && !toolscache.WaitForCacheSync(full.Done(), registration.HasSynced) {
		err = errors.New("the API server does not list them in time")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("watch ClusterNetworkPolicies: %w", err), w.end(ctx))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served = true
	return nil
}

// end makes the cache forget the kind.
func (w *Watcher) end(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served = false
	if err := w.cache.RemoveInformer(ctx, &policyv1alpha2.ClusterNetworkPolicy{}); err != nil {
		return fmt.Errorf("stop watching ClusterNetworkPolicies: %w", err)
	}
	return nil
}
