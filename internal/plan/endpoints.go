package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// ChooseEndpoints chooses the addresses of this node to which other nodes shall
// send, at most one of each family. The order of links decides where nothing
// else does, so it should be the kernel's.
//
// Where the options name an interface or prefixes of a family, nothing else is
// taken. Otherwise it is the address that Kubernetes knows the node by, and if
// that is on no interface, an address beside the other family's endpoint or on
// the first interface that has one. An address of the loopback, which routers know by
// way of the node's uplinks, is taken only where Kubernetes or the options name it.
func ChooseEndpoints(links []model.HostLink, routes []model.UnderlayRoute, o model.EndpointOptions) ([]model.Endpoint, []model.Problem) {
	c := chooser{options: o, loopback: loopbackEndpoints(links, routes)}
	for _, l := range links {
		if l.Up && l.Name != loopback {
			c.links = append(c.links, l)
		}
	}
	if o.Interface != "" {
		if re, err := regexp.Compile("^(?:" + o.Interface + ")$"); err == nil {
			c.name = re
		} else {
			c.problem(model.ReasonDegraded, "The interface option %q is not a regular expression (%v): the endpoints are chosen as if it were not set. "+
				"Correct the chart value agent.nodeInterface.",
				o.Interface, err)
		}
	}
	var chosen model.PerFamily[*model.Endpoint]
	for i, f := range families {
		if c.restricted(f) {
			chosen[i] = c.byOption(f)
		} else {
			chosen[i] = c.byNodeIP(f)
		}
	}
	for i, f := range families {
		if chosen[i] == nil && !c.restricted(f) {
			chosen[i] = c.byRule(f, chosen[1-i])
		}
	}
	if c.name != nil && chosen[0] == nil && chosen[1] == nil {
		c.problem(model.ReasonNoEndpoint, "No interface that is up and may be used matches the interface option %q. Correct the chart value agent.nodeInterface.", o.Interface)
	}
	var endpoints []model.Endpoint
	for _, e := range chosen {
		if e != nil {
			endpoints = append(endpoints, *e)
		}
	}
	return endpoints, c.problems
}

// Addresses returns all addresses of this node that could be endpoints, given its
// interfaces and routes.
func Addresses(links []model.HostLink, routes []model.UnderlayRoute) []model.Endpoint {
	var all []model.Endpoint
	for _, l := range links {
		if !l.Up || l.Name == loopback {
			continue
		}
		for _, f := range families {
			all = append(all, endpointsOn(l, f)...)
		}
	}
	return append(all, loopbackEndpoints(links, routes)...)
}

// loopbackEndpoints returns the addresses of the loopback with the uplink by which
// packets to and from them pass.
func loopbackEndpoints(links []model.HostLink, routes []model.UnderlayRoute) []model.Endpoint {
	i := slices.IndexFunc(links, func(l model.HostLink) bool { return l.Name == loopback })
	if i < 0 {
		return nil
	}
	var all []model.Endpoint
	for _, f := range families {
		for _, e := range endpointsOn(links[i], f) {
			if up, ok := uplinkOf(links, routes, f); ok {
				e.Link, e.MTU = up.Name, up.MTU
				all = append(all, e)
			}
		}
	}
	return all
}

// uplinkOf returns the interface by which a node's widest route of a family leads that
// has a gateway, such as its default route, with the MTU of the smallest of them where it
// has several; or else the first that is up.
func uplinkOf(links []model.HostLink, routes []model.UnderlayRoute, f family) (model.HostLink, bool) {
	up := func(name string) int {
		return slices.IndexFunc(links, func(l model.HostLink) bool { return l.Up && l.Name != loopback && l.Name == name })
	}
	var widest []model.UnderlayRoute
	for _, r := range routes {
		if r.Dst.Addr().Is4() == f.is4 && r.Via.IsValid() && up(r.Link) >= 0 {
			widest = append(widest, r)
		}
	}
	slices.SortFunc(widest, func(a, b model.UnderlayRoute) int {
		return cmp.Or(cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), a.Dst.Addr().Compare(b.Dst.Addr()), compareUnderlay(a, b))
	})
	if len(widest) == 0 {
		i := slices.IndexFunc(links, func(l model.HostLink) bool { return l.Up && l.Name != loopback })
		if i < 0 {
			return model.HostLink{}, false
		}
		return links[i], true
	}
	found := links[up(widest[0].Link)]
	for _, r := range widest[1:] {
		if r.Dst == widest[0].Dst && r.Metric == widest[0].Metric {
			found.MTU = min(found.MTU, links[up(r.Link)].MTU)
		}
	}
	return found, true
}

// tunnelSource returns the endpoint of a family from which this node sends VXLAN
// packets. Other nodes drop those that come from an address which they do not know
// for a node's. So it is the one that was chosen only when they have heard of it, and
// until then the one that they know, as long as the node has that.
func tunnelSource(c model.Cluster, served []model.Block, f family) (model.Endpoint, bool) {
	chosen, ok := c.Host.Endpoint(f.is4)
	if !ok {
		return chosen, false
	}
	for _, known := range knownToOthers(c, served, f) {
		i := slices.IndexFunc(c.Host.Addresses, func(e model.Endpoint) bool { return e.Addr == known })
		// What has become another node's is that node's.
		taken := slices.ContainsFunc(served, func(b model.Block) bool {
			return b.Node != c.Host.Node && slices.Contains(b.Endpoints, known)
		})
		if i >= 0 && !taken {
			return c.Host.Addresses[i], true
		}
	}
	return chosen, true
}

// knownToOthers returns the addresses of this node that all other nodes know for its
// endpoints of a family, the best first.
func knownToOthers(c model.Cluster, served []model.Block, f family) []netip.Addr {
	var known []netip.Addr
	for _, e := range c.Former {
		if e.Fresh > 0 && e.Node == c.Host.Node && e.Addr.Is4() == f.is4 {
			known = append(known, e.Addr)
		}
	}
	for _, b := range served {
		if published, ok := b.Endpoint(f.is4); ok && b.Node == c.Host.Node {
			known = append(known, published)
			break
		}
	}
	return known
}

type chooser struct {
	options model.EndpointOptions
	// links are those that are up, without the loopback, whose addresses are apart.
	links    []model.HostLink
	loopback []model.Endpoint
	name     *regexp.Regexp
	problems []model.Problem
}

func (c *chooser) problem(reason, format string, args ...any) {
	c.problems = append(c.problems, model.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// cidrs are the options' prefixes of a family.
func (c *chooser) cidrs(f family) []netip.Prefix {
	var of []netip.Prefix
	for _, p := range c.options.CIDRs {
		if p.Addr().Is4() == f.is4 {
			of = append(of, p)
		}
	}
	return of
}

func (c *chooser) restricted(f family) bool { return c.name != nil || len(c.cidrs(f)) > 0 }

// byOption returns an address that the options allow, of several the one that
// Kubernetes knows.
func (c *chooser) byOption(f family) *model.Endpoint {
	cidrs := c.cidrs(f)
	var allowed []model.Endpoint
	for _, l := range c.links {
		if c.name != nil && !c.name.MatchString(l.Name) {
			continue
		}
		allowed = append(allowed, endpointsOn(l, f)...)
	}
	if c.name == nil || c.name.MatchString(loopback) {
		for _, e := range c.loopback {
			if e.Addr.Is4() == f.is4 {
				allowed = append(allowed, e)
			}
		}
	}
	if len(cidrs) > 0 {
		allowed = slices.DeleteFunc(allowed, func(e model.Endpoint) bool {
			return !slices.ContainsFunc(cidrs, func(p netip.Prefix) bool { return p.Contains(e.Addr) })
		})
	}
	// An interface without addresses of a family is no fault: most clusters have one family.
	if len(allowed) == 0 {
		if len(cidrs) > 0 {
			c.problem(model.ReasonNoEndpoint, "No interface of this node that may be used has an %s address within %v. Correct the chart value agent.nodeCIDRs.", f.name, cidrs)
		}
		return nil
	}
	known := slices.IndexFunc(allowed, func(e model.Endpoint) bool { return slices.Contains(c.options.NodeIPs, e.Addr) })
	if known < 0 {
		return c.lastOf(allowed)
	}
	return &allowed[known]
}

// lastOf returns of several endpoints the one that was chosen last, or else the first.
func (c *chooser) lastOf(several []model.Endpoint) *model.Endpoint {
	last := slices.IndexFunc(several, func(e model.Endpoint) bool { return slices.Contains(c.options.Last, e.Addr) })
	return &several[max(last, 0)]
}

// byNodeIP returns the address that Kubernetes knows the node by, if it is there.
func (c *chooser) byNodeIP(f family) *model.Endpoint {
	for _, ip := range c.options.NodeIPs {
		if ip.Is4() != f.is4 {
			continue
		}
		for _, l := range c.links {
			for _, p := range l.Addrs {
				if p.Addr() == ip {
					return &model.Endpoint{Addr: ip, Link: l.Name, MTU: l.MTU}
				}
			}
		}
		if i := slices.IndexFunc(c.loopback, func(e model.Endpoint) bool { return e.Addr == ip }); i >= 0 {
			return &c.loopback[i]
		}
	}
	return nil
}

// byRule returns an address beside the other family's endpoint, or else one of the
// first interface that has any.
func (c *chooser) byRule(f family, other *model.Endpoint) *model.Endpoint {
	var found *model.Endpoint
	for _, l := range c.links {
		on := endpointsOn(l, f)
		if len(on) == 0 {
			continue
		}
		if other != nil && l.Name == other.Link {
			found = c.lastOf(on)
			break
		}
		if found == nil {
			found = c.lastOf(on)
		}
	}
	wrong := slices.IndexFunc(c.options.NodeIPs, func(ip netip.Addr) bool { return ip.Is4() == f.is4 })
	switch {
	case wrong < 0:
	case found == nil:
		c.problem(model.ReasonNoEndpoint, "Kubernetes knows this node by %s (InternalIP), which none of its interfaces has, and there is no other %s address. "+
			"Correct the kubelet's --node-ip.",
			c.options.NodeIPs[wrong], f.name)
	default:
		c.problem(model.ReasonDegraded, "Kubernetes knows this node by %s (InternalIP), which none of its interfaces has: "+
			"%s of %s is used instead. Correct the kubelet's --node-ip.", c.options.NodeIPs[wrong], found.Addr, found.Link)
	}
	return found
}

// endpointsOn returns a link's global addresses of a family.
func endpointsOn(l model.HostLink, f family) []model.Endpoint {
	var on []model.Endpoint
	for _, p := range l.Addrs {
		if p.Addr().Is4() == f.is4 && p.Addr().IsGlobalUnicast() {
			on = append(on, model.Endpoint{Addr: p.Addr(), Link: l.Name, MTU: l.MTU})
		}
	}
	return on
}
