package controllers

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// What a history asks of the network.
const (
	zoneLabel = "zone"
	// restSeconds is the quarantine, and idleSeconds how long an empty block stays.
	restSeconds = 120
	idleSeconds = 60
)

// blockBits is the length of blocks of each family, and so of four and five pods.
var blockBits = [2]int{29, 125}

// The ranges that come and go. All blocks of a family are of one size, so that it
// does not matter from which range a node has one.
var rangesOf = [2][]string{
	{"10.0.0.0/26", "10.0.1.0/27", "10.0.2.0/27"},
	{"fd00:0:0:1::/122", "fd00:0:0:2::/123"},
}

// broken is a property that does not hold.
type broken struct{ property, what string }

// world is a cluster of which everything happens in one goroutine.
type world struct {
	dir   string
	clock *testingclock.FakeClock
	api   *apiServer

	managers     []*simManager
	managerCount int
	// most is how many managers there were at the same time.
	most     int
	machines []*machine
	serial   int
	// nested says that something happens within something else.
	nested bool
	// calm says that nothing fails and nothing happens meanwhile.
	calm bool
	rand *rand.Rand

	lines []string

	// seen is how much of the log of NodeSubnets was checked, and blocks what is
	// known of each that there is, by name.
	seen   int
	blocks map[string]*subnetState
	// unanswered are blocks that were lost for good.
	unanswered map[unanswered]bool
	// forced are the blocks whose objects were taken by force, by name.
	forced map[string]*taking
	// byHand says that people make NodeSubnets, and handMade are the prefixes of those.
	byHand   bool
	handMade []netip.Prefix
}

// subnetState is what happened to a NodeSubnet.
type subnetState struct {
	released time.Time
	is       *podnetv1alpha1.NodeSubnet
	// again says that it was made after the one of its name was taken by force.
	again bool
}

// taking is the block of a machine whose object was taken by force.
type taking struct {
	of *machine
	// excused says that the agent could not say, for a time, that it uses the block.
	excused bool
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func newWorld(dir string) *world {
	// Long ago: agents wait for the second family's block of a node that is new by their own clock.
	clock := testingclock.NewFakeClock(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
	return &world{
		dir: dir, clock: clock, api: newAPIServer(clock), rand: rand.New(rand.NewPCG(0, 0)),
		blocks: map[string]*subnetState{}, forced: map[string]*taking{}, unanswered: map[unanswered]bool{},
	}
}

func (w *world) note(format string, args ...any) {
	w.lines = append(w.lines, w.clock.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

func (w *world) fail(property, format string, args ...any) {
	panic(broken{property, fmt.Sprintf(format, args...)})
}

// must ends a history that cannot go on for a reason of the test's own.
func (w *world) must(err error) {
	if err != nil {
		w.fail("the test is right", "%v", err)
	}
}

func (w *world) makeNetwork(ranges []podnetv1alpha1.Range, limits podnetv1alpha1.NodeBlocks) {
	w.must(w.api.create(&podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec: podnetv1alpha1.PodNetworkSpec{
			Ranges: ranges, NodeBlocks: limits, BlockQuarantineSeconds: ptr.To(int32(restSeconds)),
			Attachment: podnetv1alpha1.PointToPoint, RouteMode: podnetv1alpha1.ModeOverlay,
			Overlay: podnetv1alpha1.Overlay{Encapsulation: podnetv1alpha1.EncapsulationVXLAN, VNI: 1, Port: 4789},
		},
	}))
}

func rangeOf(cidr, zone string) podnetv1alpha1.Range {
	p := netip.MustParsePrefix(cidr)
	r := podnetv1alpha1.Range{CIDR: cidr, NodePrefixLength: int32(blockBits[familyOf(p)]), State: podnetv1alpha1.RangeActive}
	if zone != "" {
		r.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{zoneLabel: zone}}
	}
	return r
}

// changeNetwork is a user's edit of the PodNetwork.
func (w *world) changeNetwork(change func(*podnetv1alpha1.PodNetworkSpec)) {
	n := w.api.network().DeepCopy()
	change(&n.Spec)
	w.must(w.api.update(n))
}

// meanwhile is called while a manager waits for an answer of the API.
func (w *world) meanwhile(m *simManager) {
	if w.calm {
		m.latest()
		return
	}
	if w.rand.IntN(3) == 0 {
		m.progress(w.rand)
	}
	if w.nested || w.rand.IntN(6) > 0 {
		return
	}
	w.nested = true
	defer func() { w.nested = false }()
	w.step(w.rand)
}

func (w *world) alive() []*simManager {
	w.managers = slices.DeleteFunc(w.managers, func(m *simManager) bool { return m.dead })
	return slices.Clone(w.managers)
}

// running are the machines that are not off.
func (w *world) running() []*machine {
	return slices.DeleteFunc(slices.Clone(w.machines), func(m *machine) bool { return m.off })
}

// nodes are the machines that have a Node.
func (w *world) nodes() []*machine {
	return slices.DeleteFunc(w.running(), func(m *machine) bool { return !m.orphaned.IsZero() })
}

func (w *world) machineOf(name string) *machine {
	for _, m := range w.nodes() {
		if m.name == name {
			return m
		}
	}
	return nil
}

// formerOf returns the machine of that name that runs on without a Node.
func (w *world) formerOf(name string) *machine {
	for _, m := range w.running() {
		if m.name == name && !m.orphaned.IsZero() {
			return m
		}
	}
	return nil
}

// pass lets time go by, in which everybody does what they do by themselves.
func (w *world) pass(d time.Duration) {
	for end := w.clock.Now().Add(d); w.clock.Now().Before(end); {
		next := w.clock.Now().Add(seconds(5))
		if next.After(end) {
			next = end
		}
		for _, m := range w.running() {
			// Nobody answers longer for the pods of a machine that has no Node.
			if deadline := m.orphaned.Add(seconds(restSeconds)); !m.orphaned.IsZero() && next.After(deadline) {
				next = deadline
			}
		}
		w.clock.SetTime(next)
		for _, m := range w.running() {
			if !m.orphaned.IsZero() && !next.Before(m.orphaned.Add(seconds(restSeconds))) {
				w.note("%s ends for good", m)
				m.turnOff()
			}
		}
		w.collect()
		for _, m := range w.alive() {
			m.cache.catchUp(next.Add(-mostLag))
			m.tellLedger(m.cache.at[subnetKind], false)
			m.reconcile(networkController, podnetv1alpha1.DefaultPodNetwork)
			w.agentsKeepUp()
		}
		w.agentsKeepUp()
		w.check()
	}
}

// agentsKeepUp lets the agents do what they do within a bounded time.
func (w *world) agentsKeepUp() {
	for _, m := range w.running() {
		if !m.up {
			continue
		}
		if m.online && m.watches {
			before := m.cache.at
			m.cache.catchUp(w.clock.Now().Add(-mostLag))
			if m.cache.at != before {
				m.passed = time.Time{}
			}
		}
		if w.clock.Since(m.passed) >= passInterval {
			m.pass(w.rand)
		}
		m.write()
	}
}

// collect is Kubernetes' garbage collector, and what tells that nodes are not ready.
func (w *world) collect() {
	for _, name := range sortedKeys(w.api.now[reportKind]) {
		nn := w.api.report(name)
		node := w.api.node(name)
		if node == nil || !objects.OwnedBy(nn, node) {
			w.must(w.api.delete(nn))
		}
	}
	for _, name := range sortedKeys(w.api.now[nodeKind]) {
		node := w.api.node(name)
		m := w.machineOf(name)
		is := corev1.ConditionUnknown
		if m != nil && m.online {
			is = corev1.ConditionTrue
		}
		if objects.Ready(node) == (is == corev1.ConditionTrue) {
			continue
		}
		node = node.DeepCopy()
		i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
		node.Status.Conditions[i].Status = is
		w.must(w.api.updateStatus(node))
	}
}

// join makes a Node for a machine.
func (w *world) join(m *machine) {
	m.orphaned = time.Time{}
	w.must(w.api.create(m.object()))
	w.note("%s joins with %v", m, m.labels)
}

// leave deletes a machine's Node. The machine may not be told, and then runs on.
func (w *world) leave(m *machine) {
	w.must(w.api.delete(w.api.node(m.name)))
	m.orphaned = w.clock.Now()
	for _, t := range w.forced {
		t.excused = t.excused || t.of == m
	}
	w.note("the Node of %s is deleted", m)
}

// cutOff says that a machine cannot answer a roll call for a while.
func (w *world) cutOff(m *machine) {
	for _, t := range w.forced {
		t.excused = t.excused || t.of == m
	}
}

// takeByForce removes a NodeSubnet although it has a finalizer.
func (w *world) takeByForce(s *podnetv1alpha1.NodeSubnet) {
	w.checkChanges()
	w.forced[s.Name] = &taking{excused: true}
	for _, m := range w.running() {
		if m.name == s.Spec.Node {
			node, nn := w.api.node(m.name), w.api.report(m.name)
			answers := m.up && m.online && node != nil && objects.Ready(node) && nn != nil && objects.OwnedBy(nn, node) && nn.Status.RollCall != "" &&
				s.Spec.State != podnetv1alpha1.SubnetReleased
			w.forced[s.Name] = &taking{of: m, excused: !answers}
		}
	}
	bare := s.DeepCopy()
	bare.Finalizers = nil
	w.must(w.api.update(bare))
	if w.api.subnet(s.Name) != nil {
		w.must(w.api.delete(bare))
	}
	w.note("somebody takes NodeSubnet %s by force", s.Name)
}

// makeByHand makes a NodeSubnet for a block that nobody uses.
func (w *world) makeByHand(r *rand.Rand) {
	ranges, _ := allocation.PoolOf(w.api.network())
	if len(ranges) == 0 {
		return
	}
	from := ranges[r.IntN(len(ranges))]
	blocks := blocksOfRange(from.Range)
	block := blocks[r.IntN(len(blocks))]
	name, err := ipam.BlockName(block)
	w.must(err)
	if w.usedByAnybody(block) || w.api.subnet(name) != nil {
		return
	}
	node := fmt.Sprintf("n%d", r.IntN(maxNodes))
	w.must(w.api.create(&podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: podnetv1alpha1.NodeSubnetSpec{
			Network: podnetv1alpha1.DefaultPodNetwork, Node: node, CIDR: block.String(), State: podnetv1alpha1.SubnetActive,
		},
	}))
	w.handMade = append(w.handMade, block)
	w.note("somebody makes NodeSubnet %s for %s", name, node)
}

func (w *world) usedByAnybody(block netip.Prefix) bool {
	for _, m := range w.running() {
		for b := range m.book.UsageByBlock(nil) {
			if b.Overlaps(block) {
				return true
			}
		}
	}
	return false
}

// blocksOfRange lists all blocks of a small range.
func blocksOfRange(r ipam.Range) []netip.Prefix {
	taken, out := &ipam.Taken{}, []netip.Prefix(nil)
	for {
		block, found := taken.Next(r)
		if !found {
			return out
		}
		taken.Take(block)
		out = append(out, block)
	}
}

// holdingsByNode are the names of the blocks that nodes hold of a family, those
// that rest left out.
func (w *world) holdingsByNode(family int) map[string][]string {
	out := map[string][]string{}
	for _, s := range w.api.subnets() {
		if node := w.api.node(s.Spec.Node); node == nil || node.UID != s.Spec.NodeUID || s.Spec.State == podnetv1alpha1.SubnetReleased {
			continue
		}
		if familyOf(netip.MustParsePrefix(s.Spec.CIDR)) == family {
			out[s.Spec.Node] = append(out[s.Spec.Node], s.Name)
		}
	}
	return out
}

func byName(a, b *machine) int { return cmp.Compare(a.name, b.name) }
