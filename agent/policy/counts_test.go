package policy

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	compiler "github.com/podnet/podnet/internal/policy"
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
	count := func(packets uint64) { n.counted = map[string]uint64{compiler.DeniedCounter: packets} }
	count(100)
	n.expectDenied(t, "of an earlier agent", 0)
	pass()
	n.expectDenied(t, "with a new table", 0)
	count(7)
	n.expectDenied(t, "when asked", 7)
	count(10)
	n.enforcer.have = nil
	pass()
	n.expectDenied(t, "when the table was replaced", 10)
	count(3)
	n.expectDenied(t, "with the next table", 13)
	n.set(world(2))
	pass()
	n.expectDenied(t, "when the table was changed", 13)
	count(1)
	n.expectDenied(t, "when somebody else has reset the counter", 14)
	n.counted = nil
	n.enforcer.have = nil
	pass()
	n.expectDenied(t, "when somebody else has deleted the table", 14)
}

func TestWhatCannotBeReplacedGoesOnCounting(t *testing.T) {
	n := newNode(world(1))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.counted = map[string]uint64{compiler.DeniedCounter: 5}
	n.fail, n.refuse = errors.New("no memory"), replacesCounters
	n.enforcer.have = nil
	if err := n.enforcer.Pass(t.Context()); err == nil {
		t.Fatal("the failure is not told")
	}
	n.counted = map[string]uint64{compiler.DeniedCounter: 6}
	n.expectDenied(t, "as before", 6)
}
