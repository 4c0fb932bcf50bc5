// Package restored notices that the API server's store was put back to an older
// state, as by a restore of etcd from a backup. Watches do not: their clients wait
// for versions after the last that they saw, and miss all that comes before.
package restored

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// ErrRestored says that caches hold what the API server has not any more.
var ErrRestored = errors.New("the API server holds an older state than it did before: it was restored from a backup")

// Watcher looks, now and then, at the version of the API server's store.
type Watcher struct {
	// Reader reads from the API server itself.
	Reader client.Reader
	// Interval is the time between two looks.
	Interval time.Duration

	newest string
}

// Run returns ErrRestored once the version has gone back, and nil when ctx ends.
// An API server that does not answer is asked again.
func (w *Watcher) Run(ctx context.Context) error {
	ticker := time.NewTicker(w.Interval)
	defer ticker.Stop()
	for {
		if err := w.look(ctx); errors.Is(err, ErrRestored) {
			return err
		} else if err != nil {
			log.FromContext(ctx).V(1).Info("cannot look at the version of the API server's store", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look compares the version of this moment with the newest one seen. That of a
// list is the store's (Kubernetes API concepts, "Resource versions").
func (w *Watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.Interval)
	defer cancel()
	list := &podnetv1alpha1.PodNetworkList{}
	if err := w.Reader.List(ctx, list, client.Limit(1)); err != nil {
		return fmt.Errorf("list PodNetworks: %w", err)
	}
	if w.newest != "" {
		order, err := resourceversion.CompareResourceVersion(list.ResourceVersion, w.newest)
		if err != nil {
			return fmt.Errorf("compare versions: %w", err)
		}
		if order < 0 {
			return fmt.Errorf("%w (version %s after %s)", ErrRestored, list.ResourceVersion, w.newest)
		}
	}
	w.newest = list.ResourceVersion
	return nil
}
