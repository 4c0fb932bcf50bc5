package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// clusterScene is a scene with policies of the cluster, of which those without a subject
// are about the server.
func clusterScene(policies ...model.ClusterPolicy) policytest.World {
	w := scene()
	for _, p := range policies {
		if p.Namespaces == nil && p.Pods == nil {
			p.Namespaces, p.Pods = selector("name=red"), selector("app=server")
		}
		w.Objects.ClusterPolicies = append(w.Objects.ClusterPolicies, p)
	}
	return w
}

// tier makes a policy of a tier with rules for ingress, named after its priority.
func tier(t model.Tier, priority int32, rules ...model.TierRule) model.ClusterPolicy {
	return model.ClusterPolicy{Name: "p", Tier: t, Priority: priority, Ingress: rules}
}

func toward(p model.ClusterPolicy) model.ClusterPolicy {
	p.Ingress, p.Egress = nil, p.Ingress
	return p
}

// does makes a rule of an action, peers and ports.
func does(a model.PolicyAction, parts ...any) model.TierRule {
	r := model.TierRule{Action: a}
	for _, p := range parts {
		switch p := p.(type) {
		case model.PolicyPeer:
			r.Peers = append(r.Peers, p)
		case model.PolicyPort:
			r.Ports = append(r.Ports, p)
		}
	}
	return r
}

func nodes(text string) model.PolicyPeer {
	s := selector(text)
	return model.PolicyPeer{Nodes: &s}
}

const (
	admin    = model.AdminTier
	baseline = model.BaselineTier
	accept   = model.PolicyAccept
	deny     = model.PolicyDeny
	pass     = model.PolicyPass
)

func TestTiersAreAskedInTheirOrder(t *testing.T) {
	red, blue, everyone := namespaces("name=red"), namespaces("name=blue"), namespaces("")
	allowRed := model.NetworkPolicy{Pods: selector("app=server"), Ingress: []model.PolicyRule{{Peers: []model.PolicyPeer{pods("")}}}}
	for what, c := range map[string]struct {
		policies  []model.ClusterPolicy
		isolating bool
		want      map[string]bool
	}{
		"without rules for a direction a policy is not about it": {
			policies: []model.ClusterPolicy{tier(admin, 1), toward(tier(admin, 1, does(deny, red)))},
			want:     map[string]bool{"client > server: tcp 80": true, "stranger > server: tcp 80": true, "server > client: tcp 80": false},
		},
		"the lower number comes first": {
			policies: []model.ClusterPolicy{tier(admin, 20, does(deny, red)), tier(admin, 10, does(accept, red, number("TCP", 80)))},
			want:     map[string]bool{"client > server: tcp 80": true, "client > server: tcp 81": false, "client > server: icmp 0": false, "remote > server: tcp 81": true},
		},
		"the first rule of a policy comes first": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(deny, everyone, number("TCP", 80, 90)), does(accept, everyone))},
			want:     map[string]bool{"remote > server: tcp 80": false, "remote > server: tcp 90": false, "remote > server: tcp 91": true, "remote > server: udp 80": true, "remote > server: icmp 0": true},
		},
		"what Admin accepts NetworkPolicies cannot forbid": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(accept, blue, number("TCP", 80)))}, isolating: true,
			want: map[string]bool{"remote > server: tcp 80": true, "remote > server: tcp 81": false, "client > server: tcp 81": true},
		},
		"what Admin denies NetworkPolicies cannot allow": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(deny, red, number("TCP", 80)))}, isolating: true,
			want: map[string]bool{"client > server: tcp 80": false, "client > server: tcp 81": true, "outside > server: tcp 81": false},
		},
		"what Admin passes the rest of Admin is not asked for": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(pass, red)), tier(admin, 2, does(deny, everyone))}, isolating: true,
			want: map[string]bool{"client > server: tcp 80": true, "remote > server: tcp 80": false, "outside > server: tcp 80": false, "node2 > server: tcp 80": false},
		},
		"Baseline is asked for who has no NetworkPolicy": {
			policies: []model.ClusterPolicy{tier(baseline, 1, does(accept, blue, number("UDP", 53)), does(deny, everyone))},
			want: map[string]bool{
				"remote > server: udp 53": true, "remote > server: udp 54": false, "client > server: tcp 80": false,
				"outside > server: tcp 80": true, "node2 > server: tcp 80": true, "node2 in its range > server: tcp 80": true,
			},
		},
		"Baseline is not asked for who has one": {
			policies: []model.ClusterPolicy{tier(baseline, 1, does(accept, blue), does(deny, red))}, isolating: true,
			want: map[string]bool{"remote > server: tcp 80": false, "client > server: tcp 80": true},
		},
		"a named port is the pod's own": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(deny, everyone, named("TCP", "web"), named("UDP", "web")))},
			want:     map[string]bool{"client > server: tcp 8080": false, "client > server: tcp 80": true, "client > server: udp 8080": true},
		},
		"a named port is that of the pod that is connected to": {
			policies: []model.ClusterPolicy{toward(tier(admin, 1, does(deny, everyone, named("TCP", "web"))))},
			want:     map[string]bool{"server > remote: tcp 80": false, "server > remote: tcp 8080": true, "server > client: tcp 80": true},
		},
		"networks hold pods too": {
			policies: []model.ClusterPolicy{toward(tier(admin, 1, does(pass, blue), does(deny, block("0.0.0.0/0"), block("::/0"))))},
			want:     map[string]bool{"server > remote: tcp 80": true, "server > client: tcp 80": false, "server > outside: tcp 80": false, "server > node2: tcp 80": false},
		},
		"nodes are all their addresses": {
			policies: []model.ClusterPolicy{toward(tier(admin, 1, does(deny, nodes("role=gate"), number("TCP", 22))))},
			want:     map[string]bool{"server > node2: tcp 22": false, "server > node2 in its range: tcp 22": false, "server > node1: tcp 22": true, "server > node2: tcp 23": true},
		},
		"a rule without peers is about nobody": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(deny))},
			want:     map[string]bool{"client > server: tcp 80": true, "outside > server: tcp 80": true},
		},
		"who is unknown is denied what a rule may deny": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(accept, everyone, number("TCP", 443)), does(deny, blue, number("TCP", 80)))},
			want:     map[string]bool{"stranger > server: tcp 80": false, "stranger > server: tcp 81": true, "stranger > server: tcp 443": true, "outside > server: tcp 80": true},
		},
		"who is unknown is not accepted": {
			policies: []model.ClusterPolicy{tier(admin, 1, does(accept, everyone)), tier(baseline, 1, does(deny, everyone))},
			want:     map[string]bool{"stranger > server: tcp 80": false, "remote > server: tcp 80": true, "client > server: tcp 80": true},
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := clusterScene(c.policies...)
			for i := range w.Blocks {
				if w.Blocks[i].Node == "node2" {
					w.Blocks[i].Labels = labels("role=gate")
				}
			}
			if c.isolating {
				allowRed.Namespace, allowRed.Name = "red", "allow-red"
				w.Objects.NetworkPolicies = []model.NetworkPolicy{allowRed}
			}
			expect(t, w, c.want)
		})
	}
}

// What pods have with their own node only policies of the cluster forbid.
func TestTiersAreAskedForTheNodeItself(t *testing.T) {
	everywhere := []model.PolicyPeer{block("0.0.0.0/0"), block("::/0")}
	isolating := model.NetworkPolicy{Namespace: "red", Name: "nothing", Pods: selector("app=server"), Types: []model.PolicyType{model.PolicyEgress}}
	for what, c := range map[string]struct {
		policy    model.ClusterPolicy
		isolating bool
		want      bool
	}{
		"denied by address":     {policy: toward(tier(admin, 1, model.TierRule{Action: deny, Peers: everywhere})), want: false},
		"denied by label":       {policy: toward(tier(admin, 1, does(deny, nodes("")))), want: false},
		"another port":          {policy: toward(tier(admin, 1, does(deny, nodes(""), number("TCP", 22)))), want: true},
		"other nodes":           {policy: toward(tier(admin, 1, does(deny, nodes("role=gate")))), want: true},
		"passed":                {policy: toward(tier(admin, 1, does(pass, nodes("")))), isolating: true, want: true},
		"denied, and isolated":  {policy: toward(tier(admin, 1, does(deny, nodes("")))), isolating: true, want: false},
		"Baseline":              {policy: toward(tier(baseline, 1, does(deny, nodes("")))), want: false},
		"Baseline, overridden":  {policy: toward(tier(baseline, 1, does(deny, nodes("")))), isolating: true, want: true},
		"of ingress":            {policy: tier(admin, 1, does(deny, namespaces(""))), want: true},
		"pods are not the node": {policy: toward(tier(admin, 1, does(deny, namespaces("")))), want: true},
	} {
		w := clusterScene(c.policy)
		if c.isolating {
			w.Objects.NetworkPolicies = []model.NetworkPolicy{isolating}
		}
		table := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables[0]
		for _, to := range []string{"192.0.2.1", "2001:db8::1", "10.244.1.0", "fd44:0:0:1::"} {
			a := netip.MustParseAddr(to)
			con := policytest.Connection{Client: addrs("server")[model.FamilyIndex(a)], Server: a, Protocol: "tcp", Port: 80, ToHost: true}
			for _, reply := range []bool{false, true} {
				got, _, err := policytest.Verdict(table, policytest.Packet{Connection: con, Reply: reply})
				if err != nil || got != c.want || w.Allowed(con) != c.want {
					t.Errorf("%s: %s (reply: %t) passes: %t (%v), want %t", what, to, reply, got, err, c.want)
				}
			}
		}
	}
}

// Without policies of the cluster nothing is asked of what pods have with their node.
func TestNodeIsNotAskedForNothing(t *testing.T) {
	w := scene(model.NetworkPolicy{Types: []model.PolicyType{model.PolicyIngress, model.PolicyEgress}})
	for _, c := range NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables[0].Chains {
		if strings.HasPrefix(c.Name, hostChain) || c.Base.Hook == nft.Input || c.Base.Hook == nft.Output {
			t.Errorf("there is a chain %s", c.Name)
		}
	}
}

func TestWhetherPodsCanAttachIsUpToPoliciesThatMaySelectThem(t *testing.T) {
	unknown := model.Pod{Namespace: "red", Name: "new", UID: "9"}
	known := model.Pod{Namespace: "red", Name: "server", UID: "1"}
	all := []model.PolicyPeer{namespaces("")}
	rules := []model.TierRule{{Action: deny, Peers: all}}
	for what, c := range map[string]struct {
		policy     model.ClusterPolicy
		namespaces []model.Namespace
		pod        model.Pod
		want       bool
	}{
		"by its labels":                  {policy: model.ClusterPolicy{Namespaces: selector("name=red"), Pods: selector("app=server"), Ingress: rules}, pod: unknown, want: false},
		"by its namespace":               {policy: model.ClusterPolicy{Namespaces: selector("name=red"), Ingress: rules}, pod: unknown, want: true},
		"of another namespace":           {policy: model.ClusterPolicy{Namespaces: selector("name=blue"), Pods: selector("app=server"), Ingress: rules}, pod: unknown, want: true},
		"known":                          {policy: model.ClusterPolicy{Namespaces: selector("name=red"), Pods: selector("app=server"), Ingress: rules}, pod: known, want: true},
		"of a namespace that is unknown": {policy: model.ClusterPolicy{Namespaces: selector("name=red"), Ingress: rules}, namespaces: []model.Namespace{}, pod: known, want: false},
		"of any namespace":               {policy: model.ClusterPolicy{Ingress: rules}, namespaces: []model.Namespace{}, pod: known, want: true},
		"not Kubernetes'":                {policy: model.ClusterPolicy{Pods: selector("app=server"), Ingress: rules}, pod: model.Pod{Name: "x"}, want: true},
	} {
		w := scene()
		w.Objects.ClusterPolicies = []model.ClusterPolicy{c.policy}
		if c.namespaces != nil {
			w.Objects.Namespaces = c.namespaces
		}
		if got := NewIndex(w.Objects, w.Blocks).CanAttach(c.pod); got != c.want {
			t.Errorf("%s: can attach: %t, want %t", what, got, c.want)
		}
	}
}
