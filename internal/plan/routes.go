package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
)

// ownRoutes adds the rules that lead to podnet's tables, and what keeps packets
// to unused addresses of the node's own blocks from making neighbours.
func (v *view) ownRoutes(s *model.State) {
	for i, f := range families {
		if !v.active[i] {
			continue
		}
		s.Rules = append(s.Rules, model.Rule{IPv6: !f.is4, Priority: model.RulePriority, Table: model.RouteTable})
		for way, table := range probeTables {
			// A VXLAN device looks for the way of the outer packet with the mark of the
			// inner one, which has come in by no link.
			s.Rules = append(s.Rules, model.Rule{
				IPv6: !f.is4, Priority: model.ProbeRulePriority, Table: table, Mark: probeMarks[way], In: v.probesFrom(),
			})
			// A probe that has no route of its kind must not take one of the other.
			s.Routes = append(s.Routes, model.Route{Table: table, Dst: f.all, Unreachable: true})
		}
	}
	for _, b := range v.own {
		s.Routes = append(s.Routes, model.Route{Dst: b.CIDR, Unreachable: true})
	}
	v.gatewayRoute(s)
}

// gatewayRoute adds a route to the gateway of pods where the node has none: the kernel
// answers ARP only for what it could send to. Nothing is sent to it.
func (v *view) gatewayRoute(s *model.State) {
	gateway := ipam.LinkGateway(true)
	if len(v.underlay.lookup(gateway)) > 0 || !v.active[0] || len(v.uplinks) == 0 {
		return
	}
	s.Routes = append(s.Routes, model.Route{Dst: host(gateway), Link: v.uplinks[0]})
}

// probeTables and probeMarks are those of model.Ways.
var (
	probeTables = [2]int{model.ProbeRoutedTable, model.ProbeOverlayTable}
	probeMarks  = [2]uint32{model.ProbeRoutedMark, model.ProbeOverlayMark}
)

// peerRoutes adds the way to the blocks of all other nodes, and returns which
// path each takes, sorted by block. Each block has besides the route in force one
// of each kind, by which it is probed.
func (v *view) peerRoutes(s *model.State) []model.PathChoice {
	var choices []model.PathChoice
	for _, p := range v.peers {
		want := v.modes.between(p.labels)
		var devices [2]*model.Link
		var overlayObstacles [2]string
		for i, f := range families {
			devices[i], overlayObstacles[i] = v.overlayTo(p, f)
		}
		v.tunnelTo(s, p, devices)
		for _, b := range p.blocks {
			i := model.FamilyIndex(b.CIDR.Addr())
			device, overlayObstacle := devices[i], overlayObstacles[i]
			hop, routedObstacle := v.nextHop(p, i)
			w := ways{block: b, hop: hop, device: device}
			choice := v.choose(w, model.PathQuestion{
				Want: want.mode, Forced: want.forced, Obstacles: [2]string{routedObstacle, overlayObstacle},
			})
			choice.RouteMode = want.by
			choices = append(choices, choice)
			s.Routes = append(s.Routes, v.routeTo(w, choice.Path, choice.Proof.MTU))
			for i, way := range model.Ways {
				if choice.Obstacles[i] == "" {
					probed := v.routeTo(w, way, 0)
					probed.Table, probed.Src = probeTables[i], netip.Addr{}
					s.Routes = append(s.Routes, probed)
				}
			}
		}
	}
	slices.SortFunc(choices, func(a, b model.PathChoice) int { return model.ComparePrefix(a.Block, b.Block) })
	return choices
}

// tunnelTo adds what leads to another node's blocks of each family inside the overlay.
func (v *view) tunnelTo(s *model.State, p *peer, devices [2]*model.Link) {
	entries, neighbours := len(s.FDB), len(s.Neighbours)
	for _, b := range p.blocks {
		device := devices[model.FamilyIndex(b.CIDR.Addr())]
		if device == nil {
			continue
		}
		mac := linkMAC(p.node, device.Name)
		entry := model.FDBEntry{Link: device.Name, MAC: mac, Endpoint: p.endpoints[model.FamilyIndex(device.Local)]}
		if !slices.Contains(s.FDB[entries:], entry) {
			s.FDB = append(s.FDB, entry)
		}
		n := model.Neighbour{Link: device.Name, Addr: gatewayTo(b.CIDR, mac), MAC: mac}
		// A node's IPv6 blocks have one gateway.
		if !slices.Contains(s.Neighbours[neighbours:], n) {
			s.Neighbours = append(s.Neighbours, n)
		}
	}
}

// hop is where packets to another node leave this one.
type hop struct {
	via  netip.Addr
	link string
}

// ways are the ways to another node's block, as far as there are.
type ways struct {
	block  model.Block
	hop    hop
	device *model.Link
}

// choose chooses the path to a block.
func (v *view) choose(w ways, q model.PathQuestion) model.PathChoice {
	c := model.PathChoice{PathQuestion: q, Node: w.block.Node, Block: w.block.CIDR, NodeSilent: w.block.AgentSilent}
	if q.Possible()[model.RoutedWay] {
		c.Limits[model.RoutedWay], c.Hops[model.RoutedWay] = v.mtu, fmt.Sprintf("%s by %s", w.hop.via, w.hop.link)
	}
	if q.Possible()[model.OverlayWay] {
		endpoint, _ := w.block.Endpoint(w.device.Local.Is4())
		c.Limits[model.OverlayWay], c.Hops[model.OverlayWay] = min(v.mtu, w.device.MTU), fmt.Sprintf("%s by %s from %s", endpoint, w.device.Name, w.device.Local)
	}
	bits := min(w.block.CIDR.Bits(), v.network.BlockBits[model.FamilyIndex(w.block.CIDR.Addr())])
	c.Cell = netip.PrefixFrom(w.block.CIDR.Addr(), bits).Masked()
	evidence := v.evidence[w.block.CIDR]
	if evidence.Node != "" && evidence.Node != w.block.Node {
		// It is of another node's path, which had the block before.
		evidence = model.Evidence{}
	}
	decision := paths.Choose(q, evidence)
	c.Path, c.Diverges, c.Message, c.Proof = decision.Path, decision.Diverges, decision.Why, decision.Proof
	if evidence.Proofs[model.OverlayWay].Corrupted && q.Possible()[model.OverlayWay] {
		c.Corrupter = w.device.Name
	}
	if c.Message != "" && !ipam.ProbeAddress(w.block.CIDR).IsValid() {
		c.Message += " The block has fewer than 8 addresses, and none of them is for probes: where a path shall be taken unproven, a RouteMode says so by proof Skipped."
	}
	if mtu := c.Proof.MTU; mtu > 0 && c.Message == "" {
		c.Message = fmt.Sprintf("Packets of more than %d bytes do not come through, although the interfaces carry them: larger ones are refused at this node.", mtu)
	}
	return c
}

// routeTo is the route to another node's block on a path, for packets of up to an
// MTU, if that is not 0, where the path carries less than its interface. A path
// that is down gets a route as well: without one the packets would follow the
// node's default route into a network that they were not meant for.
func (v *view) routeTo(w ways, taken model.Path, mtu int) model.Route {
	block := w.block.CIDR
	src := v.address[model.FamilyIndex(block.Addr())]
	switch taken {
	case model.PathRouted:
		// The next hop is on the link because the node's own route says so, which the
		// kernel would otherwise look for in podnet's table first.
		return model.Route{Dst: block, Link: w.hop.link, Via: w.hop.via, OnLink: true, Src: src, MTU: mtu}
	case model.PathOverlay:
		carried := min(v.mtu, w.device.MTU)
		if mtu > 0 {
			carried = min(carried, mtu)
		}
		return model.Route{
			Dst: block, Link: w.device.Name, Via: gatewayTo(block, linkMAC(w.block.Node, w.device.Name)), OnLink: true, Src: src,
			MTU: carried,
		}
	default:
		return model.Route{Dst: block, Unreachable: true}
	}
}

// gatewayTo is the next hop to a block inside the overlay, given the address of
// the other node's device. For IPv6 it is that device's link-local address: the
// kernel refuses any other that a route of its main table
// leads to by another link, such as one to the whole range by a router, even where
// the route says that it is on the link (net/ipv6/route.c, ip6_route_check_nh_onlink).
func gatewayTo(block netip.Prefix, mac model.MAC) netip.Addr {
	if block.Addr().Is4() {
		return ipam.NodeAddress(block)
	}
	return linkLocal(mac)
}

// overlayTo returns the VXLAN device by which pods' packets of a family reach a node,
// or why there is none. The family of the outer packets does not depend on theirs.
func (v *view) overlayTo(p *peer, f family) (*model.Link, string) {
	if !v.host.VXLAN {
		return nil, "this node's kernel cannot make VXLAN devices (module vxlan)"
	}
	small := 0
	for i, device := range v.vxlan {
		if device == nil || !p.endpoints[i].IsValid() {
			continue
		}
		if !f.fits(device.MTU) {
			small = max(small, device.MTU)
			continue
		}
		if p.endpoints[i] == device.Local {
			return nil, fmt.Sprintf("node %s claims this node's own endpoint %s", p.node, device.Local)
		}
		return device, ""
	}
	if small > 0 {
		return nil, fmt.Sprintf("the overlay carries packets of at most %d bytes here, and %s needs %d", small, f.name, model.MinIPv6MTU)
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
	hops := v.underlay.lookup(endpoint)
	if len(hops) == 0 {
		return hop{}, fmt.Sprintf("this node has no route to the endpoint %s of node %s", endpoint, p.node)
	}
	if hops[0].Via.IsValid() {
		return hop{via: hops[0].Via, link: hops[0].Link}, ""
	}
	return hop{via: endpoint, link: hops[0].Link}, ""
}
