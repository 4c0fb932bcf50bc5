package agent

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/bench/apiserver"
)

// peerCounts are how many peers the agent has. Memory is that of the process, in which
// those with fewer peers have run before.
var peerCounts = []int{10, 500, 5000}

// BenchmarkPass measures the passes of an agent that has nothing yet, those in which
// one peer comes, changes and goes, and those in which nothing does.
func BenchmarkPass(b *testing.B) {
	for _, peers := range apiserver.Smallest(peerCounts) {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			forgetMemory(b)
			c := newCluster(peers)
			a := newAgent(b, c)
			first := a.begin(b)
			heap, resident, atMost := memory(b)
			b.ReportMetric(0, "ns/op") // of all of these together
			b.ReportMetric(milliseconds(first.took), "ms/first")
			b.ReportMetric(milliseconds(first.used), "CPU-ms/first")
			b.ReportMetric(float64(first.operations), "operations/first")
			a.start(b, a.applier.Watch)
			a.changes(b)
			a.idle(b)
			b.ReportMetric(heap, "MiB-heap")
			b.ReportMetric(resident, "MiB-resident")
			b.ReportMetric(atMost, "MiB-resident-at-most")
		})
	}
}

// repetitions is how often what varies is measured: the median counts.
const repetitions = 5

// changes lets one peer come, change and go.
func (a *agent) changes(b *testing.B) {
	b.Helper()
	c := a.cluster
	count := len(c.blocks)
	joining := peer(count)
	steps := []struct {
		name string
		do   func()
	}{
		{"join", func() { c.blocks = append(c.blocks, joining) }},
		{"other-path", func() {
			c.modes = []model.RouteMode{{Name: "routed", Mode: model.ModeRouted, Forced: true, Between: []model.Selector{
				{}, {{Key: "kubernetes.io/hostname", Operator: model.In, Values: []string{joining.Node}}},
			}}}
		}},
		{"other-endpoint", func() {
			c.blocks[count].Endpoints = []netip.Addr{endpoints.Addr().Prev()}
		}},
		{"leave", func() { c.blocks, c.modes = c.blocks[:count], nil }},
	}
	costs := make([][]cost, len(steps))
	for range repetitions {
		for i, step := range steps {
			c.change(step.do)
			costs[i] = append(costs[i], a.pass(b))
		}
	}
	for i, step := range steps {
		for _, cost := range costs[i] {
			if cost.operations != costs[i][0].operations {
				b.Errorf("%s: %d operations once, and %d later", step.name, costs[i][0].operations, cost.operations)
			}
		}
		b.ReportMetric(float64(costs[i][0].operations), "operations/"+step.name)
		b.ReportMetric(median(costs[i], func(c cost) float64 { return float64(c.told) }), "changes/"+step.name)
		b.ReportMetric(median(costs[i], func(c cost) float64 { return milliseconds(c.used) }), "CPU-ms/"+step.name)
		b.ReportMetric(median(costs[i], func(c cost) float64 { return milliseconds(c.executing) }), "CPU-ms/"+step.name+":kernel")
	}
}

// idle makes passes that have nothing to do.
func (a *agent) idle(b *testing.B) {
	b.Helper()
	var costs []cost
	var allocated, allocations []float64
	for range repetitions {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		costs = append(costs, a.pass(b))
		runtime.ReadMemStats(&after)
		allocated = append(allocated, mebibytes(after.TotalAlloc-before.TotalAlloc))
		allocations = append(allocations, float64(after.Mallocs-before.Mallocs))
	}
	if slices.ContainsFunc(costs, func(c cost) bool { return c.operations > 0 }) {
		b.Error("a pass over an unchanged node changes something")
	}
	same := func(x float64) float64 { return x }
	b.ReportMetric(median(costs, func(c cost) float64 { return milliseconds(c.took) }), "ms/idle")
	b.ReportMetric(median(costs, func(c cost) float64 { return milliseconds(c.used) }), "CPU-ms/idle")
	b.ReportMetric(median(allocated, same), "MiB/idle")
	b.ReportMetric(median(allocations, same), "allocations/idle")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// median returns that of a value of several things.
func median[T any](things []T, value func(T) float64) float64 {
	values := make([]float64, 0, len(things))
	for _, thing := range things {
		values = append(values, value(thing))
	}
	return middle(values)
}
