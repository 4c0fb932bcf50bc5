package plan

import (
	"fmt"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// sysctls adds the kernel parameters without which packets are not forwarded, in the
// order in which they have to be set.
func (v *view) sysctls(s *model.State) {
	set := func(key, value string) { s.Sysctls = append(s.Sysctls, model.Sysctl{Key: key, Value: value}) }
	if v.active[0] {
		// The kernel sets other parameters to a router's defaults when this changes:
		// it comes before them.
		set("net/ipv4/ip_forward", "1")
	}
	if v.active[1] {
		// A router ignores router advertisements, and the node may have its address
		// and its default route from them, unless accept_ra is 2.
		for _, link := range sorted(v.host.AcceptRA) {
			set("net/ipv6/conf/"+link+"/accept_ra", "2")
		}
		set("net/ipv6/conf/all/forwarding", "1")
	}
	if v.bridge && v.host.BridgeNetfilter {
		set("net/bridge/bridge-nf-call-iptables", "1")
		set("net/bridge/bridge-nf-call-ip6tables", "1")
	}
	for _, l := range s.Links {
		for i, f := range families {
			// A link below that has no IPv6, and no parameters of it.
			if v.active[i] && f.fits(l.MTU) {
				s.Sysctls = append(s.Sysctls, routes(f, l.Name)...)
			}
		}
	}
	if !v.active[0] {
		return
	}
	for _, link := range v.transitLinks() {
		set("net/ipv4/conf/"+link+"/forwarding", "1")
	}
	// While one node has switched to another path and its peer has not, packets
	// come in on one link and replies go out on the other, which strict filtering
	// drops. The kernel takes the larger one of all's value and the link's, and 2 is loose.
	for _, link := range v.uplinks {
		set("net/ipv4/conf/"+link+"/rp_filter", "2")
	}
	for _, l := range v.vxlan {
		if l != nil {
			set("net/ipv4/conf/"+l.Name+"/rp_filter", "2")
		}
	}
	if v.bridge {
		s.Sysctls = append(s.Sysctls, routeLocalnet(model.BridgeLink))
	}
}

// transitLinks returns the links that are not podnet's and that pods' packets go through: the uplinks,
// and those by which the node's default routes lead, sorted.
func (v *view) transitLinks() []string {
	links := slices.Clone(v.uplinks)
	for _, r := range v.host.Routes {
		if r.Dst.Addr().Is4() && r.Dst.Bits() == 0 && r.Link != "" {
			links = append(links, r.Link)
		}
	}
	return sorted(links)
}

// routes makes a link of podnet's one that forwards packets of a family, whatever the
// defaults are for new links. Nothing that comes by it may configure the node.
func routes(f family, link string) []model.Sysctl {
	set := func(name, value string) model.Sysctl {
		return model.Sysctl{Key: fmt.Sprintf("net/ipv%s/conf/%s/%s", f.digit, link, name), Value: value}
	}
	if f.is4 {
		return []model.Sysctl{set("forwarding", "1")}
	}
	return []model.Sysctl{set("disable_ipv6", "0"), set("forwarding", "1"), set("accept_ra", "0")}
}

// answersARP makes the node answer for the gateway on a pod's link, at once. The kernel
// answers for whatever it has a route to by another link, and the arp table keeps from it
// what asks for anything else.
func answersARP(link string) []model.Sysctl {
	return []model.Sysctl{
		{Key: "net/ipv4/conf/" + link + "/proxy_arp", Value: "1"},
		{Key: "net/ipv4/neigh/" + link + "/proxy_delay", Value: "0"},
	}
}

// routeLocalnet lets packets to a hostPort on 127.0.0.1 leave by a link that
// faces pods. The firewall keeps pods from using it the other way.
func routeLocalnet(link string) model.Sysctl {
	return model.Sysctl{Key: "net/ipv4/conf/" + link + "/route_localnet", Value: "1"}
}
