package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// node returns a Node as a kubelet registers it.
func node(number int) *corev1.Node {
	name := fmt.Sprintf("node-%05d", number)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
			corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", number%3),
		}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", number/250, number%250+1)},
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("2001:db8::%x", number+1)},
				{Type: corev1.NodeHostName, Address: name},
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "NoNetwork"}},
		},
	}
}

// makeNetwork creates the PodNetwork, whose blocks do not rest.
func (c *cluster) makeNetwork(b *testing.B, cidrs ...string) {
	b.Helper()
	network := &podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec:       podnetv1alpha1.PodNetworkSpec{BlockQuarantineSeconds: ptr.To[int32](0)},
	}
	for _, cidr := range cidrs {
		network.Spec.Ranges = append(network.Spec.Ranges, podnetv1alpha1.Range{CIDR: cidr})
	}
	must(b, "creating the PodNetwork", c.API.Create(b.Context(), network))
}

// awaitStatus waits until the PodNetwork's status says so many nodes, and so many
// blocks of each range.
func (c *cluster) awaitStatus(b *testing.B, nodes, blocks int) {
	b.Helper()
	network := &podnetv1alpha1.PodNetwork{}
	defer func() {
		if b.Failed() {
			said, err := json.Marshal(network.Status)
			b.Logf("the PodNetwork says %s (%v)", said, err)
		}
	}()
	await(b, fmt.Sprintf("the PodNetwork to say %d nodes and %d blocks", nodes, blocks), func(ctx context.Context) (bool, error) {
		*network = podnetv1alpha1.PodNetwork{}
		if err := c.API.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network); err != nil {
			return false, err
		}
		said := network.Status.NodesTotal != nil && int(*network.Status.NodesTotal) == nodes && len(network.Status.Ranges) > 0
		for _, r := range network.Status.Ranges {
			said = said && r.BlocksAllocated != nil && int(*r.BlocksAllocated) == blocks
		}
		return said, nil
	})
}

// blocks are the NodeSubnets that have come since it began to follow them.
type blocks struct {
	events watch.Interface
	// held holds the families of which each node holds a block, as whether it is IPv4.
	held map[string]map[bool]bool
	// nodes is how many nodes hold blocks of so many families.
	nodes map[int]int
}

// watchBlocks begins to follow the changes of NodeSubnets, until the benchmark ends.
func (c *cluster) watchBlocks(b *testing.B) *blocks {
	b.Helper()
	list := &podnetv1alpha1.NodeSubnetList{}
	must(b, "listing NodeSubnets", c.API.List(b.Context(), list, client.Limit(1)))
	events, err := c.API.Watch(b.Context(), list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	must(b, "watching NodeSubnets", err)
	b.Cleanup(events.Stop)
	return &blocks{events: events, held: map[string]map[bool]bool{}, nodes: map[int]int{}}
}

// until waits for changes of NodeSubnets until the condition holds.
func (s *blocks) until(b *testing.B, what string, condition func() bool) {
	b.Helper()
	late := time.After(patience)
	for !condition() {
		select {
		case event, open := <-s.events.ResultChan():
			if !open {
				b.Fatalf("the watch of NodeSubnets ended while waiting for %s", what)
			}
			s.take(b, event)
		case <-late:
			b.Fatalf("%s did not come in %v", what, patience)
		}
	}
}

// take takes note of one change.
func (s *blocks) take(b *testing.B, event watch.Event) {
	b.Helper()
	subnet, ok := event.Object.(*podnetv1alpha1.NodeSubnet)
	if !ok {
		b.Fatalf("the watch of NodeSubnets says %v", event)
	}
	cidr, err := netip.ParsePrefix(subnet.Spec.CIDR)
	must(b, "reading a NodeSubnet", err)
	families := s.held[subnet.Spec.Node]
	if families == nil {
		families = map[bool]bool{}
		s.held[subnet.Spec.Node] = families
	}
	s.nodes[len(families)]--
	if event.Type == watch.Deleted {
		delete(families, cidr.Addr().Is4())
	} else {
		families[cidr.Addr().Is4()] = true
	}
	s.nodes[len(families)]++
}
