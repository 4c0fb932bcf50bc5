package kernel

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// View is which links, addresses and routes there are, podnet's and others'.
type View struct {
	// Links are in the kernel's order.
	Links []ViewedLink
	// Routes are the unicast routes of the main table that are not podnet's, one for each
	// next hop whose link is up.
	Routes []model.UnderlayRoute
	// Own are podnet's routes.
	Own []model.Route
}

// ViewedLink is a link, podnet's or another.
type ViewedLink struct {
	Name string
	// Own says that podnet made it.
	Own bool
	// Kind is the link's kind, named as the kernel does; empty for hardware.
	Kind string
	Up   bool
	// MTU is the largest IP packet in bytes.
	MTU   int
	Addrs []ViewedAddr
	// Port and VNI are a VXLAN device's.
	Port int
	VNI  int
}

// ViewedAddr is an address of a link, with the prefix length of its network.
type ViewedAddr struct {
	netip.Prefix
	// Reachable says that other nodes can send to it, and that it stays.
	Reachable bool
}

// View reads them.
func (*Kernel) View() (View, error) {
	p, err := newPass()
	if err != nil {
		return View{}, err
	}
	defer p.close()
	links, err := p.allLinks()
	if err != nil {
		return View{}, err
	}
	addrs, err := p.allAddresses()
	if err != nil {
		return View{}, err
	}
	var v View
	for _, l := range links {
		v.Links = append(v.Links, viewedLink(l, addrs))
	}
	for _, family := range families {
		routes, err := p.routes(family, append([]int{mainTable}, tables...)...)
		if err != nil {
			return View{}, err
		}
		for _, r := range routes {
			switch {
			case r.Table == mainTable:
				v.Routes = append(v.Routes, p.underlayRoutes(r)...)
			case r.Protocol == model.RouteProtocol:
				v.Own = append(v.Own, p.observedRoute(r, family))
			}
		}
	}
	return v, nil
}

func viewedLink(l netlink.Link, addrs []netlink.Addr) ViewedLink {
	host := hostLinkOf(l)
	found := ViewedLink{Name: host.Name, Own: isOwn(l.Attrs().Alias), Kind: l.Type(), Up: host.Up, MTU: host.MTU}
	for _, a := range addrs {
		if a.LinkIndex == l.Attrs().Index {
			prefix := prefixOf(a.IPNet)
			found.Addrs = append(found.Addrs, ViewedAddr{prefix, mayBeEndpoint(prefix.Addr(), a.Flags)})
		}
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		found.Port, found.VNI = v.Port, v.VxlanId
	}
	return found
}

// InOwnBlock reports whether an address lies in one of the node's own blocks: these have an
// unreachable route.
func (v View) InOwnBlock(a netip.Addr) bool { return inOwnBlock(v.Own, a) }

// underlayRoutes returns the next hops of a route of the main table that may lead to other nodes.
func (p *pass) underlayRoutes(r netlink.Route) []model.UnderlayRoute {
	dst := prefixOf(r.Dst)
	if !isUnderlay(dst, r.Type, int(r.Protocol)) {
		return nil
	}
	found := model.UnderlayRoute{Dst: dst, Via: gatewayOf(r.Gw, r.Via), Link: p.nameOf(r.LinkIndex), Metric: r.Priority}
	if len(r.MultiPath) == 0 {
		return []model.UnderlayRoute{found}
	}
	var out []model.UnderlayRoute
	for _, hop := range r.MultiPath {
		if hop.Flags&unix.RTNH_F_DEAD != 0 {
			continue
		}
		found.Via, found.Link = gatewayOf(hop.Gw, hop.Via), p.nameOf(hop.LinkIndex)
		out = append(out, found)
	}
	return out
}

// isUnderlay reports whether a route of the main table may lead to other nodes.
func isUnderlay(dst netip.Prefix, kind, protocol int) bool {
	return kind == unix.RTN_UNICAST && protocol != model.RouteProtocol && !dst.Addr().IsLinkLocalUnicast()
}

// mayBeEndpoint reports whether an address, given the kernel's flags, is one that other
// nodes can send to, and that stays.
func mayBeEndpoint(a netip.Addr, flags int) bool {
	if a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	// The bit means "temporary" (RFC 8981) for IPv6 alone; an IPv4 address that
	// has it is only not the first of its network.
	return a.Is4() || flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}
