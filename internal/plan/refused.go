package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// refuseEndpoints returns the cluster without those endpoints, former ones and this
// node's included, that cannot be a node's: packets would be sent there, and tunnelled ones taken from
// there. The manager publishes none such; what it is told a moment later, or a NodeSubnet
// that somebody else wrote, must do no harm either, and the kernel refuses some of them,
// and with them all that is done in the same pass.
func (v *view) refuseEndpoints(c model.Cluster) model.Cluster {
	why := map[netip.Addr]string{}
	refused := func(a netip.Addr) bool {
		reason, judged := why[a]
		if !judged {
			reason = v.foreign(a)
			why[a] = reason
		}
		return reason != ""
	}
	type claim struct {
		node string
		addr netip.Addr
	}
	var claims []claim
	c.Blocks = slices.Clone(c.Blocks)
	for i := range c.Blocks {
		b := &c.Blocks[i]
		if !slices.ContainsFunc(b.Endpoints, refused) {
			continue
		}
		for _, a := range b.Endpoints {
			if refused(a) {
				claims = append(claims, claim{b.Node, a})
			}
		}
		b.Endpoints = slices.DeleteFunc(slices.Clone(b.Endpoints), refused)
	}
	for _, e := range c.Host.Endpoints {
		if refused(e.Addr) {
			claims = append(claims, claim{c.Host.Node, e.Addr})
		}
	}
	c.Host.Endpoints = slices.DeleteFunc(slices.Clone(c.Host.Endpoints), func(e model.Endpoint) bool { return refused(e.Addr) })
	c.Former = slices.DeleteFunc(slices.Clone(c.Former), func(e model.FormerEndpoint) bool { return refused(e.Addr) })
	texts := make([]string, 0, len(claims))
	for _, x := range claims {
		texts = append(texts, fmt.Sprintf("Endpoint %s of node %s is not used: %s. Correct what its agent or its Node says "+
			"(agent.nodeInterface, agent.nodeCIDRs, the kubelet's --node-ip).", x.addr, x.node, why[x.addr]))
	}
	texts = sorted(texts)
	for _, text := range texts[:min(len(texts), namedConflicts)] {
		v.problem(degraded("%s", text))
	}
	if more := len(texts) - namedConflicts; more > 0 {
		v.problem(degraded("%d more endpoints of nodes are not used.", more))
	}
	return c
}

// foreign says why an address cannot be a node's endpoint, in a clause; empty where it can.
func (v *view) foreign(a netip.Addr) string {
	if why := ipam.Foreign(a, v.network.Ranges, nil); why != "" {
		return why
	}
	if a.Zone() != "" {
		return "it has a zone"
	}
	hops := v.underlay.lookup(a)
	if len(hops) > 0 && a.Is4() && !hops[0].Via.IsValid() && isBroadcast(hops[0].Dst, a) {
		return fmt.Sprintf("it is a broadcast address of the network %s", hops[0].Dst.Masked())
	}
	return ""
}

// isBroadcast reports whether an address is the first or the last one of an IPv4 network,
// which reach all in it. Networks of two addresses have none such (RFC 3021).
func isBroadcast(network netip.Prefix, a netip.Addr) bool {
	if network.Bits() > 30 {
		return false
	}
	return !network.Contains(a.Prev()) || !network.Contains(a.Next())
}
