package allocation

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/controllers/objects/objectstest"
)

// hearing is an Allocator that hears what agents claim.
type hearing struct {
	*Allocator
	t       *testing.T
	network *podnetv1alpha1.PodNetwork
	events  *events.FakeRecorder
	clock   *clocktesting.FakePassiveClock
}

// newHearing has nodes with at most 2 blocks each of 10.244.0.0/16, of /24.
func newHearing(t *testing.T, objects ...client.Object) *hearing {
	t.Helper()
	network := &podnetv1alpha1.PodNetwork{Spec: podnetv1alpha1.PodNetworkSpec{
		Ranges:     []podnetv1alpha1.Range{{CIDR: "10.244.0.0/16", NodePrefixLength: 24}},
		NodeBlocks: podnetv1alpha1.NodeBlocks{Max: 2},
	}}
	network.Name = podnetv1alpha1.DefaultPodNetwork
	c := objectstest.Client(append(objects, network)...)
	recorder, now := events.NewFakeRecorder(100), clocktesting.NewFakePassiveClock(time.Now())
	return &hearing{t: t, network: network, events: recorder, clock: now, Allocator: New(Config{
		Client: c, Live: c, Events: recorder, Clock: now, Endpoints: func(context.Context, *corev1.Node) ([]string, error) { return nil, nil },
	})}
}

// used is a block of which pods have addresses.
func used(cidr string) podnetv1alpha1.BlockStatus {
	return podnetv1alpha1.BlockStatus{CIDR: cidr, AddressesUsed: ptr.To[int64](1)}
}

// says makes the agent of a node answer the last roll call with these blocks, and
// lets the manager hear it. It returns whether what it claims waits.
func (c *hearing) says(node string, blocks ...podnetv1alpha1.BlockStatus) bool {
	c.t.Helper()
	report := &podnetv1alpha1.NodeNetwork{}
	if err := c.Client.Get(c.t.Context(), client.ObjectKey{Name: node}, report); err != nil {
		c.t.Fatal(err)
	}
	report.Status.RollCall, report.Status.Blocks = c.RollCall(), blocks
	if err := c.Client.Update(c.t.Context(), report); err != nil {
		c.t.Fatal(err)
	}
	return c.hears(node)
}

func (c *hearing) hears(node string) bool {
	c.t.Helper()
	of, report := &corev1.Node{}, &podnetv1alpha1.NodeNetwork{}
	for _, o := range []client.Object{of, report} {
		if err := c.Client.Get(c.t.Context(), client.ObjectKey{Name: node}, o); err != nil {
			c.t.Fatal(err)
		}
	}
	pending, err := c.Claim(c.t.Context(), of, c.network, report)
	if err != nil {
		c.t.Fatal(err)
	}
	return pending
}

// has fails unless these are the blocks of a node.
func (c *hearing) has(node string, want ...string) {
	c.t.Helper()
	all := &podnetv1alpha1.NodeSubnetList{}
	if err := c.Client.List(c.t.Context(), all, client.MatchingFields{objects.NodeField: node}); err != nil {
		c.t.Fatal(err)
	}
	var is []string
	for _, s := range all.Items {
		is = append(is, s.Spec.CIDR)
	}
	if slices.Sort(is); !slices.Equal(is, want) {
		c.t.Fatalf("%s has %v, want %v", node, is, want)
	}
}

// free is the number of blocks that can be given out.
func (c *hearing) free() int64 {
	ranges, _ := PoolOf(c.network)
	return c.ledger.taken.Free(ranges[0].Range)
}

// told fails unless the last Event has such a text.
func (c *hearing) told(text string) {
	c.t.Helper()
	for last := ""; ; {
		select {
		case last = <-c.events.Events:
		default:
			if !strings.Contains(last, text) {
				c.t.Fatalf("the last Event is %q", last)
			}
			return
		}
	}
}

func TestClaimWithoutEvidenceTakesNothing(t *testing.T) {
	c := newHearing(t, slices.Concat(objectstest.Answering("evil", "before"), objectstest.Answering("victim", "before"),
		[]client.Object{objectstest.Held("10.244.0.0/24", "victim"), objectstest.Held("10.244.1.0/24", "evil")})...)
	c.says("victim")
	c.says("evil", used("10.244.1.0/24"))
	c.says("evil", used("10.244.0.0/24"), used("10.244.1.0/24"), used("10.244.2.0/24"), used("10.244.128.0/17"))
	c.has("evil", "10.244.1.0/24")
	c.has("victim", "10.244.0.0/24")
	c.told("10.244.0.0/24")
	if free := c.free(); free != 255 {
		t.Errorf("%d of 256 blocks can be given out: the liar may keep one from others, and no more", free)
	}
	c.says("evil", used("10.244.1.0/24"))
	if free := c.free(); free != 256 {
		t.Errorf("%d of 256 blocks can be given out after it says so no more", free)
	}
}

func TestRollCallProvesNoMoreThanANodeMayHold(t *testing.T) {
	c := newHearing(t, append(objectstest.Answering("evil", "before"), objectstest.Held("10.244.1.0/24", "evil"))...)
	c.says("evil", used("10.244.128.0/17"), used("10.244.2.0/25"), used("10.244.3.0/24"), used("10.244.4.0/24"), used("10.244.5.0/24"))
	c.has("evil", "10.244.1.0/24", "10.244.3.0/24")
}

func TestRollCallProvesNoMoreThanANodeMayKeepFromOthers(t *testing.T) {
	objects := objectstest.Answering("evil", "before")
	for _, cidr := range []string{"10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"} {
		resting := objectstest.Held(cidr, "evil")
		resting.Spec.State = podnetv1alpha1.SubnetReleased
		objects = append(objects, resting)
	}
	c := newHearing(t, objects...)
	c.says("evil", used("10.244.4.0/24"), used("10.244.5.0/24"))
	c.has("evil", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", "10.244.4.0/24")
}

func TestRollCallProvesNothingBeforeAllHaveAnswered(t *testing.T) {
	c := newHearing(t, slices.Concat(objectstest.Answering("a", "before"), objectstest.Answering("b", "before"), objectstest.Answering("c", "before"))...)
	if !c.says("a", used("10.244.7.0/24"), used("10.244.8.0/24")) {
		t.Error("b has not answered yet, and might name it too")
	}
	c.has("a")
	c.says("b", used("10.244.7.0/24"))
	c.says("c")
	c.clock.SetTime(c.clock.Now().Add(PendingInterval))
	for _, node := range []string{"a", "b", "a"} {
		if c.hears(node) {
			t.Error("all have answered")
		}
	}
	c.has("a", "10.244.8.0/24")
	c.has("b")

	// It is asked again when one of the two has gone.
	for _, o := range objectstest.Answering("b", "")[:1] {
		if err := c.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	c.Forget("b")
	c.says("c")
	c.says("a", used("10.244.7.0/24"), used("10.244.8.0/24"))
	c.has("a", "10.244.7.0/24", "10.244.8.0/24")
}

func TestABlockThatWasSeenToVanishIsItsNodesAndNobodyElses(t *testing.T) {
	lost := objectstest.Held("10.244.7.0/24", "a")
	c := newHearing(t, append(slices.Concat(objectstest.Answering("a", "before"), objectstest.Answering("evil", "before")), objectstest.Held("10.244.1.0/24", "a"), objectstest.Held("10.244.2.0/24", "a"))...)
	c.RollCall()
	c.ledger.OnAdd(lost, true)
	c.ledger.OnDelete(lost)
	c.says("evil", used("10.244.7.0/24"))
	if c.says("a", used("10.244.7.0/24")) {
		t.Error("it is known whose it was")
	}
	c.hears("evil")
	c.has("evil")
	c.has("a", "10.244.1.0/24", "10.244.2.0/24", "10.244.7.0/24")
}

func TestABlockIsMadeAgainThoughTheLedgerHasNotHeardThatItIsGone(t *testing.T) {
	c := newHearing(t, objectstest.Answering("a", "before")...)
	c.ledger.add("10.244.7.0-24", "10.244.7.0/24")
	c.says("a", used("10.244.7.0/24"))
	c.has("a", "10.244.7.0/24")
}

func TestNodeThatCameBackTakesBackWhatItsPodsUse(t *testing.T) {
	for _, state := range []podnetv1alpha1.SubnetState{podnetv1alpha1.SubnetActive, podnetv1alpha1.SubnetDraining, podnetv1alpha1.SubnetReleased} {
		t.Run(string(state), func(t *testing.T) {
			former, idle := objectstest.Held("10.244.7.0/24", "a"), objectstest.Held("10.244.8.0/24", "a")
			for _, s := range []*podnetv1alpha1.NodeSubnet{former, idle} {
				s.Spec.NodeUID, s.Spec.State = "former", state
				s.Annotations = map[string]string{podnetv1alpha1.ReleasedAtAnnotation: "2020-01-01T00:00:00Z"}
			}
			c := newHearing(t, slices.Concat(objectstest.Answering("a", "before"), objectstest.Answering("b", "before"), []client.Object{former, idle})...)
			c.says("b", used("10.244.7.0/24"))
			c.says("a", used("10.244.7.0/24"), podnetv1alpha1.BlockStatus{CIDR: "10.244.8.0/24", State: podnetv1alpha1.SubnetActive})
			for cidr, uid := range map[string]types.UID{"10.244.7.0/24": "uid-of-a", "10.244.8.0/24": "former"} {
				s := &podnetv1alpha1.NodeSubnet{}
				if err := c.Client.Get(t.Context(), client.ObjectKey{Name: objectstest.Subnet(cidr, "").Name}, s); err != nil {
					t.Fatal(err)
				}
				if s.Spec.Node != "a" || s.Spec.NodeUID != uid {
					t.Errorf("%s is that of %s %s", cidr, s.Spec.Node, s.Spec.NodeUID)
				}
				if _, released := s.Annotations[podnetv1alpha1.ReleasedAtAnnotation]; s.Spec.NodeUID == "uid-of-a" &&
					(s.Spec.State == podnetv1alpha1.SubnetReleased || state == podnetv1alpha1.SubnetReleased && released) {
					t.Errorf("%s rests: %+v", cidr, s)
				}
			}
		})
	}
}
