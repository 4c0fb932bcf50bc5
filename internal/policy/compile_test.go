package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// labels reads "key=value key=value".
func labels(text string) map[string]string {
	out := map[string]string{}
	for pair := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(pair, "=")
		out[key] = value
	}
	return out
}

// selector selects what has all labels of "key=value key=value".
func selector(text string) model.Selector {
	s := model.Selector{}
	for pair := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(pair, "=")
		s = append(s, model.Requirement{Key: key, Operator: model.In, Values: []string{value}})
	}
	return s
}

func pods(text string) model.PolicyPeer {
	s := selector(text)
	return model.PolicyPeer{Pods: &s}
}

func namespaces(text string) model.PolicyPeer {
	s := selector(text)
	return model.PolicyPeer{Namespaces: &s}
}

func block(cidr string, except ...string) model.PolicyPeer {
	b := model.IPBlock{CIDR: netip.MustParsePrefix(cidr)}
	for _, e := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(e))
	}
	return model.PolicyPeer{Block: &b}
}

func number(protocol string, port ...int32) model.PolicyPort {
	p := model.PolicyPort{Protocol: protocol, Port: &port[0]}
	if len(port) > 1 {
		p.EndPort = &port[1]
	}
	return p
}

func named(protocol, name string) model.PolicyPort {
	return model.PolicyPort{Protocol: protocol, Name: name}
}

// addresses of the pods of a scene, and of others.
var addresses = map[string][2]string{
	"server": {"10.244.1.2", "fd44:0:0:1::2"}, "client": {"10.244.1.3", "fd44:0:0:1::3"}, "remote": {"10.244.2.2", "fd44:0:0:2::2"},
	"another": {"10.244.1.4", "fd44:0:0:1::4"}, "stranger": {"10.244.2.3", "fd44:0:0:2::3"}, "outside": {"198.51.100.7", "2001:db8:f::7"}, "node1": {"192.0.2.1", "2001:db8::1"},
	"node2": {"192.0.2.2", "2001:db8::2"}, "node2 in its range": {"10.244.2.0", "fd44:0:0:2::"},
}

// scene is a world of two nodes: server and client are attached to the first, in
// namespace red; remote, of blue, and stranger, which has no object yet, are on the second.
func scene(policies ...model.NetworkPolicy) policytest.World {
	w := policytest.World{Objects: model.PolicyObjects{
		Namespaces: []model.Namespace{{Name: "red", Labels: labels("name=red")}, {Name: "blue", Labels: labels("name=blue")}},
	}}
	for i := range 2 {
		node := fmt.Sprintf("node%d", i+1)
		for _, cidr := range []string{fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("fd44:0:0:%d::/64", i+1)} {
			w.Blocks = append(w.Blocks, model.Block{Name: cidr, CIDR: netip.MustParsePrefix(cidr), Node: node, Endpoints: addrs(node)})
		}
	}
	for i, p := range policies {
		p.Namespace = "red"
		p.Name = fmt.Sprint("policy", i)
		w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, p)
	}
	w.Objects.Pods = []model.ClusterPod{
		{Namespace: "red", Name: "server", UID: "1", Labels: labels("app=server"), Node: "node1", Ports: []model.NamedPort{{Name: "web", Port: 8080}, {Name: "dns", Protocol: "UDP", Port: 5353}}},
		{Namespace: "red", Name: "client", UID: "2", Labels: labels("app=client"), Node: "node1"},
		{Namespace: "blue", Name: "remote", UID: "3", Labels: labels("app=client"), Node: "node2", Addrs: addrs("remote"), Ports: []model.NamedPort{{Name: "web", Protocol: "TCP", Port: 80}}},
	}
	for i, name := range []string{"server", "client"} {
		w.Attached = append(w.Attached, model.Pod{
			ContainerID: name, IfName: "eth0", Namespace: "red", Name: name, UID: fmt.Sprint(i + 1), Addrs: addrs(name), HostLink: "podn" + name,
		})
	}
	return w
}

func addrs(name string) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(addresses[name][0]), netip.MustParseAddr(addresses[name][1])}
}

// expect checks which of the connections pass, in both families, by the rules and by
// the specification: each is "client server protocol port", where the ends may be in quotes.
func expect(t *testing.T, w policytest.World, want map[string]bool) {
	t.Helper()
	table := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables[0]
	checkTable(t, table)
	for text, passes := range want {
		ends, rest, _ := strings.Cut(text, ": ")
		from, to, _ := strings.Cut(ends, " > ")
		c := policytest.Connection{}
		if _, err := fmt.Sscanf(rest, "%s %d", &c.Protocol, &c.Port); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for i := range families {
			c.Client, c.Server = addrs(from)[i], addrs(to)[i]
			if w.Allowed(c) != passes {
				t.Errorf("%s (%s): the specification says %t", text, families[i].header, !passes)
			}
			for _, reply := range []bool{false, true} {
				got, _, err := policytest.Verdict(table, policytest.Packet{Connection: c, Reply: reply})
				if err != nil || got != passes {
					t.Errorf("%s (%s, reply %t): passes %t (%v), want %t", text, families[i].header, reply, got, err, passes)
				}
			}
		}
	}
}

func ingressTo(rules ...model.PolicyRule) model.NetworkPolicy {
	return model.NetworkPolicy{Pods: selector("app=server"), Ingress: rules}
}

func egressOf(rules ...model.PolicyRule) model.NetworkPolicy {
	return model.NetworkPolicy{Pods: selector("app=client"), Egress: rules, Types: []model.PolicyType{model.PolicyEgress}}
}

func from(peers ...model.PolicyPeer) model.PolicyRule { return model.PolicyRule{Peers: peers} }

func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		name     string
		policies []model.NetworkPolicy
		want     map[string]bool
	}{
		{"without a policy everything passes", nil, map[string]bool{
			"client > server: tcp 80": true, "remote > server: icmp 0": true, "outside > client: udp 53": true,
		}},
		{"a policy without rules isolates the pods that it selects and no others", []model.NetworkPolicy{ingressTo()}, map[string]bool{
			"client > server: tcp 80": false, "remote > server: udp 53": false, "outside > server: icmp 0": false, "node2 in its range > server: sctp 9": false,
			"server > client: tcp 80": true, "remote > client: tcp 80": true, "server > server: tcp 80": true, "server > outside: tcp 443": true,
		}},
		{"an empty selector selects all pods of the namespace", []model.NetworkPolicy{{}}, map[string]bool{
			"remote > server: tcp 80": false, "remote > client: tcp 80": false, "client > remote: tcp 80": true,
		}},
		{"an empty rule allows everything", []model.NetworkPolicy{ingressTo(model.PolicyRule{})}, map[string]bool{
			"client > server: tcp 80": true, "stranger > server: icmp 0": true, "node2 in its range > server: udp 9": true, "outside > server: sctp 9": true,
		}},
		{"rules add up", []model.NetworkPolicy{ingressTo(), ingressTo(from(pods("app=client"))), ingressTo(from(namespaces("name=blue")))}, map[string]bool{
			"client > server: tcp 80": true, "remote > server: tcp 80": true, "stranger > server: tcp 80": false,
		}},
		{"a pod selector alone means the policy's namespace", []model.NetworkPolicy{ingressTo(from(pods("app=client")))}, map[string]bool{
			"client > server: tcp 80": true, "remote > server: tcp 80": false,
		}},
		{"an empty namespace selector means the pods of all namespaces, and nobody else", []model.NetworkPolicy{ingressTo(from(namespaces("")))}, map[string]bool{
			"client > server: tcp 80": true, "remote > server: tcp 80": true, "stranger > server: tcp 80": false,
			"node2 > server: tcp 80": false, "node2 in its range > server: tcp 80": false, "outside > server: tcp 80": false,
		}},
		{"both selectors have to hold", []model.NetworkPolicy{ingressTo(from(model.PolicyPeer{Namespaces: namespaces("name=blue").Namespaces, Pods: pods("app=client").Pods}))}, map[string]bool{
			"client > server: tcp 80": false, "remote > server: tcp 80": true,
		}},
		{"a peer without any field is nobody", []model.NetworkPolicy{ingressTo(from(model.PolicyPeer{}))}, map[string]bool{
			"client > server: tcp 80": false, "outside > server: tcp 80": false,
		}},
		{"ports of numbers and ranges, which may overlap and touch", []model.NetworkPolicy{ingressTo(model.PolicyRule{Ports: []model.PolicyPort{
			number("", 80), number("TCP", 81, 90), number("TCP", 85, 95), number("UDP", 53), {Protocol: "SCTP"},
		}})}, map[string]bool{
			"client > server: tcp 79": false, "client > server: tcp 80": true, "client > server: tcp 88": true, "client > server: tcp 95": true,
			"client > server: tcp 96": false, "client > server: udp 53": true, "client > server: udp 80": false, "client > server: sctp 9": true,
			"client > server: icmp 0": false,
		}},
		{"ports that are none allow nothing", []model.NetworkPolicy{ingressTo(model.PolicyRule{Ports: []model.PolicyPort{
			number("TCP", 90, 80), number("TCP", 0), number("ICMP", 8), named("TCP", "nothing"),
		}})}, map[string]bool{"client > server: tcp 80": false, "client > server: tcp 85": false, "client > server: icmp 8": false}},
		{"names of ports are the server's", []model.NetworkPolicy{
			ingressTo(model.PolicyRule{Ports: []model.PolicyPort{named("", "web"), named("UDP", "dns"), named("TCP", "dns")}}),
			egressOf(model.PolicyRule{Ports: []model.PolicyPort{named("TCP", "web")}}),
		}, map[string]bool{
			"client > server: tcp 8080": true, "client > server: tcp 80": false, "client > remote: tcp 80": true, "client > remote: tcp 8080": false,
			"outside > server: udp 5353": true, "outside > server: tcp 5353": false, "client > outside: tcp 80": false,
		}},
		{"egress and ingress have both to allow", []model.NetworkPolicy{ingressTo(from(pods("app=client"))), egressOf(from(namespaces("name=blue")))}, map[string]bool{
			"client > server: tcp 80": false, "client > remote: tcp 80": true, "client > outside: tcp 80": false, "remote > server: tcp 80": false,
		}},
		{"egress rules count only where the types have egress", []model.NetworkPolicy{{
			Pods: selector("app=client"), Types: []model.PolicyType{model.PolicyIngress}, Egress: []model.PolicyRule{from(block("192.0.2.0/24"))},
		}}, map[string]bool{"client > outside: tcp 80": true, "remote > client: tcp 80": false}},
		{"types follow from the rules where there are none", []model.NetworkPolicy{{
			Pods: selector("app=client"), Egress: []model.PolicyRule{from(pods("app=server"))},
		}}, map[string]bool{"client > outside: tcp 80": false, "client > server: tcp 80": true, "remote > client: tcp 80": false}},
		{"blocks have exceptions, which other blocks do not share", []model.NetworkPolicy{
			ingressTo(from(block("10.244.0.0/16", "10.244.2.0/24", "10.9.0.0/16"), block("fd44::/48", "fd44:0:0:2::/64"))),
			ingressTo(from(block("10.244.2.2/32"), block("fd44:0:0:2::2/128"))),
		}, map[string]bool{"client > server: tcp 80": true, "remote > server: tcp 80": true, "stranger > server: tcp 80": false, "outside > server: tcp 80": false}},
		{"a node's address in the pod range counts as the node", []model.NetworkPolicy{
			ingressTo(from(block("192.0.2.2/32"), block("2001:db8::2/128"))), egressOf(from(block("10.244.0.0/16"), block("fd44::/48"))),
		}, map[string]bool{
			"node2 in its range > server: tcp 80": true, "node2 > server: tcp 80": true, "node1 > server: tcp 80": false,
			"client > node2 in its range: tcp 80": false, "client > remote: tcp 80": true,
		}},
		{"IPv4-mapped blocks are IPv4 blocks", []model.NetworkPolicy{ingressTo(from(block("::ffff:198.51.100.0/120"), block("2001:db8:f::/48")))}, map[string]bool{
			"outside > server: tcp 80": true, "remote > server: tcp 80": false,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, scene(tc.policies...), tc.want) })
	}
}

func TestPodsThatNobodyKnowsAreIsolatedByEveryPolicyOfTheirNamespace(t *testing.T) {
	w := scene(ingressTo(model.PolicyRule{}))
	w.Attached[1].UID = "of a later pod"
	expect(t, w, map[string]bool{"remote > client: tcp 80": false, "client > remote: tcp 80": true, "client > server: tcp 80": true})
	x := NewIndex(w.Objects, w.Blocks)
	if got := x.Build(w.Attached).Unknown; len(got) != 1 || got[0].Name != "client" {
		t.Errorf("unknown are %+v", got)
	}
	if x.CanAttach(w.Attached[1]) || !x.CanAttach(w.Attached[0]) || !x.CanAttach(model.Pod{Namespace: "blue", Name: "new"}) || !x.CanAttach(model.Pod{}) {
		t.Error("who can be attached is not as expected")
	}
	w.Objects.NetworkPolicies = nil
	expect(t, w, map[string]bool{"remote > client: tcp 80": true})
}

func TestHostNetworkPodsArePartOfTheirNode(t *testing.T) {
	w := scene(ingressTo(from(pods("app=host"))), egressOf(from(block("192.0.2.2/32"), block("2001:db8::2/128"))))
	w.Objects.Pods = append(w.Objects.Pods, model.ClusterPod{
		Namespace: "red", Name: "host", UID: "9", Labels: labels("app=host"), Node: "node2", HostNetwork: true, Addrs: addrs("node2"),
	})
	expect(t, w, map[string]bool{
		"node2 > server: tcp 80": false, "node2 in its range > server: tcp 80": false, "client > node2: tcp 80": true,
	})
}

func TestPodsOfOtherNodesWaitForTheirAddresses(t *testing.T) {
	w := scene(ingressTo(from(pods("app=late"))))
	late := model.ClusterPod{Namespace: "red", Name: "late", UID: "9", Labels: labels("app=late"), Node: "node2"}
	w.Objects.Pods = append(w.Objects.Pods, late)
	expect(t, w, map[string]bool{"stranger > server: tcp 80": false})
	w.Objects.Pods[len(w.Objects.Pods)-1].Addrs = addrs("stranger")
	expect(t, w, map[string]bool{"stranger > server: tcp 80": true})
	// A node's address is no pod's.
	w.Objects.Pods[len(w.Objects.Pods)-1].Addrs = addrs("node2 in its range")
	expect(t, w, map[string]bool{"node2 in its range > server: tcp 80": false})
}

func TestNamesOfPortsDifferFromPodToPod(t *testing.T) {
	// No selector selects the peers: they are known by their addresses alone.
	w := scene(egressOf(model.PolicyRule{
		Peers: []model.PolicyPeer{block("10.0.0.0/8"), block("fd44::/16")}, Ports: []model.PolicyPort{named("TCP", "web"), number("UDP", 53)},
	}))
	expect(t, w, map[string]bool{
		"client > server: tcp 8080": true, "client > server: tcp 80": false, "client > remote: tcp 80": true, "client > remote: tcp 8080": false,
		"client > stranger: tcp 80": false, "client > stranger: udp 53": true,
	})
}

func TestAThousandPorts(t *testing.T) {
	var rule model.PolicyRule
	for i := range int32(1000) {
		rule.Ports = append(rule.Ports, number("TCP", 2*i+1))
	}
	expect(t, scene(ingressTo(rule)), map[string]bool{"client > server: tcp 1999": true, "client > server: tcp 1998": false, "client > server: tcp 2001": false})
}

func TestPoliciesThatDifferInOrderShareEverything(t *testing.T) {
	one := ingressTo(model.PolicyRule{
		Peers: []model.PolicyPeer{pods("app=client tier=x"), block("192.0.2.0/25"), block("192.0.2.128/25")},
		Ports: []model.PolicyPort{number("TCP", 80), number("UDP", 53), number("TCP", 81)},
	})
	other := ingressTo(model.PolicyRule{
		Peers: []model.PolicyPeer{block("192.0.2.7/24"), pods("tier=x app=client app=client")},
		Ports: []model.PolicyPort{number("UDP", 53), number("", 80, 81)},
	})
	size := func(policies ...model.NetworkPolicy) int {
		w := scene(policies...)
		text := fmt.Sprint(NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables)
		return len(text)
	}
	if a, b := size(one), size(one, other); a != b {
		t.Errorf("two such policies make tables of %d and %d characters", a, b)
	}
}

func TestBroadcastsDoNotReachIsolatedPodsOfABridge(t *testing.T) {
	w := scene(ingressTo())
	if got := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables; len(got) != 1 {
		t.Errorf("%d tables without a bridge", len(got))
	}
	for i := range w.Attached {
		w.Attached[i].Attachment = model.Bridge
	}
	tables := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables
	i := slices.IndexFunc(tables, func(t nft.Table) bool { return t.Family == "bridge" })
	if i < 0 {
		t.Fatalf("got %+v", tables)
	}
	want := []nft.Set{{Name: "egressports", Key: "ifname"}, {Name: "ingressports", Key: "ifname", Elements: []nft.Element{{Key: []string{"podnserver"}}}}}
	if got := tables[i].Sets; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What is no connection that the kernel knows is dropped where a policy isolates.
func TestStrayPacketsDoNotReachOrLeaveIsolatedPods(t *testing.T) {
	w := scene(ingressTo(model.PolicyRule{}), egressOf(model.PolicyRule{}))
	table := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables[0]
	for ends, want := range map[[2]string]bool{
		{"remote", "server"}: false, {"server", "remote"}: true, {"remote", "client"}: true, {"client", "remote"}: false,
	} {
		for _, state := range []string{"invalid", "untracked"} {
			c := policytest.Connection{Client: addrs(ends[0])[0], Server: addrs(ends[1])[0], Protocol: "tcp", Port: 80}
			got, _, err := policytest.Verdict(table, policytest.Packet{Connection: c, State: state})
			if err != nil || got != want {
				t.Errorf("%s %v: passes %t (%v)", state, ends, got, err)
			}
		}
	}
}

// To conntrack an ICMP error belongs to the connection that it is about.
func TestICMPErrorsPassBetweenEndsThatMayHaveConnections(t *testing.T) {
	namespace := selector("name=blue")
	peers := []model.PolicyPeer{{Namespaces: &namespace}}
	for name, tc := range map[string]struct {
		rules []model.PolicyRule
		want  bool
	}{
		"everybody is allowed":        {[]model.PolicyRule{{}}, true},
		"the other end is, by a port": {[]model.PolicyRule{{Peers: peers, Ports: []model.PolicyPort{number("TCP", 80)}}}, true},
		"nobody is":                   {nil, false},
	} {
		w := scene(ingressTo(tc.rules...))
		table := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables[0]
		c := policytest.Connection{Client: addrs("remote")[0], Server: addrs("server")[0], Protocol: "icmp"}
		for _, reply := range []bool{false, true} {
			got, _, err := policytest.Verdict(table, policytest.Packet{Connection: c, Reply: reply, State: "related"})
			if err != nil || got != tc.want {
				t.Errorf("%s: an error passes (reply: %t): %t (%v)", name, reply, got, err)
			}
		}
	}
}
