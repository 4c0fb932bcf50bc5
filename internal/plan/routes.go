package plan

import (
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// ownRoutes adds the rules that lead to podnet's tables, and what keeps packets
// to unused addresses of the node's own blocks from making neighbours.
func (v *view) ownRoutes(s *model.State) {
	for i, f := range families {
		if !v.active[i] {
			continue
		}
		s.Rules = append(s.Rules, model.Rule{IPv6: !f.is4, Priority: model.RulePriority, Table: model.RouteTable})
		for _, w := range model.Ways {
			// A VXLAN device looks for the way of the outer packet with the mark of the
			// inner one, which has come in by no link.
			s.Rules = append(s.Rules, model.Rule{
				IPv6: !f.is4, Priority: model.ProbeRulePriority, Table: w.Table, Mark: w.Mark, In: v.probesFrom(),
			})
			// A probe that has no route of its kind must not take one of the other.
			s.Routes = append(s.Routes, model.Route{Table: w.Table, Dst: f.all, Unreachable: true})
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
