package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
)

// way is what a way means to this node's kernel.
type way interface {
	// leg returns where pods' packets of a family leave this node on their way to another one, or
	// why they cannot.
	leg(v *view, p *peer, family int) (leg, model.Obstacle)
	// addPeer adds what leads to another node's blocks besides routes, given the legs by family.
	addPeer(v *view, s *model.State, p *peer, legs model.PerFamily[leg])
}

// waysTo are the ways in the order of model.Ways.
var waysTo = [...]way{direct{}, overlay{}}

// legs are those of waysTo.
type legs [len(waysTo)]leg

// leg is where packets to another node leave this one. It has no link where they cannot.
type leg struct {
	link string
	// via is the next hop; invalid where that is the node's address in each of its blocks.
	via netip.Addr
	// mtu is the largest packet in bytes that fits into the link's; 0 for that of the link.
	mtu int
	// hop names all this.
	hop string
}

func (l leg) gateway(block netip.Prefix) netip.Addr {
	if l.via.IsValid() {
		return l.via
	}
	return ipam.NodeAddress(block)
}

// peerRoutes adds the way to the blocks of all other nodes, and returns which
// path each takes, sorted by block. Each block has besides the route in force one
// by each way, by which that is probed.
func (v *view) peerRoutes(s *model.State) []model.PathChoice {
	var choices []model.PathChoice
	for _, p := range v.peers {
		want := v.modes.between(p.labels)
		var to model.PerFamily[[]model.WayTo]
		var by model.PerFamily[legs]
		for i := range families {
			to[i], by[i] = v.waysTo(p, i)
		}
		for w, way := range waysTo {
			way.addPeer(v, s, p, model.PerFamily[leg]{by[0][w], by[1][w]})
		}
		for _, b := range p.blocks {
			i := model.FamilyIndex(b.CIDR.Addr())
			choice := v.choose(b, by[i], model.PathQuestion{Want: want.mode, Forced: want.forced, Ways: to[i]})
			choice.RouteMode = want.by
			choices = append(choices, choice)
			s.Routes = append(s.Routes, v.routeTo(b, choice, by[i]))
			for w, l := range by[i] {
				if to[i][w].Possible() {
					probed := v.routeBy(b, l, 0)
					probed.Table, probed.Src = to[i][w].Table, netip.Addr{}
					s.Routes = append(s.Routes, probed)
				}
			}
		}
	}
	slices.SortFunc(choices, func(a, b model.PathChoice) int { return model.ComparePrefix(a.Block, b.Block) })
	return choices
}

// waysTo returns the ways to a node's blocks of a family.
func (v *view) waysTo(p *peer, family int) (to []model.WayTo, by legs) {
	to = make([]model.WayTo, len(waysTo))
	for i, way := range waysTo {
		to[i].Way = &model.Ways[i]
		l, obstacle := way.leg(v, p, family)
		if obstacle.Reason != "" {
			to[i].Obstacle = obstacle
			continue
		}
		by[i], to[i].Limit, to[i].Hop = l, v.mtu, l.hop
		if l.mtu > 0 {
			to[i].Limit = min(v.mtu, l.mtu)
		}
	}
	return to, by
}

// choose chooses the path to a block.
func (v *view) choose(b model.Block, by legs, q model.PathQuestion) model.PathChoice {
	c := model.PathChoice{PathQuestion: q, Node: b.Node, Block: b.CIDR, NodeSilent: b.AgentSilent}
	bits := min(b.CIDR.Bits(), v.network.BlockBits.Of(b.CIDR.Addr()))
	c.Cell = netip.PrefixFrom(b.CIDR.Addr(), bits).Masked()
	evidence := v.evidence[b.CIDR]
	if evidence.Node != "" && evidence.Node != b.Node {
		// It is of another node's path, which had the block before.
		evidence = model.Evidence{}
	}
	decision := paths.Choose(q, evidence)
	c.Path, c.Diverges, c.Proof = decision.Path, decision.Diverges, decision.Proof
	c.Reason, c.Message = decision.Reason, decision.Why
	for i, l := range by {
		if q.Ways[i].Possible() && evidence.Proof(i).Corrupted {
			c.Corrupter = l.link
		}
	}
	if c.Reason != "" && !ipam.ProbeAddress(b.CIDR).IsValid() {
		c.Message += " The block has fewer than 8 addresses, and none of them is for probes: where a path shall be taken unproven, a RouteMode says so by proof Skipped."
	}
	if mtu := c.Proof.MTU; mtu > 0 && c.Reason == "" {
		c.Reason = model.PathSmall
		c.Message = fmt.Sprintf("Packets of more than %d bytes do not come through, although the interfaces carry them: larger ones are refused at this node.", mtu)
	}
	return c
}

// routeTo is the route to another node's block on the path that was chosen. A path
// that is down gets a route as well: without one the packets would follow the
// node's default route into a network that they were not meant for.
func (v *view) routeTo(b model.Block, c model.PathChoice, by legs) model.Route {
	i := slices.IndexFunc(c.Ways, func(w model.WayTo) bool { return w.Path == c.Path })
	if i < 0 {
		return model.Route{Dst: b.CIDR, Unreachable: true}
	}
	return v.routeBy(b, by[i], c.Proof.MTU)
}

// routeBy is the route to another node's block, for packets of up to an MTU, if that is not
// 0, where the path carries less than its interface.
func (v *view) routeBy(b model.Block, l leg, mtu int) model.Route {
	if l.mtu > 0 {
		carried := min(v.mtu, l.mtu)
		if mtu == 0 || carried < mtu {
			mtu = carried
		}
	}
	// The next hop is on the link because podnet says so: the kernel would otherwise look for it
	// in podnet's table first.
	return model.Route{
		Dst: b.CIDR, Link: l.link, Via: l.gateway(b.CIDR), OnLink: true, Src: v.address.Of(b.CIDR.Addr()), MTU: mtu,
	}
}
