package controllers

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// answering is a node that is ready, and the report of its agent, which has
// answered a roll call and names blocks.
func answering(name, rollCall string, blocks ...podnetv1alpha1.BlockStatus) []client.Object {
	return []client.Object{
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		},
		&podnetv1alpha1.NodeNetwork{
			ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID("uid-of-" + name)}}},
			Status: podnetv1alpha1.NodeNetworkStatus{RollCall: rollCall, Blocks: blocks},
		},
	}
}

func heldBlock(cidr, node string) *podnetv1alpha1.NodeSubnet {
	return &podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: cidr[:len(cidr)-3] + "-24"},
		Spec:       podnetv1alpha1.NodeSubnetSpec{Network: podnetv1alpha1.DefaultPodNetwork, Node: node, CIDR: cidr},
	}
}

func reader(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	network := &podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec:       podnetv1alpha1.PodNetworkSpec{Ranges: []podnetv1alpha1.Range{{CIDR: "10.244.0.0/16", NodePrefixLength: 24}}},
	}
	return fake.NewClientBuilder().WithScheme(Scheme()).WithObjects(append(objects, network)...).Build()
}

func missing(t *testing.T, call *RollCall, from client.Reader) []string {
	t.Helper()
	names, err := call.Missing(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRollCallIsOverWhenPatienceRunsOut(t *testing.T) {
	now := clocktesting.NewFakePassiveClock(time.Now())
	call := &RollCall{Clock: now}
	from := reader(t, slices.Concat(answering("b", "before"), answering("a", "before"), answering("c", call.ID()))...)
	for _, after := range []time.Duration{0, rollCallPatience} {
		now.SetTime(now.Now().Add(after))
		if names := missing(t, call, from); !slices.Equal(names, []string{"a", "b"}) || call.Over() {
			t.Fatalf("after %s: missing %v, over %t", after, names, call.Over())
		}
	}
	now.SetTime(now.Now().Add(time.Second))
	if names := missing(t, call, from); names != nil || !call.Over() {
		t.Fatalf("after more than %s: missing %v, over %t", rollCallPatience, names, call.Over())
	}

	// The next call has patience of its own.
	call.Begin()
	if names := missing(t, call, from); !slices.Equal(names, []string{"a", "b", "c"}) || call.Over() {
		t.Fatalf("called again: missing %v, over %t", names, call.Over())
	}
}

func TestRollCallWaitsForWhatAgentsClaim(t *testing.T) {
	used := func(cidr string, state podnetv1alpha1.SubnetState, n int64) podnetv1alpha1.BlockStatus {
		return podnetv1alpha1.BlockStatus{CIDR: cidr, State: state, AddressesUsed: ptr.To(n)}
	}
	for name, c := range map[string]struct {
		block podnetv1alpha1.BlockStatus
		waits bool
	}{
		"pods use a block that nobody holds":                 {used("10.244.3.0/24", "", 1), true},
		"an agent has not heard that its block is gone":      {used("10.244.3.0/24", podnetv1alpha1.SubnetActive, 1), true},
		"nor does it know whether it gives an address of it": {used("10.244.3.0/24", podnetv1alpha1.SubnetActive, 0), true},
		"a block that was given back":                        {used("10.244.3.0/24", podnetv1alpha1.SubnetDraining, 0), false},
		"the object is there":                                {used("10.244.0.0/24", podnetv1alpha1.SubnetActive, 1), false},
		"the object is there, and another's":                 {used("10.244.1.0/24", "", 1), false},
		"addresses of no range":                              {used("10.99.0.0/24", "", 1), false},
		"pods use one of another length, made by hand":       {used("10.244.3.0/25", "", 1), false},
		"and one that overlaps another's":                    {used("10.244.1.0/25", "", 1), false},
		"what does not parse":                                {used("none", "", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			call := &RollCall{Clock: clock.RealClock{}}
			from := reader(t, append(answering("node", call.ID(), c.block), heldBlock("10.244.0.0/24", "node"), heldBlock("10.244.1.0/24", "other"))...)
			if names := missing(t, call, from); (len(names) > 0) != c.waits || call.Over() == c.waits {
				t.Fatalf("missing %v, over %t", names, call.Over())
			}
			if !c.waits {
				return
			}
			if err := from.Create(t.Context(), heldBlock("10.244.3.0/24", "node")); err != nil {
				t.Fatal(err)
			}
			if names := missing(t, call, from); len(names) > 0 || !call.Over() {
				t.Fatalf("healed: missing %v, over %t", names, call.Over())
			}
		})
	}
}

func TestLedgerKeepsAVanishedBlockUntilItIsToldOf(t *testing.T) {
	var l *ledger
	told := false
	l = newLedger(func(s *podnetv1alpha1.NodeSubnet) {
		told = true
		if _, known := l.known[s.Name]; !known {
			t.Error("the block was free before anybody was told")
		}
	})
	s := heldBlock("10.244.0.0/24", "node")
	s.Spec.NodeUID, s.Spec.State = "uid", podnetv1alpha1.SubnetActive
	l.OnAdd(s, true)
	l.OnDelete(s)
	if _, known := l.known[s.Name]; known || !told {
		t.Errorf("known %t, told %t", known, told)
	}
	s.Spec.State, told = podnetv1alpha1.SubnetReleased, false
	l.OnAdd(s, false)
	l.OnDelete(s)
	if told {
		t.Error("a block that was released vanished")
	}
}

func TestLedgerPicksForOneNodeAtATime(t *testing.T) {
	l := newLedger(func(*podnetv1alpha1.NodeSubnet) {})
	of := func(cidr string, bits int) pool {
		return pool{{Range: ipam.Range{CIDR: netip.MustParsePrefix(cidr), BlockBits: bits}}}
	}
	v4, v6 := of("10.0.0.0/23", 24), of("fd00::/63", 64)
	var wg sync.WaitGroup
	got := make([][][]netip.Prefix, 3)
	for i := range got {
		wg.Go(func() { got[i] = l.pick(demand{v4, 1}, demand{v6, 1}) })
	}
	wg.Wait()
	for _, picked := range got {
		if len(picked[0]) != len(picked[1]) {
			t.Errorf("a node got %v: one that gets a block of one family gets both as long as there are any", picked)
		}
	}
	l.giveBack(slices.Concat(got[0]...))
	l.giveBack(slices.Concat(got[1]...))
	l.giveBack(slices.Concat(got[2]...))
	if picked := l.pick(demand{v4, 5}); len(picked[0]) != 2 {
		t.Errorf("picked %v of what was given back", picked)
	}
}

// A block counts as allocated while its node is still to get it back, and only then: an answer
// that nobody will ever deal with would keep it from being free for ever.
func TestBlockThatNobodyWillGetBackIsFree(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(*corev1.Node)
		allocated int64
	}{
		"its node gets it back":         {func(*corev1.Node) {}, 1},
		"podnet does not serve Windows": {func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelOSStable: "windows"} }, 0},
		"the report is a former node's": {func(n *corev1.Node) { n.UID = "another" }, 0},
		"the node is being deleted": {func(n *corev1.Node) {
			n.DeletionTimestamp, n.Finalizers = ptr.To(metav1.Now()), []string{"example.com/waits"}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			call := &RollCall{Clock: clock.RealClock{}}
			objects := answering("node", call.ID(), podnetv1alpha1.BlockStatus{
				CIDR: "10.244.3.0/24", State: podnetv1alpha1.SubnetActive, AddressesUsed: ptr.To[int64](1),
			})
			c.change(objects[0].(*corev1.Node))
			r := &PodNetworkReconciler{Client: reader(t, objects...), Allocation: &sync.RWMutex{}, RollCall: call, Clock: clock.RealClock{}}
			_, v, err := r.look(t.Context(), podnetv1alpha1.DefaultPodNetwork)
			if err != nil {
				t.Fatal(err)
			}
			if n := *v.rangeStatus(v.ranges[0]).BlocksAllocated; n != c.allocated {
				t.Errorf("%d blocks are allocated, and %d should be", n, c.allocated)
			}
		})
	}
}
