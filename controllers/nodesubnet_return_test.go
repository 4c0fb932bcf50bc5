package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects/objectstest"
)

// tended is a NodeSubnetReconciler at work on a block, by a clock of its own.
type tended struct {
	*NodeSubnetReconciler
	t      *testing.T
	clock  *clocktesting.FakePassiveClock
	subnet *podnetv1alpha1.NodeSubnet
}

func newTended(t *testing.T, subnet *podnetv1alpha1.NodeSubnet, objects ...client.Object) *tended {
	t.Helper()
	network := &podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec: podnetv1alpha1.PodNetworkSpec{
			Ranges:                 []podnetv1alpha1.Range{{CIDR: "10.244.0.0/16", NodePrefixLength: 24}},
			BlockQuarantineSeconds: ptr.To[int32](podnetv1alpha1.DefaultBlockQuarantineSeconds),
		},
	}
	c := objectstest.Client(append(objects, network, subnet)...)
	now := clocktesting.NewFakePassiveClock(time.Now())
	return &tended{t: t, clock: now, subnet: subnet, NodeSubnetReconciler: &NodeSubnetReconciler{
		Client: c, Live: c, Events: silent{}, Clock: now, Policies: policyList{},
		idle: idleness{}, unused: idleness{}, gone: idleness{}, agentless: idleness{},
	}}
}

// after lets time go by and returns the state of the block as it is then; empty where it is gone.
func (c *tended) after(d time.Duration) podnetv1alpha1.SubnetState {
	c.t.Helper()
	c.clock.SetTime(c.clock.Now().Add(d))
	s := &podnetv1alpha1.NodeSubnet{}
	for range 3 {
		if _, err := c.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(c.subnet)}); err != nil {
			c.t.Fatal(err)
		}
		if err := c.Get(c.t.Context(), client.ObjectKeyFromObject(c.subnet), s); client.IgnoreNotFound(err) != nil {
			c.t.Fatal(err)
		} else if err != nil {
			return ""
		}
	}
	return s.Spec.State
}

func (c *tended) is(want podnetv1alpha1.SubnetState, after time.Duration, when string) {
	c.t.Helper()
	if state := c.after(after); state != want {
		c.t.Fatalf("%s: it is %q, want %q", when, state, want)
	}
}

func TestBlockOfANodeThatIsGoneStaysForAWhileAndRestsThen(t *testing.T) {
	c := newTended(t, objectstest.Held("10.244.7.0/24", "gone"))
	c.is(podnetv1alpha1.SubnetActive, 0, "at once")
	c.is(podnetv1alpha1.SubnetActive, returnGrace-time.Second, "within the grace")
	c.is(podnetv1alpha1.SubnetReleased, 2*time.Second, "after the grace")
	c.is(podnetv1alpha1.SubnetReleased, podnetv1alpha1.DefaultBlockQuarantineSeconds*time.Second-time.Second, "within the quarantine")
	c.is("", 3*time.Second, "after the quarantine")
}

func TestBlockOfANodeThatIsBackWaitsForItsAgent(t *testing.T) {
	block := func(state podnetv1alpha1.SubnetState, n int64) []podnetv1alpha1.BlockStatus {
		return []podnetv1alpha1.BlockStatus{{CIDR: "10.244.7.0/24", State: state, AddressesUsed: &n}}
	}
	for name, c := range map[string]struct {
		call   string
		blocks []podnetv1alpha1.BlockStatus
		want   podnetv1alpha1.SubnetState
	}{
		"which has said nothing":                       {"", nil, podnetv1alpha1.SubnetDraining},
		"which has pods there":                         {"call", block(podnetv1alpha1.SubnetActive, 2), podnetv1alpha1.SubnetActive},
		"which has none yet, and gives addresses":      {"call", block(podnetv1alpha1.SubnetActive, 0), podnetv1alpha1.SubnetDraining},
		"which has not done yet what it was asked":     {"call", block("", 0), podnetv1alpha1.SubnetActive},
		"which has none, and does not serve the block": {"call", nil, podnetv1alpha1.SubnetReleased},
	} {
		t.Run(name, func(t *testing.T) {
			former := objectstest.Held("10.244.7.0/24", "node")
			former.Spec.NodeUID = "former"
			newTended(t, former, objectstest.Answering("node", c.call, c.blocks...)...).is(c.want, 0, "at once")
		})
	}

	former := objectstest.Held("10.244.7.0/24", "node")
	former.Spec.NodeUID = "former"
	c := newTended(t, former, objectstest.Answering("node", "")...)
	c.is(podnetv1alpha1.SubnetDraining, time.Hour, "a node that is back, whatever time its agent takes")
}

func TestBlockOfANodeOnWhichNoAgentEverRanGoesBack(t *testing.T) {
	virtual := objectstest.Answering("virtual", "")
	made := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	virtual[1].SetCreationTimestamp(made)
	subnet := objectstest.Held("10.244.7.0/24", "virtual")
	subnet.CreationTimestamp = made
	c := newTended(t, subnet, virtual...)
	c.is(podnetv1alpha1.SubnetActive, 0, "at once")
	c.is(podnetv1alpha1.SubnetActive, agentPatience-time.Second, "while an agent may still come")
	c.is(podnetv1alpha1.SubnetReleased, 2*time.Second, "when none has come")
	c.is("", podnetv1alpha1.DefaultBlockQuarantineSeconds*time.Second+2*time.Second, "after the quarantine")

	// What was written again says nothing of what ran before.
	subnet = objectstest.Held("10.244.7.0/24", "virtual")
	subnet.CreationTimestamp = metav1.NewTime(made.Add(-time.Hour))
	newTended(t, subnet, virtual...).is(podnetv1alpha1.SubnetActive, 24*time.Hour, "a NodeNetwork that was recreated")
}

func TestNodesWithoutAnAgentDoNotCount(t *testing.T) {
	now := time.Now()
	of := func(name, call string, age time.Duration) (corev1.Node, *podnetv1alpha1.NodeNetwork) {
		objects := objectstest.Answering(name, call)
		objects[1].SetCreationTimestamp(metav1.NewTime(now.Add(-age)))
		return *objects[0].(*corev1.Node), objects[1].(*podnetv1alpha1.NodeNetwork)
	}
	v := &view{reports: map[string]*podnetv1alpha1.NodeNetwork{}}
	for name, c := range map[string]struct {
		call string
		age  time.Duration
	}{"served": {"call", time.Hour}, "young": {"", agentPatience - time.Minute}, "virtual": {"", agentPatience}} {
		node, report := of(name, c.call, c.age)
		v.everyNode, v.reports[name] = append(v.everyNode, node), report
	}
	v.sortNodes(now)
	if len(v.nodes) != 2 || len(v.agentless) != 1 || v.agentless[0] != "virtual" || v.waits != time.Minute {
		t.Errorf("%d nodes count, %v do not, more in %s", len(v.nodes), v.agentless, v.waits)
	}
}
