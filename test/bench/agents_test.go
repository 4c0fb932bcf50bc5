package bench

import (
	"context"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// reporters is how many agents write at a time.
const reporters = 32

// runAgents plays, until the benchmark ends, the first report of each node's agent,
// before which the node gets no block.
func (c *cluster) runAgents(b *testing.B) {
	b.Helper()
	list := &podnetv1alpha1.NodeNetworkList{}
	must(b, "listing NodeNetworks", c.API.List(b.Context(), list, client.Limit(1)))
	events, err := c.API.Watch(b.Context(), list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	must(b, "watching NodeNetworks", err)
	ctx, cancel := context.WithCancel(context.Background())
	names := make(chan string)
	var all sync.WaitGroup
	all.Go(func() {
		defer close(names)
		for e := range events.ResultChan() {
			if nn, ok := e.Object.(*podnetv1alpha1.NodeNetwork); ok && e.Type == watch.Added {
				names <- nn.Name
			}
		}
	})
	for range reporters {
		all.Go(func() {
			for name := range names {
				report := podnetv1alpha1ac.NodeNetwork(name).WithStatus(podnetv1alpha1ac.NodeNetworkStatus().WithAgentVersion("bench"))
				// A node that has gone meanwhile needs no block.
				if err := c.API.Status().Apply(ctx, report, client.FieldOwner("podnet-agent")); client.IgnoreNotFound(err) != nil && ctx.Err() == nil {
					b.Errorf("reporting for %s: %v", name, err)
				}
			}
		})
	}
	b.Cleanup(func() {
		cancel()
		events.Stop()
		all.Wait()
	})
}
