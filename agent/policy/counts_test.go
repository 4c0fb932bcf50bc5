package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podnet/podnet/internal/model"
	compiler "github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// gathered are the counters of a collector by name and values of labels, as Prometheus sees them.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = metric.GetCounter().GetValue()
		}
	}
	return values
}

// forget makes the Enforcer replace the tables, as it does when it may have missed changes.
func (n *node) forget(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.enforcer.tables.Watch(ctx, func() {}); err != nil {
		t.Fatal(err)
	}
}

// expectDenied checks how many packets the metric says were denied.
func (n *node) expectDenied(t *testing.T, when string, want float64) {
	t.Helper()
	if got := gathered(t, n.enforcer)["podnet_agent_policy_denied_packets_total"]; got != want {
		t.Errorf("%s: %v packets, want %v", when, got, want)
	}
}

func TestDeniedPacketsAreCountedThroughAllTables(t *testing.T) {
	n := newNode(world(1))
	pass := func() {
		t.Helper()
		if err := n.enforcer.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	count := func(packets uint64) { n.Counted = map[string]uint64{compiler.DeniedCounter: packets} }
	count(100)
	n.expectDenied(t, "of an earlier agent", 0)
	pass()
	n.expectDenied(t, "with a new table", 0)
	count(7)
	n.expectDenied(t, "when asked", 7)
	count(10)
	n.forget(t)
	pass()
	n.expectDenied(t, "when the table was replaced", 10)
	count(3)
	n.expectDenied(t, "with the next table", 13)
	n.set(world(2))
	pass()
	n.expectDenied(t, "when the table was changed", 13)
	count(1)
	n.expectDenied(t, "when somebody else has reset the counter", 14)
	n.Counted = nil
	n.forget(t)
	pass()
	n.expectDenied(t, "when somebody else has deleted the table", 14)
}

func TestWhatCannotBeReplacedGoesOnCounting(t *testing.T) {
	n := newNode(world(1))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Counted = map[string]uint64{compiler.DeniedCounter: 5}
	n.refuse(errors.New("no memory"), isPut)
	n.forget(t)
	if err := n.enforcer.Pass(t.Context()); err == nil {
		t.Fatal("the failure is not told")
	}
	n.Counted = map[string]uint64{compiler.DeniedCounter: 6}
	n.expectDenied(t, "as before", 6)
}

func TestRulesHaveMetricsWhileTheyAreCounted(t *testing.T) {
	w := policytest.World{
		Objects: model.PolicyObjects{
			NetworkPolicies: []model.NetworkPolicy{{
				Namespace: "red", Name: "web", Count: true, Ingress: make([]model.PolicyRule, 2), Types: []model.PolicyType{model.PolicyIngress},
			}},
			ClusterPolicies: []model.ClusterPolicy{{Name: "guard", Count: true, Egress: []model.TierRule{{
				Field: "egress[0]", Action: model.PolicyDeny, Peers: []model.PolicyPeer{{Namespaces: &model.Selector{}}},
			}}}},
			Pods: []model.ClusterPod{{Namespace: "red", Name: "p", UID: "1"}},
		},
		Attached: []model.Pod{{ContainerID: "c", Namespace: "red", Name: "p", UID: "1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}},
	}
	n := newNode(w)
	expect := func(when string, want map[string]float64) {
		t.Helper()
		got := gathered(t, n.enforcer)
		delete(got, "podnet_agent_policy_denied_packets_total")
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	pass := func() {
		t.Helper()
		if err := n.enforcer.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.expect(t, w)
	}
	pass()
	n.Counted = map[string]uint64{"rule/red/web/ingress-0": 3, "rule/red/web/ingress-1": 4, "clusterrule/guard/egress-0": 5}
	const metric = "podnet_agent_policy_rule_packets_total "
	expect("counted", map[string]float64{metric + "red web ingress[0]": 3, metric + "red web ingress[1]": 4, metric + " guard egress[0]": 5})
	n.forget(t)
	pass()
	n.Counted = map[string]uint64{"rule/red/web/ingress-0": 1}
	expect("in the next table", map[string]float64{metric + "red web ingress[0]": 4, metric + "red web ingress[1]": 4, metric + " guard egress[0]": 5})
	w.Objects.ClusterPolicies = nil
	w.Objects.NetworkPolicies[0].Count = false
	n.set(w)
	pass()
	expect("not asked for any more", map[string]float64{})
}

func TestPoliciesThatAreTooManyToCountAreToldOf(t *testing.T) {
	w := denyAll(model.ClusterPod{Namespace: "red", Name: "p", UID: "1"})
	w.Objects.NetworkPolicies = nil
	for i := range compiler.MostCounted + 2 {
		w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, model.NetworkPolicy{
			Namespace: "red", Name: fmt.Sprintf("p%02d", i), Count: true, Ingress: make([]model.PolicyRule, 1),
		})
	}
	w.Attached = []model.Pod{{ContainerID: "c", Namespace: "red", Name: "p", UID: "1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}}
	n := newNode(w)
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := n.enforcer.Problems()
	if len(got) != 1 || !strings.Contains(got[0].Message, "The packets of 2 policies are not counted") ||
		!strings.Contains(got[0].Message, "(NetworkPolicy red/p32, NetworkPolicy red/p33)") {
		t.Errorf("problems are %+v", got)
	}
}
