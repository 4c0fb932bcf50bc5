package kernel

import (
	"context"
	"errors"
	"fmt"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// Remove takes everything that podnet made off the node, also the links of pods
// that still run, and gives sysctls the values that they had before. It touches
// nothing else, and may be called again after it failed.
func (k *Kernel) Remove(ctx context.Context) error {
	have, err := k.Observe(ctx, model.State{})
	if err != nil {
		return fmt.Errorf("find what to remove: %w", err)
	}
	// What went with its link or stays is not among the operations: rules go first, so that no packet
	// meets a part of the routes, and links last.
	ops := diff.Diff(model.State{}, have)
	if err := k.Execute(ctx, ops); err != nil {
		return fmt.Errorf("remove what podnet made: %w", err)
	}
	// Observe leaves these out.
	for _, name := range []string{model.PolicyTable, model.TraceTable} {
		if err := k.nft.Remove(ctx, name); err != nil {
			return err
		}
	}
	if err := removePodLinks(); err != nil {
		return err
	}
	return k.restoreSysctls()
}

// removePodLinks removes the links of all pods.
func removePodLinks() error {
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	links, err := p.allLinks()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if !isPodAlias(l.Attrs().Alias) {
			continue
		}
		if err := p.h.LinkDel(l); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("delete link %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
