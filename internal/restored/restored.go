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

// Watcher looks, now and then, whether a cache holds what the API server holds.
type Watcher struct {
	// Live reads from the API server itself, and Cached from the cache.
	Live, Cached client.Reader
	// Interval is the time between two looks.
	Interval time.Duration

	versions Versions
}

// Versions are those of the API server's store, which lists have (Kubernetes API concepts,
// "Resource versions").
type Versions struct {
	newest string
}

// Next takes the version of this moment. It returns ErrRestored where it is older than the
// one before, and another error where they cannot be compared.
func (v *Versions) Next(version string) error {
	before := v.newest
	if before != "" {
		order, err := resourceversion.CompareResourceVersion(version, before)
		if err != nil {
			return fmt.Errorf("compare versions: %w", err)
		}
		if order < 0 {
			v.newest = version
			return fmt.Errorf("%w (version %s after %s)", ErrRestored, version, before)
		}
	}
	v.newest = version
	return nil
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

// look compares the version of this moment with the newest one seen, and what the
// cache holds with the API server.
func (w *Watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.Interval)
	defer cancel()
	list := &podnetv1alpha1.PodNetworkList{}
	if err := w.Live.List(ctx, list, client.Limit(1)); err != nil {
		return fmt.Errorf("list PodNetworks: %w", err)
	}
	if err := w.versions.Next(list.ResourceVersion); err != nil {
		return err
	}
	return w.compare(ctx)
}

// compare looks up the NodeSubnet that changed last, as far as the cache knows. By
// the time of a look the store's version may have passed the one before a restore
// again, and the cache's watch stays blind to what it missed.
func (w *Watcher) compare(ctx context.Context) error {
	known, err := w.latest(ctx)
	if err != nil || known == nil {
		return err
	}
	is := &podnetv1alpha1.NodeSubnet{}
	err = w.Live.Get(ctx, client.ObjectKeyFromObject(known), is)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("read NodeSubnet %s: %w", known.Name, err)
	case err == nil && is.ResourceVersion == known.ResourceVersion:
		return nil
	}
	// The news may be on its way: half an interval is ample.
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(w.Interval / 2): //nolint:mnd // A half.
	}
	later := &podnetv1alpha1.NodeSubnet{}
	err = w.Cached.Get(ctx, client.ObjectKeyFromObject(known), later)
	if err == nil && later.ResourceVersion == known.ResourceVersion {
		return fmt.Errorf("%w (NodeSubnet %s is another one there)", ErrRestored, known.Name)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read NodeSubnet %s from the cache: %w", known.Name, err)
	}
	return nil
}

// latest returns the NodeSubnet of the cache with the newest version; nil where there is none.
func (w *Watcher) latest(ctx context.Context) (*podnetv1alpha1.NodeSubnet, error) {
	list := &podnetv1alpha1.NodeSubnetList{}
	if err := w.Cached.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list NodeSubnets of the cache: %w", err)
	}
	var latest *podnetv1alpha1.NodeSubnet
	for i := range list.Items {
		s := &list.Items[i]
		if latest == nil {
			latest = s
			continue
		}
		if order, err := resourceversion.CompareResourceVersion(s.ResourceVersion, latest.ResourceVersion); err == nil && order > 0 {
			latest = s
		}
	}
	return latest, nil
}
