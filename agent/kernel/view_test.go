package kernel

import (
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

func TestRoutesBehindGatewaysAreNotOnLink(t *testing.T) {
	p := &pass{byIndex: map[int]netlink.Link{
		3: &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "three"}}, 4: &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "four"}},
	}}
	gateway := net.IPv4(192, 0, 2, 1)
	viaSix := &netlink.Via{AddrFamily: 10, Addr: net.ParseIP("fe80::1")}
	for name, c := range map[string]struct {
		route netlink.Route
		want  []string
	}{
		"on a link":                            {netlink.Route{LinkIndex: 3}, []string{"three"}},
		"behind a gateway":                     {netlink.Route{LinkIndex: 3, Gw: gateway}, nil},
		"behind a gateway of the other family": {netlink.Route{LinkIndex: 3, Via: viaSix}, nil},
		"behind several":                       {netlink.Route{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 3, Gw: gateway}, {LinkIndex: 4, Via: viaSix}}}, nil},
		"on one of two links":                  {netlink.Route{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 3, Gw: gateway}, {LinkIndex: 4}}}, []string{"four"}},
		"on a link that is dead":               {netlink.Route{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 4, Flags: unix.RTNH_F_DEAD}}}, nil},
	} {
		c.route.Type, c.route.Dst = unix.RTN_UNICAST, &net.IPNet{IP: net.IPv4(10, 244, 0, 0), Mask: net.CIDRMask(16, 32)}
		var got []string
		for _, r := range p.underlayRoutes(c.route) {
			if !r.Via.IsValid() {
				got = append(got, r.Link)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("a route %s is on the links %q, want %q", name, got, c.want)
		}
		c.route.Protocol = model.RouteProtocol
		if found := p.underlayRoutes(c.route); found != nil {
			t.Errorf("podnet's own route %s is among others': %v", name, found)
		}
	}
}
