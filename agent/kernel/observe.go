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
	var have model.State
	links, err := p.allLinks()
	if err != nil {
		return model.State{}, err
	}
	for _, l := range links {
		if found, ok := p.observedLink(l); ok {
			have.Links = append(have.Links, found)
		}
		if port, ok := p.observedPort(l); ok {
			have.Ports = append(have.Ports, port)
		}
	}
	if have.Routes, err = p.observeRoutes(tables...); err != nil {
		return model.State{}, err
	}
	if have.Addresses, err = p.observeAddresses(want.Addresses, have.Routes); err != nil {
		return model.State{}, err
	}
	if have.Rules, err = p.observeRules(); err != nil {
		return model.State{}, err
	}
	if have.Neighbours, err = p.observeNeighbours(); err != nil {
		return model.State{}, err
	}
	if have.FDB, err = p.observeFDB(); err != nil {
		return model.State{}, err
	}
	if have.Sysctls, err = readSysctls(want.Sysctls); err != nil {
		return model.State{}, err
	}
	if have.Firewall, err = k.nft.List(ctx, model.FirewallTable); err != nil {
		return model.State{}, err
	}
	return have, nil
}
