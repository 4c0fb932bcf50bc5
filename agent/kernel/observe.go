package kernel

import (
	"context"

	"github.com/podnet/podnet/internal/model"
)

// Observe returns what podnet made of the kernel, and nothing else: in the terms
// of want, which names the sysctls that are read. Rules of the firewall have their
// fingerprints alone, and a link that is down has an MTU of 0, so that it differs
// from every link that is wanted. It fails rather than return a part.
func (k *Kernel) Observe(ctx context.Context, want model.State) (model.State, error) {
	p, err := newPass()
	if err != nil {
		return model.State{}, err
	}
	defer p.close()
	if _, err := p.allLinks(); err != nil {
		return model.State{}, err
	}
	var have model.State
	for _, kind := range kinds {
		if err := kind.find(ctx, k, p, want, &have); err != nil {
			return model.State{}, err
		}
	}
	return have, nil
}
