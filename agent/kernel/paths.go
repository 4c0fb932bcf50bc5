package kernel

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Taken returns which paths to other nodes' blocks are in force.
func (k *Kernel) Taken(_ context.Context) (map[netip.Prefix]model.Path, error) {
	p, err := newPass()
	if err != nil {
		return nil, err
	}
	defer p.close()
	if _, err := p.allLinks(); err != nil {
		return nil, err
	}
	routes, err := p.observeRoutes(model.RouteTable)
	if err != nil {
		return nil, err
	}
	taken := map[netip.Prefix]model.Path{}
	for _, r := range routes {
		// Routes to pods of this node have no gateway.
		if !r.Via.IsValid() {
			continue
		}
		taken[r.Dst] = model.PathBy(r.Link)
	}
	return taken, nil
}

// Talking returns the addresses in other nodes' blocks to which this node has sent
// lately, up to the length to which the firewall notes them.
func (k *Kernel) Talking(ctx context.Context) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, digit := range []string{"4", "6"} {
		set := model.TalkingSet + digit
		keys, err := k.nft.Noted(ctx, nft.Inet, model.FirewallTable, set)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			a, err := netip.ParseAddr(key[0])
			if err != nil {
				return nil, fmt.Errorf("element of nft set %s: %w", set, err)
			}
			all = append(all, a)
		}
	}
	return all, nil
}
