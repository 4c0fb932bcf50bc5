package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/socket"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// routeGroups are the notifications that are asked for.
func routeGroups() []uint {
	var groups []uint
	for _, k := range kinds {
		groups = append(groups, k.news.groups...)
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

const (
	// sysctlInterval is the time between looks at the parameters. The kernel tells
	// of some (RTNLGRP_IPV4_NETCONF), but neither of accept_ra nor of those of
	// bridges. Each is a small file; each pod has some.
	sysctlInterval = time.Second
	// sysctlsAtOnce is how many are looked at each time, in turn.
	sysctlsAtOnce = 256
)

// Watch reports what becomes of podnet's objects, whoever changes them, and of links
// that are not podnet's, their addresses and the main table's routes, until ctx ends or
// a subscription fails; then it returns an error. First it reports that anything may have
// changed. Of parameters it looks at those that sysctls returns, once a second, or in turn
// where they are many. seen may be called concurrently and must not block.
func (k *Kernel) Watch(ctx context.Context, sysctls func() []model.Sysctl, seen func(diff.Sighting)) error {
	route, err := socket.Subscribe(unix.NETLINK_ROUTE, routeGroups()...)
	if err != nil {
		return fmt.Errorf("subscribe to changes of links, routes and neighbours: %w", err)
	}
	defer route.Close()
	notices, stop, err := k.nft.Notices(model.FirewallTable, func(n nft.Notice) { seen(tableSighting(n)) }, func() { seen(diff.Sighting{}) })
	if err != nil {
		return err
	}
	defer stop()
	w, err := newWatcher(seen)
	if err != nil {
		return err
	}
	seen(diff.Sighting{})

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Go(func() {
		failed <- socket.Receive(route, w.route, w.overrun)
		cancel()
	})
	wg.Go(func() {
		failed <- notices()
		cancel()
	})
	err = watchSysctls(ctx, sysctls, seen)
	cancel()
	// This ends the receiving.
	route.Close()
	stop()
	wg.Wait()
	return errors.Join(err, <-failed, <-failed)
}

// watchSysctls reports the values of parameters, and of those that are not there, until ctx
// ends.
func watchSysctls(ctx context.Context, sysctls func() []model.Sysctl, seen func(diff.Sighting)) error {
	tick := time.NewTicker(sysctlInterval)
	defer tick.Stop()
	for next := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		all := sysctls()
		for range min(len(all), sysctlsAtOnce) {
			s := all[next%len(all)]
			next++
			value, there, err := ReadSysctl(s.Key)
			if err != nil {
				return err
			}
			seen(diff.Sighting{Object: model.Sysctl{Key: s.Key, Value: value}, Gone: !there})
		}
	}
}
