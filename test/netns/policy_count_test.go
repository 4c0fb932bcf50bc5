package netns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

const rulePackets = "podnet_agent_policy_rule_packets_total"

// The packets of each rule of a policy are counted by the kernel while somebody asks for it.
func TestPacketsOfRulesAreCounted(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	server := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "server"})
	client := c.addPod(t, c.nodes[0], "blue", map[string]string{"app": "client"})
	other := c.addPod(t, c.nodes[0], "green", nil)
	c.objects.Pods[0].Ports = []model.NamedPort{{Name: "web", Protocol: "UDP", Port: 90}}
	n := newPolicyNode(t, c)
	ask := func(count bool) {
		n.change(func(o *model.PolicyObjects) {
			o.NetworkPolicies, o.ClusterPolicies = []model.NetworkPolicy{webOf(server, other, count)}, []model.ClusterPolicy{guard(count)}
		})
	}
	chains := func() string { return n.Run(t, "nft", "list", "chains", "inet") }
	ask(false)
	n.settles(t, func() bool { return strings.Contains(n.Run(t, "nft", "list", "tables"), model.PolicyTable) })
	if got := n.metrics(t); len(got) != 1 || strings.Contains(chains(), "count") {
		t.Errorf("nobody asked, and counted are %v, by %s", got, chains())
	}
	ask(true)
	becomes(t, "the rules are counted", func() bool { return len(n.metrics(t)) == 5 })
	expect := func(what string, act func(), want map[string]float64) {
		t.Helper()
		before := n.metrics(t)
		act()
		for name, is := range n.metrics(t) {
			if got := is - before[name]; got != want[name] {
				t.Errorf("%s: %s grows by %v, want %v", what, name, got, want[name])
			}
		}
	}
	first, second, third := rulePackets+" red web ingress[0]", rulePackets+" red web ingress[1]", rulePackets+" red web ingress[2]"
	for _, to := range server.Addrs {
		expect("a selector and a port", func() { send(t, client, to, 81, 7) }, map[string]float64{first: 7})
		expect("a block", func() { send(t, other, to, 83, 5) }, map[string]float64{second: 5})
		expect("two rules", func() { send(t, other, to, 90, 4) }, map[string]float64{second: 4, third: 4})
		expect("a named port", func() { send(t, client, to, 90, 3) }, map[string]float64{third: 3})
		expect("no rule", func() { send(t, client, to, 82, 6) }, map[string]float64{deniedPackets: 6})
	}
	// Answers are packets of the rule too.
	expect("an exchange", func() {
		if !connects(other.Namespace, "udp", server.Addrs[0], port, patience) {
			t.Error("nothing comes back")
		}
	}, map[string]float64{second: 2})
	here := c.nodes[0].Address(true)
	expect("a pod's own node", func() { send(t, client, here, 81, 2) }, map[string]float64{rulePackets + "  guard egress[0]": 2, deniedPackets: 2})
	if listed := n.Run(t, "nft", "list", "counters", "table", "inet", model.PolicyTable); !strings.Contains(listed, "counter rule/red/web/ingress-2") {
		t.Errorf("nft lists %s", listed)
	}
	ask(false)
	becomes(t, "nothing is counted any more", func() bool { return len(n.metrics(t)) == 1 && !strings.Contains(chains(), "count") })
}

// webOf is a policy of a server: of a selector and a port, of a block, and of a named port.
func webOf(server, other *pod, count bool) model.NetworkPolicy {
	number := int32(81)
	client := model.Selector{{Key: "app", Operator: model.In, Values: []string{"client"}}}
	var blocks []model.PolicyPeer
	for _, a := range other.Addrs {
		blocks = append(blocks, model.PolicyPeer{Block: &model.IPBlock{CIDR: netip.PrefixFrom(a, a.BitLen())}})
	}
	return model.NetworkPolicy{Namespace: server.Pod.Namespace, Name: "web", Count: count, Ingress: []model.PolicyRule{
		{Peers: []model.PolicyPeer{{Namespaces: &model.Selector{}, Pods: &client}}, Ports: []model.PolicyPort{{Protocol: "UDP", Port: &number}}},
		{Peers: blocks},
		{Ports: []model.PolicyPort{{Protocol: "UDP", Name: "web"}}},
	}}
}

// guard keeps pods from nodes.
func guard(count bool) model.ClusterPolicy {
	return model.ClusterPolicy{Name: "guard", Count: count, Egress: []model.TierRule{
		{Field: "egress[0]", Action: model.PolicyDeny, Peers: []model.PolicyPeer{{Nodes: &model.Selector{}}}},
	}}
}
