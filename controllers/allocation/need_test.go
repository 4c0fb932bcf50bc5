package allocation

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects/objectstest"
)

// A node can change its own labels, and so move between ranges as often as it likes.
func TestNodeThatMovesOnAndOnWaitsUntilItsBlocksHaveRested(t *testing.T) {
	for name, former := range map[string]bool{"the node as it is": false, "one that had its name before": true} {
		t.Run(name, func(t *testing.T) {
			objects := append(objectstest.Answering("a", "before"), objectstest.Held("10.245.0.0/24", "a"))
			for _, cidr := range []string{"10.244.1.0/24", "10.245.1.0/24", "10.244.2.0/24"} {
				rests := objectstest.Held(cidr, "a")
				rests.Spec.State = podnetv1alpha1.SubnetReleased
				if former {
					rests.Spec.NodeUID = "former"
				}
				objects = append(objects, rests)
			}
			c := newHearing(t, objects...)
			c.ledger.synced = func() bool { return true }
			zone := func(name string) *metav1.LabelSelector {
				return &metav1.LabelSelector{MatchLabels: map[string]string{"zone": name}}
			}
			c.network.Spec.Ranges = []podnetv1alpha1.Range{
				{CIDR: "10.244.0.0/16", NodePrefixLength: 24, NodeSelector: zone("a")},
				{CIDR: "10.245.0.0/16", NodePrefixLength: 24, NodeSelector: zone("b")},
			}
			node, report := &corev1.Node{}, &podnetv1alpha1.NodeNetwork{}
			for _, o := range []client.Object{node, report} {
				if err := c.Client.Get(t.Context(), client.ObjectKey{Name: "a"}, o); err != nil {
					t.Fatal(err)
				}
			}
			node.Labels = map[string]string{"zone": "a"}
			for _, o := range []client.Object{node, c.network} {
				if err := c.Client.Update(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			c.RollCall()
			report.Status.RollCall = c.RollCall()
			if err := c.Client.Update(t.Context(), report); err != nil {
				t.Fatal(err)
			}
			got, err := c.Ensure(t.Context(), node, c.network, report)
			if err != nil || len(got.Created) != 0 || !strings.Contains(got.Shortage, "keeps as many IPv4 blocks from others as a node may") {
				t.Errorf("with three blocks at rest: %+v, %v", got, err)
			}
			rested := &podnetv1alpha1.NodeSubnet{}
			rested.Name = objectstest.Held("10.244.1.0/24", "a").Name
			if err := c.Client.Delete(t.Context(), rested); err != nil {
				t.Fatal(err)
			}
			if got, err = c.Ensure(t.Context(), node, c.network, report); err != nil || len(got.Created) != 1 || got.Shortage != "" {
				t.Errorf("with two: %+v, %v", got, err)
			}
		})
	}
}
