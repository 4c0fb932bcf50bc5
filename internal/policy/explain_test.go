package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// packetOf is a packet of a connection, in one of both directions, as the kernel gives it.
func packetOf(c policytest.Connection, reply bool) model.DeniedPacket {
	p := model.DeniedPacket{Way: model.WayOriginal, From: c.Client, To: c.Server, Protocol: c.Protocol, FromPort: 50000, ToPort: c.Port, ToNode: c.ToHost}
	if c.Protocol == "icmp" {
		p.FromPort = 0
		if c.Client.Is6() {
			p.Protocol = "ipv6-icmp"
		}
	}
	if reply {
		p.Way, p.From, p.To, p.FromPort, p.ToPort = model.WayReply, p.To, p.From, p.ToPort, p.FromPort
	}
	return p
}

// What is explained is what the specification denies: it is neither taken for allowed, nor
// is what is allowed explained away.
func TestExplanationsAgreeWithTheSpecification(t *testing.T) {
	first, last := seeds(t)
	denied := 0
	for seed := first; seed <= last; seed++ {
		r := policytest.NewRandom(seed)
		x := NewIndex(r.Objects, r.Blocks)
		for range 100 {
			c := r.Connection()
			if c.Client == c.Server {
				continue
			}
			allowed := r.Allowed(c)
			for _, reply := range []bool{false, true} {
				got, ok := x.Explain(r.Attached, packetOf(c, reply))
				if !ok {
					t.Fatalf("seed %d: %+v is nobody's", seed, c)
				}
				if (got.Reason == permitted.reason) != allowed {
					t.Fatalf("seed %d: %+v is allowed: %t, and explained by %q", seed, c, allowed, got)
				}
				if got.Direction == model.PolicyIngress && !slices.Contains(got.Pod.Addrs, c.Server) ||
					got.Direction == model.PolicyEgress && !slices.Contains(got.Pod.Addrs, c.Client) {
					t.Fatalf("seed %d: %+v is explained by %q of another pod", seed, c, got)
				}
			}
			if !allowed {
				denied++
			}
		}
	}
	if denied == 0 {
		t.Error("nothing was denied")
	}
}

func TestDenialsAreSentences(t *testing.T) {
	in := func(value string) model.Selector {
		return model.Selector{{Key: "app", Operator: model.In, Values: []string{value}}}
	}
	addr := netip.MustParseAddr
	server := model.ClusterPod{Namespace: "red", Name: "server", UID: "1", Labels: map[string]string{"app": "server"}, Addrs: []netip.Addr{addr("10.244.1.2"), addr("fd00::2")}}
	client := model.ClusterPod{Namespace: "blue", Name: "client", UID: "2", Labels: map[string]string{"app": "client"}, Node: "node2", Addrs: []netip.Addr{addr("10.244.2.3")}}
	web, anywhere := int32(80), in("server")
	o := model.PolicyObjects{
		Namespaces: []model.Namespace{{Name: "red", Labels: map[string]string{"app": "server"}}, {Name: "blue"}},
		Pods:       []model.ClusterPod{server, client},
		NetworkPolicies: []model.NetworkPolicy{
			{Namespace: "red", Name: "web", Pods: in("server"), Ingress: []model.PolicyRule{{Ports: []model.PolicyPort{{Port: &web}}}}},
			{Namespace: "red", Name: "deny", Types: []model.PolicyType{model.PolicyIngress}},
			{Namespace: "red", Name: "other", Pods: in("other")},
		},
		ClusterPolicies: []model.ClusterPolicy{{
			Name: "no-dns", Namespaces: anywhere,
			Egress: []model.TierRule{{Action: model.PolicyPass}, {
				Field: "egress[2]", Action: model.PolicyDeny, Peers: []model.PolicyPeer{{Block: &model.IPBlock{CIDR: netip.MustParsePrefix("192.0.2.0/24")}}},
			}},
		}},
	}
	blocks := []model.Block{{Name: "b", CIDR: netip.MustParsePrefix("10.244.2.0/24"), Node: "node2", Endpoints: []netip.Addr{addr("192.0.2.2")}}}
	attached := []model.Pod{
		{ContainerID: "a", Namespace: "red", Name: "server", UID: "1", Addrs: server.Addrs},
		{ContainerID: "b", Namespace: "red", Name: "new", UID: "9", Addrs: []netip.Addr{addr("10.244.1.9")}},
	}
	packet := func(way model.PacketWay, from, to, protocol string, fromPort, toPort uint16) model.DeniedPacket {
		return model.DeniedPacket{Way: way, From: addr(from), To: addr(to), Protocol: protocol, FromPort: fromPort, ToPort: toPort}
	}
	for want, p := range map[string]model.DeniedPacket{
		"Ingress of pod red/server denied: TCP from pod blue/client (10.244.2.3) to port 81 of pod red/server (10.244.1.2). " +
			"No rule of the NetworkPolicies that select the pod (deny, web) allows it.": packet(model.WayOriginal, "10.244.2.3", "10.244.1.2", "tcp", 40000, 81),
		"Ingress of pod red/server denied: UDP from 198.51.100.1 to port 53 of pod red/server (10.244.1.2). " +
			"No rule of the NetworkPolicies that select the pod (deny, web) allows it.": packet(model.WayReply, "10.244.1.2", "198.51.100.1", "udp", 53, 40000),
		"Egress of pod red/server denied: TCP from pod red/server (10.244.1.2) to port 53 of node node2 (192.0.2.2). " +
			"Rule egress[2] of ClusterNetworkPolicy no-dns denies it.": packet(model.WayOriginal, "10.244.1.2", "192.0.2.2", "tcp", 40000, 53),
		"Ingress of pod red/server denied: ICMPv6 from fd01::1 to pod red/server (fd00::2). " +
			"It belongs to no connection that the kernel knows, so that nobody can tell whether policies allow it.": packet(model.WayStray, "fd01::1", "fd00::2", "ipv6-icmp", 0, 0),
		"Ingress of pod red/new denied: IP protocol 47 from pod blue/client (10.244.2.3) to pod red/new (10.244.1.9). " +
			"The labels of the pod are unknown, so that every NetworkPolicy of its namespace isolates it.": packet(model.WayOriginal, "10.244.2.3", "10.244.1.9", "47", 0, 0),
		"Ingress of pod red/server denied: TCP from pod blue/client (10.244.2.3) to port 80 of pod red/server (10.244.1.2). " +
			"The policies of the moment allow it: they, or the pods, have changed since.": packet(model.WayOriginal, "10.244.2.3", "10.244.1.2", "tcp", 40000, 80),
	} {
		got, ok := NewIndex(o, blocks).Explain(attached, p)
		if ports := strings.Contains(want, " to port "); ports != strings.Contains(got.Port, "-") {
			t.Errorf("%q: the port is %q", want, got.Port)
		}
		if !ok || got.String() != want {
			t.Errorf("got  %q (%t)\nwant %q", got, ok, want)
		}
		if peer := got.Peer; strings.Contains(want, "blue/client") != (peer != nil && peer.Name == "client") {
			t.Errorf("%q: the peer is %+v", want, peer)
		}
	}
	if got, ok := NewIndex(o, blocks).Explain(attached, packet(model.WayOriginal, "10.244.2.3", "10.244.1.77", "tcp", 1, 1)); ok {
		t.Errorf("of a pod that is gone: %q", got)
	}
}

func TestManyPoliciesAreNotAllNamed(t *testing.T) {
	if got := some([]string{"a", "b", "c", "d", "e"}); got != "a, b, c and 2 more" {
		t.Errorf("got %q", got)
	}
}
