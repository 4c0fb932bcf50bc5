package kernel

import (
	"context"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// observeAddresses finds the addresses of podnet's own links, and on lo those that
// are wanted there or lie in a block of this node: such a block has an unreachable
// route.
func (p *pass) observeAddresses(want []model.Address, routes []model.Route) ([]model.Address, error) {
	addrs, err := p.allAddresses()
	if err != nil {
		return nil, err
	}
	var have []model.Address
	for _, a := range addrs {
		l, ok := p.byIndex[a.LinkIndex]
		if !ok {
			continue
		}
		found := model.Address{Link: l.Attrs().Name, Addr: prefixOf(a.IPNet)}
		switch {
		case slices.Contains(want, found):
		case l.Attrs().Name == "lo":
			if !inOwnBlock(routes, found.Addr.Addr()) {
				continue
			}
		case l.Attrs().Alias != model.LinkAlias:
			continue
		case found.Addr.Addr().Is6() && found.Addr.Addr().IsLinkLocalUnicast():
			// The kernel makes these itself when a link goes up.
			continue
		}
		have = append(have, found)
	}
	return have, nil
}

// inOwnBlock says whether one of the unreachable routes, which cover the node's
// own blocks, covers an address.
func inOwnBlock(routes []model.Route, a netip.Addr) bool {
	return slices.ContainsFunc(routes, func(r model.Route) bool { return r.Table == 0 && r.Unreachable && r.Dst.Contains(a) })
}

// observeNeighbours finds the permanent neighbours on podnet's links, those of pods included.
func (p *pass) observeNeighbours() ([]model.Neighbour, error) {
	var have []model.Neighbour
	for _, family := range families {
		neighbours, err := p.neighbours(family)
		if err != nil {
			return nil, err
		}
		for _, n := range neighbours {
			l, ok := p.byIndex[n.LinkIndex]
			if !ok || !isOwn(l.Attrs().Alias) || n.State&netlink.NUD_PERMANENT == 0 || n.Flags&netlink.NTF_PROXY != 0 {
				continue
			}
			mac, ok := macOf(n.HardwareAddr)
			if !ok {
				continue
			}
			have = append(have, model.Neighbour{Link: l.Attrs().Name, Addr: addrOf(n.IP), MAC: mac})
		}
	}
	return have, nil
}

// observeFDB finds the permanent entries of podnet's VXLAN devices. An entry for
// the address of all zeros would be the default for unknown destinations.
func (p *pass) observeFDB() ([]model.FDBEntry, error) {
	entries, err := p.neighbours(unix.AF_BRIDGE)
	if err != nil {
		return nil, err
	}
	var have []model.FDBEntry
	for _, e := range entries {
		l, ok := p.byIndex[e.LinkIndex]
		if !ok || l.Attrs().Alias != model.LinkAlias || l.Type() != string(model.LinkVXLAN) {
			continue
		}
		mac, ok := macOf(e.HardwareAddr)
		if !ok || mac == (model.MAC{}) || e.State&netlink.NUD_PERMANENT == 0 || e.Flags&netlink.NTF_SELF == 0 {
			continue
		}
		have = append(have, model.FDBEntry{Link: l.Attrs().Name, MAC: mac, Endpoint: addrOf(e.IP)})
	}
	return have, nil
}
