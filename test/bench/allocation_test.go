package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/test/bench/apiserver"
)

// BenchmarkAllocation measures from a node's creation to its block, and from its
// deletion until the block is free, one node after the other, beside few and
// many blocks that are taken.
func BenchmarkAllocation(b *testing.B) {
	operations := apiserver.Few(100)
	cluster := startCluster(b)
	manager := cluster.startManager(b)
	r := ipam.Range{CIDR: netip.MustParsePrefix("10.0.0.0/8"), BlockBits: 24}
	cluster.makeNetwork(b, r.CIDR.String())
	var filler filler
	next := 0
	for _, number := range apiserver.Smallest([]int{10, 1000, 60000}) {
		cluster.fill(b, &filler, r, number)
		cluster.awaitStatus(b, 0, number)
		b.Run(fmt.Sprintf("taken=%d", number), func(b *testing.B) {
			subnets := cluster.watchBlocks(b)
			var allocations, releases []time.Duration
			used := []float64{manager.usage(b).cpuSeconds}
			for n := next; n < next+operations; n++ {
				joining := node(n)
				start := time.Now()
				must(b, "creating a node", cluster.API.Create(b.Context(), joining))
				subnets.until(b, "a block", func() bool { return len(subnets.held[joining.Name]) == 1 })
				allocations = append(allocations, time.Since(start))
			}
			used = append(used, manager.usage(b).cpuSeconds)
			for n := next; n < next+operations; n++ {
				leaving := node(n)
				start := time.Now()
				must(b, "deleting a node", cluster.API.Delete(b.Context(), leaving))
				subnets.until(b, "a release", func() bool { return len(subnets.held[leaving.Name]) == 0 })
				releases = append(releases, time.Since(start))
			}
			used = append(used, manager.usage(b).cpuSeconds)
			next += operations

			b.ReportMetric(0, "ns/op") // of all of these together
			b.ReportMetric(median(allocations), "ms/allocation")
			b.ReportMetric(median(releases), "ms/release")
			b.ReportMetric((used[1]-used[0])*1000/float64(operations), "CPU-ms/allocation")
			b.ReportMetric((used[2]-used[1])*1000/float64(operations), "CPU-ms/release")
		})
	}
	b.Logf("the manager had at most %.0f MiB", manager.usage(b).atMost)
}

// median of durations, in milliseconds.
func median(durations []time.Duration) float64 {
	slices.Sort(durations)
	return float64(durations[len(durations)/2].Microseconds()) / 1000
}

// filler takes blocks, the lowest first.
type filler struct {
	taken  ipam.Taken
	number int
}

// fill takes blocks until there are so many. They belong to another network, which
// takes them from this one as well, but leaves the manager nothing to do about them.
func (c *cluster) fill(b *testing.B, f *filler, r ipam.Range, number int) {
	b.Helper()
	c.Fill(b, func(yield func(string, client.Object) bool) {
		for more := true; more && f.number < number; f.number++ {
			block, _ := f.taken.Next(r)
			f.taken.Take(block)
			name, err := ipam.BlockName(block)
			must(b, "naming a block", err)
			more = yield(podnetv1alpha1.GroupVersion.Group+"/nodesubnets/"+name, &podnetv1alpha1.NodeSubnet{
				TypeMeta: metav1.TypeMeta{APIVersion: podnetv1alpha1.GroupVersion.String(), Kind: "NodeSubnet"},
				ObjectMeta: metav1.ObjectMeta{
					Name: name, UID: uuid.NewUUID(), Generation: 1, CreationTimestamp: metav1.Now(),
					Finalizers: []string{podnetv1alpha1.NodeSubnetFinalizer},
				},
				Spec: podnetv1alpha1.NodeSubnetSpec{
					Network: "other", Node: "of-another-network-" + name, CIDR: block.String(), State: podnetv1alpha1.SubnetActive,
				},
			})
		}
	})
}
