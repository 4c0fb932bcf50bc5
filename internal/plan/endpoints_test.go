package plan

import (
	"slices"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

// links are those of a node with three interfaces and a loopback with addresses.
func links() []model.HostLink {
	return []model.HostLink{
		{Name: "lo", Up: true, MTU: 65536, Addrs: prefixes("127.0.0.1/8", "198.51.100.1/32")},
		{Name: "eth0", Up: true, MTU: 1500, Addrs: prefixes("192.0.2.1/24", "192.0.2.2/24")},
		{Name: "eth1", Up: true, MTU: 9000, Addrs: prefixes("10.0.0.1/24", "2001:db8:1::1/64")},
		{Name: "eth2", Up: true, MTU: 1400, Addrs: prefixes("169.254.7.7/16", "2001:db8:2::1/64")},
		{Name: "down0", Up: false, MTU: 1500, Addrs: prefixes("203.0.113.1/24")},
	}
}

// underlayOf are the routes of that node: two routers, of which one is by a smaller interface.
func underlayOf() []model.UnderlayRoute {
	return []model.UnderlayRoute{
		{Dst: prefix("192.0.2.0/24"), Link: "eth0"},
		{Dst: prefix("198.18.0.0/15"), Via: addr("192.0.2.254"), Link: "eth0"},
		{Dst: prefix("0.0.0.0/0"), Via: addr("203.0.113.9"), Link: "down0"},
		{Dst: prefix("0.0.0.0/0"), Via: addr("fe80::2"), Link: "eth2", Metric: 20},
		{Dst: prefix("0.0.0.0/0"), Via: addr("fe80::1"), Link: "eth1", Metric: 20},
		{Dst: prefix("0.0.0.0/0"), Via: addr("192.0.2.254"), Link: "eth0", Metric: 30},
	}
}

func TestLoopbackWithoutRouteOutIsBesideTheFirstInterface(t *testing.T) {
	endpoints, problems := ChooseEndpoints(links(), nil, model.EndpointOptions{NodeIPs: addrs("198.51.100.1")})
	expectNoProblems(t, problems)
	if want := (model.Endpoint{Addr: addr("198.51.100.1"), Link: "eth0", MTU: 1500}); len(endpoints) == 0 || endpoints[0] != want {
		t.Errorf("endpoints %+v, want %+v first", endpoints, want)
	}
}

func TestChooseEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		options model.EndpointOptions
		want    []string
		reason  string
		words   []string
	}{
		"Kubernetes' addresses": {
			model.EndpointOptions{NodeIPs: addrs("10.0.0.1", "2001:db8:2::1")},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:2::1 eth2 1400"}, "", nil,
		},
		"the missing family beside the other one": {
			model.EndpointOptions{NodeIPs: addrs("2001:db8:1::1")},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"the missing family elsewhere": {
			model.EndpointOptions{NodeIPs: addrs("192.0.2.2")},
			[]string{"192.0.2.2 eth0 1500", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"no address known": {
			model.EndpointOptions{},
			[]string{"192.0.2.1 eth0 1500", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"wrong InternalIP": {
			model.EndpointOptions{NodeIPs: addrs("10.99.99.99")},
			[]string{"192.0.2.1 eth0 1500", "2001:db8:1::1 eth1 9000"}, model.ReasonDegraded, []string{"10.99.99.99", "192.0.2.1", "eth0", "--node-ip"},
		},
		"wrong InternalIP beside a right one": {
			model.EndpointOptions{NodeIPs: addrs("10.99.99.99", "2001:db8:1::1")},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:1::1 eth1 9000"}, model.ReasonDegraded, []string{"10.99.99.99", "10.0.0.1"},
		},
		"InternalIP on an interface that is down": {
			model.EndpointOptions{NodeIPs: addrs("203.0.113.1")},
			[]string{"192.0.2.1 eth0 1500", "2001:db8:1::1 eth1 9000"}, model.ReasonDegraded, []string{"203.0.113.1"},
		},
		"InternalIP on the loopback": {
			model.EndpointOptions{NodeIPs: addrs("198.51.100.1")},
			[]string{"198.51.100.1 eth1 1400", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"loopback by prefix": {
			model.EndpointOptions{CIDRs: prefixes("198.51.100.0/24")},
			[]string{"198.51.100.1 eth1 1400", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"loopback by name": {
			model.EndpointOptions{Interface: "lo"}, []string{"198.51.100.1 eth1 1400"}, "", nil,
		},
		"interface by name": {
			model.EndpointOptions{Interface: "eth1", NodeIPs: addrs("192.0.2.1")},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"interface by expression": {
			model.EndpointOptions{Interface: "eth[12]"},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:1::1 eth1 9000"}, "", nil,
		},
		"the whole name must match": {
			model.EndpointOptions{Interface: "eth", NodeIPs: addrs("192.0.2.1")}, nil, model.ReasonNoEndpoint, []string{"eth"},
		},
		"the expression's alternatives too": {
			model.EndpointOptions{Interface: "x|eth2"}, []string{"2001:db8:2::1 eth2 1400"}, "", nil,
		},
		"bad expression": {
			model.EndpointOptions{Interface: "eth[", NodeIPs: addrs("10.0.0.1")},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:1::1 eth1 9000"}, model.ReasonDegraded, []string{"eth["},
		},
		"of several allowed the one that Kubernetes knows": {
			model.EndpointOptions{Interface: "eth0", NodeIPs: addrs("192.0.2.2")}, []string{"192.0.2.2 eth0 1500"}, "", nil,
		},
		"prefix of one family leaves the other to the rule": {
			model.EndpointOptions{CIDRs: prefixes("10.0.0.0/8"), NodeIPs: addrs("192.0.2.1", "2001:db8:2::1")},
			[]string{"10.0.0.1 eth1 9000", "2001:db8:2::1 eth2 1400"}, "", nil,
		},
		"prefixes of both": {
			model.EndpointOptions{CIDRs: prefixes("192.0.2.2/32", "2001:db8:2::/48")},
			[]string{"192.0.2.2 eth0 1500", "2001:db8:2::1 eth2 1400"}, "", nil,
		},
		"prefix that nothing has": {
			model.EndpointOptions{CIDRs: prefixes("172.16.0.0/12"), NodeIPs: addrs("192.0.2.1")},
			[]string{"2001:db8:1::1 eth1 9000"}, model.ReasonNoEndpoint, []string{"IPv4", "172.16.0.0/12"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			endpoints, problems := ChooseEndpoints(links(), underlayOf(), c.options)
			var got []string
			for _, e := range endpoints {
				got = append(got, e.Addr.String()+" "+e.Link+" "+itoa(e.MTU))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("endpoints %v, want %v", got, c.want)
			}
			if c.reason == "" {
				expectNoProblems(t, problems)
			} else {
				expectProblem(t, problems, c.reason, c.words...)
			}
		})
	}
}

func TestWrongInternalIPWithoutOtherAddressIsReported(t *testing.T) {
	endpoints, problems := ChooseEndpoints(links()[:1], nil, model.EndpointOptions{NodeIPs: addrs("192.0.2.1")})
	if len(endpoints) > 0 {
		t.Errorf("endpoints: %+v", endpoints)
	}
	expectProblem(t, problems, model.ReasonNoEndpoint, "192.0.2.1", "IPv4")
}
