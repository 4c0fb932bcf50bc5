package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/path"
)

// ownRoutes adds the rules that lead to podnet's table, and what keeps packets
// to unused addresses of the node's own blocks from making neighbours.
func (v *view) ownRoutes(s *model.State) {
	for i, f := range families {
		if v.active[i] {
			s.Rules = append(s.Rules, model.Rule{IPv6: !f.is4, Priority: model.RulePriority, Table: model.RouteTable})
		}
	}
	for _, b := range v.own {
		s.Routes = append(s.Routes, model.Route{Dst: b.CIDR, Unreachable: true})
	}
}

// peerRoutes adds the way to the blocks of all other nodes, and returns which
// path each takes, sorted by block.
func (v *view) peerRoutes(s *model.State) []model.PathChoice {
	var choices []model.PathChoice
	for _, p := range v.peers {
		want := v.modes.between(p.labels)
		device, overlayObstacle := v.overlayTo(p)
		if device != nil {
			mac := linkMAC(p.node, device.Name)
			known := len(s.Neighbours)
			s.FDB = append(s.FDB, model.FDBEntry{
				Link: device.Name, MAC: mac, Endpoint: p.endpoints[model.FamilyIndex(device.Local)],
			})
			for _, b := range p.blocks {
				n := model.Neighbour{Link: device.Name, Addr: gatewayTo(b.CIDR, mac), MAC: mac}
				// A node's IPv6 blocks have one gateway.
				if !slices.Contains(s.Neighbours[known:], n) {
					s.Neighbours = append(s.Neighbours, n)
				}
			}
		}
		for _, b := range p.blocks {
			hop, routedObstacle := v.nextHop(p, model.FamilyIndex(b.CIDR.Addr()))
			taken, why := path.Choose(want.mode, path.Reach{RoutedObstacle: routedObstacle, OverlayObstacle: overlayObstacle})
			choices = append(choices, model.PathChoice{
				Node: p.node, Block: b.CIDR, Want: want.mode, RouteMode: want.by, Path: taken, Message: why,
			})
			s.Routes = append(s.Routes, v.routeTo(b, taken, hop, device))
		}
	}
	slices.SortFunc(choices, func(a, b model.PathChoice) int { return model.ComparePrefix(a.Block, b.Block) })
	return choices
}

// hop is where packets to another node leave this one.
type hop struct {
	via  netip.Addr
	link string
}

// routeTo is the route to another node's block on the path that was chosen. A
// path that is down gets a route as well: without one the packets would follow
// the node's default route into a network that they were not meant for.
func (v *view) routeTo(to model.Block, taken model.Path, next hop, device *model.Link) model.Route {
	block := to.CIDR
	src := v.address[model.FamilyIndex(block.Addr())]
	switch taken {
	case model.PathRouted:
		// The next hop is on the link because the node's own route says so, which the
		// kernel would otherwise look for in podnet's table first.
		return model.Route{Dst: block, Link: next.link, Via: next.via, OnLink: true, Src: src}
	case model.PathOverlay:
		return model.Route{
			Dst: block, Link: device.Name, Via: gatewayTo(block, linkMAC(to.Node, device.Name)), OnLink: true, Src: src,
			MTU: min(v.mtu, device.MTU),
		}
	default:
		return model.Route{Dst: block, Unreachable: true}
	}
}

// gatewayTo is the next hop to a block inside the overlay, given the address of
// the other node's device. For IPv6 it is that device's link-local address (RFC
// 4291, appendix A): the kernel refuses any other that a route of its main table
// leads to by another link, such as one to the whole range by a router, even where
// the route says that it is on the link (net/ipv6/route.c, ip6_route_check_nh_onlink).
func gatewayTo(block netip.Prefix, mac model.MAC) netip.Addr {
	if block.Addr().Is4() {
		return ipam.NodeAddress(block)
	}
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: mac[0] ^ 0x02, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	})
}

// overlayTo returns the VXLAN device that reaches a node, or why there is none.
// The family of the outer packets does not depend on that of the pods' packets.
func (v *view) overlayTo(p *peer) (*model.Link, string) {
	if !v.host.VXLAN {
		return nil, "this node's kernel cannot make VXLAN devices (module vxlan)"
	}
	for i, device := range v.vxlan {
		if device == nil || !p.endpoints[i].IsValid() {
			continue
		}
		if p.endpoints[i] == device.Local {
			return nil, fmt.Sprintf("node %s claims this node's own endpoint %s", p.node, device.Local)
		}
		return device, ""
	}
	return nil, fmt.Sprintf("node %s and this node have no endpoints of one family", p.node)
}

// nextHop returns where packets to a node's endpoint of a family leave this
// node, or why they cannot. Where the endpoint is not on the link the routers
// between have to know the pods' blocks.
func (v *view) nextHop(p *peer, i int) (hop, string) {
	own, ok := v.host.Endpoint(families[i].is4)
	endpoint := p.endpoints[i]
	switch {
	case !ok:
		return hop{}, fmt.Sprintf("this node has no %s endpoint", families[i].name)
	case !endpoint.IsValid():
		return hop{}, fmt.Sprintf("node %s has no %s endpoint", p.node, families[i].name)
	case own.Addr == endpoint:
		return hop{}, fmt.Sprintf("node %s claims this node's own endpoint %s", p.node, endpoint)
	}
	r, ok := v.underlay.lookup(endpoint)
	if !ok {
		return hop{}, fmt.Sprintf("this node has no route to the endpoint %s of node %s", endpoint, p.node)
	}
	if r.Via.IsValid() {
		return hop{via: r.Via, link: r.Link}, ""
	}
	return hop{via: endpoint, link: r.Link}, ""
}
