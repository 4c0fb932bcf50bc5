package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// refusal finds addresses that cannot be a node's.
type refusal struct {
	ranges   []netip.Prefix
	blocks   []model.Block
	former   []model.FormerEndpoint
	underlay underlay
	// why are the reasons for what was asked about, empty where an address can be a node's.
	why map[netip.Addr]string
}

func newRefusal(c model.Cluster) *refusal {
	return &refusal{
		ranges: c.Network.Ranges, blocks: c.Blocks, former: c.Former, underlay: newUnderlay(c.Host.Routes), why: map[netip.Addr]string{},
	}
}

// of reports whether an address cannot be a node's.
func (r *refusal) of(a netip.Addr) bool {
	reason, checked := r.why[a]
	if !checked {
		reason = r.foreign(a)
		r.why[a] = reason
	}
	return reason != ""
}

// host returns this node without those of its endpoints and addresses that cannot be a node's.
func (r *refusal) host(h model.Host) model.Host {
	refused := func(e model.Endpoint) bool { return r.of(e.Addr) }
	h.Endpoints = slices.DeleteFunc(slices.Clone(h.Endpoints), refused)
	h.Addresses = slices.DeleteFunc(slices.Clone(h.Addresses), refused)
	return h
}

// refuseOwn returns the cluster without those of this node's endpoints that cannot be a
// node's.
func refuseOwn(c model.Cluster) model.Cluster {
	c.Host = newRefusal(c).host(c.Host)
	return c
}

// refuseEndpoints returns the cluster without those endpoints, former ones and this
// node's included, that cannot be a node's: packets would be sent there, and tunnelled ones taken from
// there. The manager publishes none such; what it is told a moment later, or a NodeSubnet
// that somebody else wrote, must do no harm either, and the kernel refuses some of them,
// and with them all that is done in the same pass. It comes before all else, so that each
// part of the plan sees the same.
func refuseEndpoints(c model.Cluster) (model.Cluster, []model.Problem) {
	r := newRefusal(c)
	refused := r.of
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
	c.Host = r.host(c.Host)
	c.Former = slices.DeleteFunc(slices.Clone(c.Former), func(e model.FormerEndpoint) bool { return refused(e.Addr) })
	texts := make([]string, 0, len(claims))
	for _, x := range claims {
		texts = append(texts, fmt.Sprintf("Endpoint %s of node %s is not used: %s. Correct what its agent or its Node says "+
			"(agent.nodeInterface, agent.nodeCIDRs, the kubelet's --node-ip).", x.addr, x.node, r.why[x.addr]))
	}
	texts = sorted(texts)
	var problems []model.Problem
	for _, text := range texts[:min(len(texts), namedConflicts)] {
		problems = append(problems, degraded("%s", text))
	}
	if more := len(texts) - namedConflicts; more > 0 {
		problems = append(problems, degraded("%d more endpoints of nodes are not used.", more))
	}
	return c, problems
}

// covered reports whether a range came over an endpoint that the manager had published, and no
// block contains it, so that no pod can have it. What lies in a range already it does not publish.
func (r *refusal) covered(a netip.Addr) bool {
	published := slices.ContainsFunc(r.blocks, func(b model.Block) bool { return slices.Contains(b.Endpoints, a) }) ||
		slices.ContainsFunc(r.former, func(e model.FormerEndpoint) bool { return e.Addr == a })
	return published && ipam.Foreign(a, nil, nil) == "" &&
		!slices.ContainsFunc(r.blocks, func(b model.Block) bool { return b.CIDR.Contains(a) })
}

// foreign says why an address cannot be a node's endpoint, in a clause; empty where it can.
func (r *refusal) foreign(a netip.Addr) string {
	if why := ipam.Foreign(a, r.ranges, nil); why != "" && !r.covered(a) {
		return why
	}
	if a.Zone() != "" {
		return "it has a zone"
	}
	hops := r.underlay.lookup(a)
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
