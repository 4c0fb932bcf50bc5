package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// BenchmarkAllocation measures from a node's creation to its block, and from its
// deletion until the block is free, one node after the other, beside few and
// many blocks that are taken.
func BenchmarkAllocation(b *testing.B) {
	const operations = 100
	cluster := startCluster(b)
	manager := cluster.startManager(b)
	r := ipam.Range{CIDR: netip.MustParsePrefix("10.0.0.0/8"), BlockBits: 24}
	cluster.makeNetwork(b, r.CIDR.String())
	var filler filler
	next := 0
	for _, number := range []int{10, 1000, 60000} {
		cluster.fill(b, &filler, r, number)
		cluster.awaitStatus(b, 0, number)
		b.Run(fmt.Sprintf("taken=%d", number), func(b *testing.B) {
			subnets := cluster.watchBlocks(b)
			var allocations, releases []time.Duration
			used := []float64{manager.usage(b).cpuSeconds}
			for n := next; n < next+operations; n++ {
				joining := node(n)
				start := time.Now()
				must(b, "creating a node", cluster.api.Create(b.Context(), joining))
				subnets.until(b, "a block", func() bool { return len(subnets.held[joining.Name]) == 1 })
				allocations = append(allocations, time.Since(start))
			}
			used = append(used, manager.usage(b).cpuSeconds)
			for n := next; n < next+operations; n++ {
				leaving := node(n)
				start := time.Now()
				must(b, "deleting a node", cluster.api.Delete(b.Context(), leaving))
				subnets.until(b, "a release", func() bool { return len(subnets.held[leaving.Name]) == 0 })
				releases = append(releases, time.Since(start))
			}
			used = append(used, manager.usage(b).cpuSeconds)
			next += operations

			b.ReportMetric(0, "ns/op") // of all of these together
			b.ReportMetric(median(allocations), "ms/allocation")
			b.ReportMetric(median(releases), "ms/release")
			b.ReportMetric((used[1]-used[0])*1000/operations, "CPU-ms/allocation")
			b.ReportMetric((used[2]-used[1])*1000/operations, "CPU-ms/release")
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
// takes them from this one as well, but leaves the manager nothing to do about
// them. They are written into etcd, as from a backup: creating 60,000 objects would
// take longer than all benchmarks. Each is a transaction of its own, as the API
// server expects of etcd that no two changes have the same revision.
func (c *cluster) fill(b *testing.B, f *filler, r ipam.Range, number int) {
	b.Helper()
	subnets := make(chan *podnetv1alpha1.NodeSubnet)
	etcd := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: kubelets}}
	defer etcd.CloseIdleConnections()
	var writers sync.WaitGroup
	for range kubelets {
		writers.Go(func() {
			for subnet := range subnets {
				if err := c.putIntoEtcd(etcd, subnet); err != nil {
					b.Error(fmt.Errorf("writing NodeSubnet %s into etcd: %w", subnet.Name, err))
				}
			}
		})
	}
	for ; f.number < number; f.number++ {
		block, _ := f.taken.Next(r)
		f.taken.Take(block)
		name, err := ipam.BlockName(block)
		must(b, "naming a block", err)
		subnets <- &podnetv1alpha1.NodeSubnet{
			TypeMeta: metav1.TypeMeta{APIVersion: podnetv1alpha1.GroupVersion.String(), Kind: "NodeSubnet"},
			ObjectMeta: metav1.ObjectMeta{
				Name: name, UID: uuid.NewUUID(), Generation: 1, CreationTimestamp: metav1.Now(),
				Finalizers: []string{podnetv1alpha1.NodeSubnetFinalizer},
			},
			Spec: podnetv1alpha1.NodeSubnetSpec{
				Network: "other", Node: "of-another-network-" + name, CIDR: block.String(), State: podnetv1alpha1.SubnetActive,
			},
		}
	}
	close(subnets)
	writers.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// putIntoEtcd writes a NodeSubnet as the API server would.
func (c *cluster) putIntoEtcd(etcd *http.Client, subnet *podnetv1alpha1.NodeSubnet) error {
	value, err := json.Marshal(subnet)
	if err != nil {
		return err
	}
	key := "/registry/" + podnetv1alpha1.GroupVersion.Group + "/nodesubnets/" + subnet.Name
	body, err := json.Marshal(map[string][]byte{"key": []byte(key), "value": value})
	if err != nil {
		return err
	}
	response, err := etcd.Post(c.env.ControlPlane.Etcd.URL.String()+"/v3/kv/put", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body) // or the connection is not used again
	return err
}
