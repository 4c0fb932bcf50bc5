package plan

import "github.com/podnet/podnet/internal/model"

// sysctls adds the kernel parameters without which packets do not pass, in the
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
	if !v.active[0] {
		return
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

// routeLocalnet lets packets to a hostPort on 127.0.0.1 leave by a link that
// faces pods. The firewall keeps pods from using it the other way.
func routeLocalnet(link string) model.Sysctl {
	return model.Sysctl{Key: "net/ipv4/conf/" + link + "/route_localnet", Value: "1"}
}
