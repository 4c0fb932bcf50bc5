package bench

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podnet/podnet/test/bench/apiserver"
)

// kubelets is how many nodes register at the same moment.
const kubelets = 32

// BenchmarkJoin lets nodes join all at once, and measures until each has a block
// of each family, and then until the status says so.
func BenchmarkJoin(b *testing.B) {
	for _, c := range apiserver.Smallest([]struct {
		name   string
		nodes  int
		ranges []string
	}{
		{"nodes=50", 50, []string{"10.0.0.0/8"}},
		{"nodes=500", 500, []string{"10.0.0.0/8"}},
		{"nodes=5000", 5000, []string{"10.0.0.0/8"}},
		{"nodes=5000,dual-stack", 5000, []string{"10.0.0.0/8", "fd00:10::/40"}},
	}) {
		b.Run(c.name, func(b *testing.B) {
			cluster := startCluster(b)
			manager := cluster.startManager(b)
			cluster.makeNetwork(b, c.ranges...)
			cluster.awaitStatus(b, 0, 0)
			subnets := cluster.watchBlocks(b)
			usedBefore, askedBefore := manager.usage(b), cluster.requests(b)

			start := time.Now()
			registered := cluster.register(b, c.nodes)
			subnets.until(b, "blocks for all nodes", func() bool { return subnets.nodes[len(c.ranges)] == c.nodes })
			served := time.Since(start)
			cluster.awaitStatus(b, c.nodes, c.nodes)
			settled := time.Since(start)

			used, asked := manager.usage(b), cluster.requests(b)
			n := float64(c.nodes)
			b.ReportMetric(0, "ns/op") // of one run, which the lines below tell better
			b.ReportMetric((<-registered).Seconds(), "s-until-registered")
			b.ReportMetric(served.Seconds(), "s-until-served")
			b.ReportMetric(settled.Seconds(), "s-until-settled")
			b.ReportMetric(n/served.Seconds(), "nodes/s")
			b.ReportMetric((used.cpuSeconds-usedBefore.cpuSeconds)*1000/n, "CPU-ms/node")
			b.ReportMetric((used.requests-usedBefore.requests)/n, "requests/node")
			for kind, count := range asked {
				// The benchmark itself makes the nodes.
				if made := (count - askedBefore[kind]) / n; made >= 0.1 && kind != "POST nodes" {
					b.ReportMetric(made, "requests/node:"+strings.ReplaceAll(kind, " ", "-"))
				}
			}
			b.ReportMetric(used.heap, "MiB-heap")
			b.ReportMetric(used.resident, "MiB-resident")
			b.ReportMetric(used.atMost, "MiB-resident-at-most")
		})
	}
}

// register creates nodes, several at a time, and says how long it took when all are there.
func (c *cluster) register(b *testing.B, number int) <-chan time.Duration {
	b.Helper()
	start := time.Now()
	numbers, took := make(chan int), make(chan time.Duration, 1)
	var all sync.WaitGroup
	for range kubelets {
		all.Go(func() {
			for n := range numbers {
				if err := c.API.Create(b.Context(), node(n)); err != nil {
					b.Error(fmt.Errorf("registering node %d: %w", n, err))
				}
			}
		})
	}
	go func() {
		for n := range number {
			numbers <- n
		}
		close(numbers)
		all.Wait()
		took <- time.Since(start)
	}()
	return took
}
