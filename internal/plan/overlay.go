package plan

import (
	"fmt"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// overlay is the way of packets in VXLAN.
type overlay struct{}

// vxlanOverhead is the number of bytes by which inner IP packets are smaller than outer ones of
// a family (RFC 7348): outer IP header, UDP, VXLAN and inner Ethernet.
func vxlanOverhead(f family) int { return f.ipHeader + 8 + 8 + 14 }

// vxlanLinks returns the node's VXLAN devices: one for each family of outer
// packets of which the node has an endpoint. They are there also where every
// path is routed, since another node may switch before this one does.
func vxlanLinks(c model.Cluster, served []model.Block) model.PerFamily[*model.Link] {
	var links model.PerFamily[*model.Link]
	if !c.Host.VXLAN {
		return links
	}
	for i, f := range families {
		e, ok := tunnelSource(c, served, f)
		if !ok {
			continue
		}
		links[i] = &model.Link{
			Name: f.vxlan, Kind: model.LinkVXLAN, MAC: linkMAC(c.Host.Node, f.vxlan), MTU: e.MTU - vxlanOverhead(f),
			VNI: c.Network.VNI, Port: c.Network.Port, Local: e.Addr, Underlay: e.Link,
		}
	}
	return links
}

// leg implements way: by the VXLAN device by which pods' packets of a family reach a node. The
// family of the outer packets does not depend on theirs.
func (overlay) leg(v *view, p *peer, i int) (leg, model.Obstacle) {
	if !v.host.VXLAN {
		return leg{}, obstacle(model.NoDevice, "this node's kernel cannot make VXLAN devices (module vxlan)")
	}
	f, small := families[i], 0
	for outer, device := range v.vxlan {
		endpoint := p.endpoints[outer]
		if device == nil || !endpoint.IsValid() {
			continue
		}
		if !f.fits(device.MTU) {
			small = max(small, device.MTU)
			continue
		}
		if endpoint == device.Local {
			return leg{}, obstacle(model.OwnEndpoint, "node %s claims this node's own endpoint %s", p.node, device.Local)
		}
		l := leg{link: device.Name, mtu: device.MTU, hop: fmt.Sprintf("%s by %s from %s", endpoint, device.Name, device.Local)}
		if !f.is4 {
			// For IPv6 the next hop is the other device's link-local address: the kernel refuses any
			// other that a route of its main table leads to by another link, such as one to the
			// whole range by a router, even where the route says that it is on the link
			// (net/ipv6/route.c, ip6_route_check_nh_onlink).
			l.via = linkLocal(linkMAC(p.node, device.Name))
		}
		return l, model.Obstacle{}
	}
	if small > 0 {
		return leg{}, obstacle(model.PacketTooLarge, "the overlay carries packets of at most %d bytes here, and %s needs %d", small, f.name, model.MinIPv6MTU)
	}
	return leg{}, obstacle(model.NoEndpoint, "node %s and this node have no endpoints of one family", p.node)
}

// addPeer implements way: it adds what leads to another node's blocks inside the overlay.
func (overlay) addPeer(v *view, s *model.State, p *peer, legs model.PerFamily[leg]) {
	entries, neighbours := len(s.FDB), len(s.Neighbours)
	for _, b := range p.blocks {
		l := legs[model.FamilyIndex(b.CIDR.Addr())]
		if l.link == "" {
			continue
		}
		mac := linkMAC(p.node, l.link)
		outer := slices.IndexFunc(v.vxlan[:], func(d *model.Link) bool { return d != nil && d.Name == l.link })
		entry := model.FDBEntry{Link: l.link, MAC: mac, Endpoint: p.endpoints[outer]}
		if !slices.Contains(s.FDB[entries:], entry) {
			s.FDB = append(s.FDB, entry)
		}
		n := model.Neighbour{Link: l.link, Addr: l.gateway(b.CIDR), MAC: mac}
		// A node's IPv6 blocks have one gateway.
		if !slices.Contains(s.Neighbours[neighbours:], n) {
			s.Neighbours = append(s.Neighbours, n)
		}
	}
}
