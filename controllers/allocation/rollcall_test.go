package allocation

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects/objectstest"
	"github.com/podnet/podnet/internal/ipam"
)

func missing(t *testing.T, call *rollCall, from client.Reader) []string {
	t.Helper()
	names, err := call.Missing(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRollCallIsOverWhenPatienceRunsOut(t *testing.T) {
	now := clocktesting.NewFakePassiveClock(time.Now())
	call := &rollCall{Clock: now}
	from := objectstest.Client(slices.Concat(objectstest.Answering("b", "before"), objectstest.Answering("a", "before"), objectstest.Answering("c", call.ID()))...)
	for _, after := range []time.Duration{0, Patience} {
		now.SetTime(now.Now().Add(after))
		if names := missing(t, call, from); !slices.Equal(names, []string{"a", "b"}) || call.Over() {
			t.Fatalf("after %s: missing %v, over %t", after, names, call.Over())
		}
	}
	now.SetTime(now.Now().Add(time.Second))
	if names := missing(t, call, from); names != nil || !call.Over() {
		t.Fatalf("after more than %s: missing %v, over %t", Patience, names, call.Over())
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
			call := &rollCall{Clock: clock.RealClock{}}
			from := objectstest.Client(append(objectstest.Answering("node", call.ID(), c.block), objectstest.Subnet("10.244.0.0/24", "node"), objectstest.Subnet("10.244.1.0/24", "other"))...)
			if names := missing(t, call, from); (len(names) > 0) != c.waits || call.Over() == c.waits {
				t.Fatalf("missing %v, over %t", names, call.Over())
			}
			if !c.waits {
				return
			}
			if err := from.Create(t.Context(), objectstest.Subnet("10.244.3.0/24", "node")); err != nil {
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
	s := objectstest.Subnet("10.244.0.0/24", "node")
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
	of := func(cidr string, bits int) Pool {
		return Pool{{Range: ipam.Range{CIDR: netip.MustParsePrefix(cidr), BlockBits: bits}}}
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
