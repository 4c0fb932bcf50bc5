package plan

import (
	"net/netip"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// loopback is the link that is always there. podnet's own address is the only
// one that it ever puts there.
const loopback = "lo"

// linkMAC is the address of a link that podnet makes on a node. Every node can compute that
// of any other.
func linkMAC(node, device string) model.MAC { return model.DeriveMAC(node + "/" + device) }

// links adds the links and their addresses.
func (v *view) links(s *model.State) {
	for _, l := range v.vxlan {
		if l != nil {
			s.Links = append(s.Links, *l)
		}
	}
	// A connection of the node's own keeps the address that it began with as long as
	// the node holds that block, whichever block new ones use.
	for _, b := range v.own {
		address := host(ipam.NodeAddress(b.CIDR))
		s.Addresses = append(s.Addresses, model.Address{Link: v.home(families[model.FamilyIndex(address.Addr())]), Addr: address})
	}
	if !v.bridge {
		return
	}
	s.Links = append(s.Links, model.Link{
		Name: model.BridgeLink, Kind: model.LinkBridge, MAC: linkMAC(v.host.Node, model.BridgeLink), MTU: v.mtu,
	})
	for _, b := range v.own {
		if gateway := ipam.GatewayAddress(b.CIDR); gateway.IsValid() {
			s.Addresses = append(s.Addresses, model.Address{
				Link: model.BridgeLink, Addr: netip.PrefixFrom(gateway, b.CIDR.Bits()),
			})
		}
	}
}

// home is the link that has the node's own addresses of a family: the first VXLAN
// device that carries the family, and the loopback where none does.
func (v *view) home(f family) string {
	for _, l := range v.vxlan {
		if l != nil && f.fits(l.MTU) {
			return l.Name
		}
	}
	return loopback
}
