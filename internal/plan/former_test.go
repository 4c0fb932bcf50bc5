package plan

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// moving is a node that has chosen another endpoint, on another interface, than its
// blocks name.
func moving() model.Cluster {
	c := cluster()
	c.Host.Endpoints[0] = model.Endpoint{Addr: addr("192.0.2.101"), Link: "eth1", MTU: 9000}
	c.Host.Addresses = []model.Endpoint{
		{Addr: addr("192.0.2.1"), Link: "eth0", MTU: 1500}, c.Host.Endpoints[0], {Addr: addr("2001:db8::1"), Link: "eth0", MTU: 1500},
	}
	return c
}

// publish makes the node's blocks name an endpoint.
func publish(c *model.Cluster, node, endpoint string) {
	for i := range c.Blocks {
		if c.Blocks[i].Node == node {
			c.Blocks[i].Endpoints = []netip.Addr{addr(endpoint), c.Blocks[i].Endpoints[1]}
		}
	}
}

func TestTunnelComesFromTheAddressThatOthersKnow(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*model.Cluster)
		want   string
	}{
		"others do not know the new one": {func(*model.Cluster) {}, "192.0.2.1"},
		"some may not know the new one": {func(c *model.Cluster) {
			publish(c, "a", "192.0.2.101")
			c.Former = []model.FormerEndpoint{{Node: "a", Addr: addr("192.0.2.1"), Fresh: time.Second}}
		}, "192.0.2.1"},
		"all know the new one": {func(c *model.Cluster) {
			publish(c, "a", "192.0.2.101")
			c.Former = []model.FormerEndpoint{{Node: "a", Addr: addr("192.0.2.1")}}
		}, "192.0.2.101"},
		"the old one is gone": {func(c *model.Cluster) { c.Host.Addresses = c.Host.Addresses[1:] }, "192.0.2.101"},
		"the old one is another node's now": {func(c *model.Cluster) {
			publish(c, "b", "192.0.2.1")
		}, "192.0.2.101"},
		"another node's former one": {func(c *model.Cluster) {
			publish(c, "a", "192.0.2.101")
			c.Former = []model.FormerEndpoint{{Node: "b", Addr: addr("192.0.2.1"), Fresh: time.Second}}
		}, "192.0.2.101"},
		"nothing is published": {func(c *model.Cluster) {
			for i := range c.Blocks {
				c.Blocks[i].Endpoints = nil
			}
		}, "192.0.2.101"},
	} {
		t.Run(name, func(t *testing.T) {
			c := moving()
			tc.change(&c)
			s := Build(c).State
			i := slices.IndexFunc(s.Links, func(l model.Link) bool { return l.Name == model.VXLANLink4 })
			link, mtu := "eth1", 8950
			if tc.want == "192.0.2.1" {
				link, mtu = "eth0", 1450
			}
			if got := s.Links[i]; got.Local != addr(tc.want) || got.Underlay != link || got.MTU != mtu {
				t.Errorf("the tunnel comes from %s on %s with MTU %d", got.Local, got.Underlay, got.MTU)
			}
			loose := model.Sysctl{Key: "net/ipv4/conf/" + link + "/rp_filter", Value: "2"}
			if !slices.Contains(s.Sysctls, loose) {
				t.Errorf("%v is not among %v", loose, s.Sysctls)
			}
		})
	}
}

func TestFormerEndpointsAreAccepted(t *testing.T) {
	c := cluster()
	c.Former = []model.FormerEndpoint{{Node: "b", Addr: addr("198.51.100.2")}, {Node: "c", Addr: addr("2001:db8:9::2")}}
	s := Build(c).State
	for set, want := range map[string]string{"endpoints4": "198.51.100.2", "endpoints6": "2001:db8:9::2"} {
		found := false
		for _, x := range tableOf(t, s, "inet").Sets {
			found = found || x.Name == set && slices.ContainsFunc(x.Elements, func(e nft.Element) bool { return e.Key[0] == want })
		}
		if !found {
			t.Errorf("%s is not in %s", want, set)
		}
	}
	for _, e := range s.FDB {
		if e.Endpoint == addr("198.51.100.2") {
			t.Errorf("packets go to a former endpoint: %+v", e)
		}
	}
}

// The kernel lists the newest of several IPv6 addresses first.
func TestChosenEndpointStaysWhereNothingElseDecides(t *testing.T) {
	links := []model.HostLink{{Name: "eth0", Up: true, MTU: 1500, Addrs: prefixes("2001:db8::2/64", "2001:db8::1/64", "192.0.2.1/24")}}
	for name, o := range map[string]model.EndpointOptions{
		"rule":      {Last: addrs("2001:db8::1", "192.0.2.1")},
		"interface": {Last: addrs("2001:db8::1", "192.0.2.1"), Interface: "eth.*"},
		"CIDR":      {Last: addrs("2001:db8::1", "192.0.2.1"), CIDRs: prefixes("2001:db8::/32")},
	} {
		endpoints, _ := ChooseEndpoints(links, nil, o)
		if len(endpoints) != 2 || endpoints[1].Addr != addr("2001:db8::1") {
			t.Errorf("%s: chosen are %v", name, endpoints)
		}
		o.NodeIPs = addrs("2001:db8::2")
		if endpoints, _ = ChooseEndpoints(links, nil, o); endpoints[1].Addr != addr("2001:db8::2") {
			t.Errorf("%s: Kubernetes knows another, and chosen are %v", name, endpoints)
		}
	}
}
