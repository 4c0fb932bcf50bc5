package controllers

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// The properties.
const (
	oneAddressOnePod  = "no two pods have one address"
	oneBlockOneObject = "no two NodeSubnets overlap"
	usedBlockIsHeld   = "the block of a pod is its node's"
	usedBlockStays    = "a block with pods is not released"
	releasedRests     = "a released block rests"
	noneByLies        = "a liar holds no more than a node may"
	backAtHome        = "a node that came back has the blocks of its pods"
	limitHolds        = "a node gets no more blocks than it may have"
	removedIsEmpty    = "a range that can be removed is empty"
	settles           = "everything settles"
	everyNodeServed   = "every node and pod has what the ranges have for it"
	nothingLost       = "nothing is lost"
	drains            = "what is not needed goes back"
	oneState          = "any order ends in one state"
)

// check tries all that has to hold at any moment.
func (w *world) check() {
	w.checkChanges()
	w.checkLiars()
	holders := map[netip.Addr]string{}
	for _, m := range w.running() {
		for _, p := range m.pods {
			if p.state == podLive {
				w.checkPod(m, p, holders)
			}
		}
	}
}

// checkChanges looks at what became of NodeSubnets since it was called last.
func (w *world) checkChanges() {
	log := w.api.log[subnetKind]
	for ; w.seen < len(log); w.seen++ {
		w.checkChange(log[w.seen])
	}
}

// checkChange follows what became of a NodeSubnet.
func (w *world) checkChange(v version) {
	before := w.blocks[v.name]
	taken := w.forced[v.name]
	is, _ := v.object.(*podnetv1alpha1.NodeSubnet)
	switch {
	case is == nil:
		delete(w.blocks, v.name)
		if taken == nil && before.released.IsZero() {
			w.fail(releasedRests, "NodeSubnet %s went without having been released", v.name)
		}
		if rested := v.at.Sub(before.released); taken == nil && rested < seconds(restSeconds) {
			w.fail(releasedRests, "NodeSubnet %s went after %s", v.name, rested)
		}
	case before == nil:
		w.blocks[v.name] = &subnetState{is: is, again: taken != nil}
		for name, other := range w.blocks {
			if name != v.name && cidrOf(other.is).Overlaps(cidrOf(is)) {
				w.fail(oneBlockOneObject, "%s and %s", name, v.name)
			}
		}
		if taken != nil {
			w.checkRetaken(taken, is)
			delete(w.forced, v.name)
		}
	default:
		before.is = is
		if is.Spec.State != podnetv1alpha1.SubnetReleased {
			before.released = time.Time{} // A node that came back has taken it back.
		}
	}
	if is != nil && is.Spec.State == podnetv1alpha1.SubnetReleased && w.blocks[v.name].released.IsZero() {
		w.blocks[v.name].released = v.at
		m := w.machineOf(is.Spec.Node)
		if m == nil || w.api.node(m.name).UID != is.Spec.NodeUID {
			return
		}
		for _, p := range m.pods {
			if i := slices.Index(p.model.Blocks, cidrOf(is)); p.state == podLive && i >= 0 && !p.lost[i] {
				w.fail(usedBlockStays, "%s was released while pod %s of %s uses it", is.Name, p.id, m)
			}
		}
	}
}

func cidrOf(s *podnetv1alpha1.NodeSubnet) netip.Prefix { return netip.MustParsePrefix(s.Spec.CIDR) }

// checkRetaken looks at who got a block whose object was taken by force.
func (w *world) checkRetaken(taken *taking, is *podnetv1alpha1.NodeSubnet) {
	if taken.of == nil || taken.of.off || taken.of == w.machineOf(is.Spec.Node) {
		return
	}
	for _, p := range taken.of.pods {
		if i := slices.Index(p.model.Blocks, cidrOf(is)); i >= 0 && (p.state == podLive || p.state == podRecorded) {
			if !taken.excused && p.state == podLive {
				w.fail(usedBlockIsHeld, "%s went to %s while %s, which could say so, has pod %s there", is.Name, is.Spec.Node, taken.of, p.id)
			}
			p.lost[i] = true
		}
	}
	if taken.excused {
		w.unanswered[unanswered{taken.of.serial, cidrOf(is)}] = true
	}
}

// unanswered is a block of which a machine could not say that it uses it, when
// its object was gone and another node got it.
type unanswered struct {
	machine int
	block   netip.Prefix
}

// checkPod looks at the addresses of a pod that lives.
func (w *world) checkPod(m *machine, p *pod, holders map[netip.Addr]string) {
	for i, addr := range p.model.Addrs {
		block := p.model.Blocks[i]
		if p.lost[i] || w.unanswered[unanswered{m.serial, block}] {
			continue
		}
		me := fmt.Sprintf("pod %s of %s", p.id, m)
		if other := holders[addr]; other != "" {
			w.fail(oneAddressOnePod, "%s and %s have %s", other, me, addr)
		}
		holders[addr] = me
		name, err := ipam.BlockName(block)
		w.must(err)
		s := w.api.subnet(name)
		switch {
		case s != nil && s.Spec.Node == m.name:
		case s != nil:
			w.fail(usedBlockIsHeld, "%s has %s of %s, which is %s's", me, addr, name, s.Spec.Node)
		case w.forced[name] == nil:
			w.fail(usedBlockIsHeld, "%s has %s of %s, which is nobody's", me, addr, name)
		case w.forced[name].of != m:
			// Its object rested already.
			p.lost[i] = true
		}
	}
}

// checkLiars counts what those hold whose agents lie: blocks of draining ranges do not
// keep a node from getting as many others.
func (w *world) checkLiars() {
	for _, m := range w.machines {
		if m.off || !m.lies {
			continue
		}
		for family := range 2 {
			if held := w.holdingsByNode(family)[m.name]; len(held) > 2*mostBlocks {
				w.fail(noneByLies, "%s holds %v", m, held)
			}
		}
	}
}

// checkCreation is called before a manager creates a NodeSubnet.
func (w *world) checkCreation(m *simManager, s *podnetv1alpha1.NodeSubnet) {
	block := cidrOf(s)
	m.created = append(m.created, s)
	for i, v := range slices.Backward(w.api.log[reportKind]) {
		report, _ := v.object.(*podnetv1alpha1.NodeNetwork)
		if v.name != s.Spec.Node {
			continue
		}
		if _, claimed := objects.Block(report, s.Spec.CIDR); claimed {
			return // The node has it already.
		}
		if i < m.began[reportKind] {
			break
		}
	}
	// It may have seen any of these.
	var limit int32
	active := func(netip.Prefix) bool { return true }
	stays := active // It is in a range that is active, and for the node.
	for _, v := range w.api.log[networkKind][max(m.began[networkKind]-1, 0):] {
		spec := v.object.(*podnetv1alpha1.PodNetwork).Spec
		limit = max(limit, spec.NodeBlocks.Max)
		wasActive, stayed := active, stays
		in := func(p netip.Prefix, also func(podnetv1alpha1.Range) bool) bool {
			return slices.ContainsFunc(spec.Ranges, func(r podnetv1alpha1.Range) bool {
				return r.State == podnetv1alpha1.RangeActive && netip.MustParsePrefix(r.CIDR).Overlaps(p) && also(r)
			})
		}
		active = func(p netip.Prefix) bool {
			return wasActive(p) && in(p, func(podnetv1alpha1.Range) bool { return true })
		}
		stays = func(p netip.Prefix) bool {
			return stayed(p) && in(p, func(r podnetv1alpha1.Range) bool { return !w.mayHaveSeenLeft(m, s.Spec.Node, r) })
		}
	}
	// Blocks on its account: those that it holds, all, and those of them that rest.
	var held, kept, resting int32
	for _, other := range append(slices.Collect(maps.Values(m.seenSubnets)), m.created...) {
		is := w.api.subnet(other.Name)
		if other.Spec.Node != s.Spec.Node || other.Spec.NodeUID == "" || cidrOf(other).Addr().Is4() != block.Addr().Is4() || !active(cidrOf(other)) ||
			other != s && (is == nil || is.UID != other.UID) {
			continue
		}
		kept++
		switch {
		case other == s || other.Spec.NodeUID == s.Spec.NodeUID && is.Spec.State != podnetv1alpha1.SubnetReleased && stays(cidrOf(other)):
			held++
		case is.Spec.State == podnetv1alpha1.SubnetReleased && other.Spec.State == podnetv1alpha1.SubnetReleased:
			resting++
		}
	}
	if held > limit {
		w.fail(limitHolds, "manager %d gives %s to %s as block %d of at most %d", m.id, s.Name, s.Spec.Node, held, limit)
	}
	if kept > 2*limit && resting > 0 {
		w.fail(limitHolds, "manager %d gives %s to %s as block %d of at most %d that it keeps from others, of which %d rest",
			m.id, s.Name, s.Spec.Node, kept, 2*limit, resting)
	}
}

// mayHaveSeenLeft reports whether a range was not for a node by labels that a manager may have seen.
func (w *world) mayHaveSeenLeft(m *simManager, name string, r podnetv1alpha1.Range) bool {
	if r.NodeSelector == nil {
		return false
	}
	for i, v := range slices.Backward(w.api.log[nodeKind]) {
		if v.name != name {
			continue
		}
		if node, is := v.object.(*corev1.Node); is && node.Labels[zoneLabel] != r.NodeSelector.MatchLabels[zoneLabel] {
			return true
		}
		if i < m.began[nodeKind] {
			break
		}
	}
	return false
}

// checkRemoval is called before a user removes a range that the API lets go. What
// people make, or take by force so that it is made again, is not foreseen.
func (w *world) checkRemoval(cidr string) {
	w.checkChanges()
	for _, s := range w.api.subnets() {
		if cidrOf(s).Overlaps(netip.MustParsePrefix(cidr)) && !slices.Contains(w.handMade, cidrOf(s)) && !w.blocks[s.Name].again {
			w.fail(removedIsEmpty, "%s is said to be empty, and NodeSubnet %s of %s is there", cidr, s.Name, s.Spec.Node)
		}
	}
}

// final are the facts about a cluster that has settled, computed in another way
// than podnet does.
type final struct {
	*world
	network *podnetv1alpha1.PodNetwork
}

// eligible are the ranges from which a machine may get blocks.
func (f final) eligible(m *machine, family int) []podnetv1alpha1.Range {
	var out []podnetv1alpha1.Range
	for _, r := range f.network.Spec.Ranges {
		selects := r.NodeSelector == nil || r.NodeSelector.MatchLabels[zoneLabel] == m.labels[zoneLabel]
		if familyOf(netip.MustParsePrefix(r.CIDR)) == family && r.State == podnetv1alpha1.RangeActive && selects {
			out = append(out, r)
		}
	}
	return out
}

// free counts the blocks of ranges of which nothing is taken.
func (f final) free(ranges ...podnetv1alpha1.Range) int64 {
	var n int64
	for _, r := range ranges {
		for _, block := range blocksOfRange(ipam.Range{CIDR: netip.MustParsePrefix(r.CIDR), BlockBits: int(r.NodePrefixLength)}) {
			if !slices.ContainsFunc(f.api.subnets(), func(s *podnetv1alpha1.NodeSubnet) bool { return cidrOf(s).Overlaps(block) }) {
				n++
			}
		}
	}
	return n
}

// checkFinal tries all that has to hold once everything has settled.
func (w *world) checkFinal() {
	f := final{w, w.api.network()}
	for _, m := range w.nodes() {
		blocked := false
		for family := range 2 {
			blocked = f.checkHoldings(m, family) || blocked
		}
		for _, p := range m.pods {
			f.checkHome(m, p)
			if p.state != podLive && !blocked {
				w.fail(everyNodeServed, "pod %s of %s waits although its node could have an address for it", p.id, m)
			}
		}
	}
	f.checkSubnets()
	f.checkStatus()
}

// checkHome looks whether the blocks of a pod that lives are its node's, unless
// somebody took their objects by force.
func (f final) checkHome(m *machine, p *pod) {
	for i, block := range p.model.Blocks {
		name, err := ipam.BlockName(block)
		f.must(err)
		if p.state != podLive || p.lost[i] || f.unanswered[unanswered{m.serial, block}] || f.forced[name] != nil {
			continue
		}
		s := f.api.subnet(name)
		if s == nil || s.Spec.State == podnetv1alpha1.SubnetReleased || s.Spec.NodeUID != f.api.node(m.name).UID {
			f.fail(backAtHome, "pod %s of %s has an address of %s, which is not its node's as it is now", p.id, m, block)
		}
	}
}

// checkHoldings looks at what a node holds of a family, and reports whether it has no
// address for another pod for a reason.
func (f final) checkHoldings(m *machine, family int) (blocked bool) {
	usage := m.book.UsageByBlock(nil)
	eligible := f.eligible(m, family)
	var outside, leaving []netip.Prefix
	var room int64
	for _, name := range f.holdingsByNode(family)[m.name] {
		block := cidrOf(f.api.subnet(name))
		i := slices.IndexFunc(f.network.Spec.Ranges, func(r podnetv1alpha1.Range) bool { return netip.MustParsePrefix(r.CIDR).Overlaps(block) })
		switch {
		case i < 0:
		case f.network.Spec.Ranges[i].State == podnetv1alpha1.RangeDraining,
			// It is not for the node any more, by its labels, and another range is.
			len(eligible) > 0 && !slices.ContainsFunc(eligible, func(r podnetv1alpha1.Range) bool { return r.CIDR == f.network.Spec.Ranges[i].CIDR }):
			leaving = append(leaving, block)
		default:
			outside = append(outside, block)
			room += ipam.AddressCount(block) - usage[block]
		}
	}
	free := f.free(eligible...)
	if len(outside) == 0 && free > 0 {
		f.fail(everyNodeServed, "%s holds no block of family %d, and %d are free for it", m, family, free)
	}
	for _, block := range leaving {
		if usage[block] == 0 && (len(outside) > 0 || len(eligible) == 0) {
			f.fail(drains, "%s holds %s of a range that it leaves, and no pod uses it", m, block)
		}
	}
	reserve := int64(0)
	if asked := int64(*f.network.Spec.NodeBlocks.Reserve); asked > 0 && len(outside) > 0 {
		reserve = max(min(asked, ipam.AddressCount(outside[0])/2), 1)
	}
	for _, block := range outside {
		if rest := room - ipam.AddressCount(block); len(outside) > 1 && usage[block] == 0 && rest >= m.waiting()[family]+2*reserve {
			f.fail(drains, "%s does not need %s, of which no pod has an address: it has %d others", m, block, rest)
		}
	}
	return room == 0 && (free == 0 || int32(len(outside)) >= f.network.Spec.NodeBlocks.Max)
}

// checkSubnets looks for objects that nobody has.
func (f final) checkSubnets() {
	for _, s := range f.api.subnets() {
		m, node := f.machineOf(s.Spec.Node), f.api.node(s.Spec.Node)
		inUse := m != nil && m.book.UsageByBlock(nil)[cidrOf(s)] > 0
		switch {
		case s.Spec.NodeUID == "" && node == nil:
			// It waits for its node.
		case s.Spec.State == podnetv1alpha1.SubnetReleased && !inUse:
			f.fail(nothingLost, "NodeSubnet %s was released and never goes", s.Name)
		case s.Spec.State != podnetv1alpha1.SubnetReleased && (node == nil || node.UID != s.Spec.NodeUID):
			f.fail(nothingLost, "NodeSubnet %s is of a node that is gone: %s", s.Name, s.Spec.Node)
		}
	}
}

// checkStatus counts blocks and addresses again.
func (f final) checkStatus() {
	lost := false
	used := map[netip.Prefix]int64{}
	for _, m := range f.nodes() {
		var live int64
		for _, p := range m.pods {
			lost = lost || p.lost != [2]bool{}
			if p.state == podLive {
				live += int64(len(p.model.Addrs))
			}
		}
		var recorded int64
		for block, n := range m.book.UsageByBlock(nil) {
			used[block] += n
			recorded += n
			if b, _ := objects.Block(f.api.report(m.name), block.String()); ptr.Deref(b.AddressesUsed, 0) != n {
				f.fail(nothingLost, "%s reports %d addresses of %s and has %d", m, ptr.Deref(b.AddressesUsed, 0), block, n)
			}
		}
		if recorded != live {
			f.fail(nothingLost, "%s has records of %d addresses, and its pods have %d", m, recorded, live)
		}
	}
	for _, r := range f.network.Spec.Ranges {
		i := slices.IndexFunc(f.network.Status.Ranges, func(s podnetv1alpha1.RangeStatus) bool { return s.CIDR == r.CIDR })
		if i < 0 {
			f.fail(nothingLost, "the status does not name %s", r.CIDR)
		}
		var allocated, addresses int64
		for _, s := range f.api.subnets() {
			if netip.MustParsePrefix(r.CIDR).Overlaps(cidrOf(s)) {
				allocated++
				addresses += used[cidrOf(s)]
			}
		}
		is, free := f.network.Status.Ranges[i], f.free(r)
		if allocated+free != *is.BlocksTotal {
			f.fail(nothingLost, "%s: %d blocks taken and %d free are not %d", r.CIDR, allocated, free, *is.BlocksTotal)
		}
		if r.State == podnetv1alpha1.RangeDraining {
			free = 0
		}
		if *is.BlocksAllocated != allocated || *is.BlocksFree != free || *is.AddressesAllocated != addresses && !lost {
			f.fail(nothingLost, "%s: the status says %d blocks allocated, %d free, %d addresses used; they are %d, %d, %d",
				r.CIDR, *is.BlocksAllocated, *is.BlocksFree, *is.AddressesAllocated, allocated, free, addresses)
		}
	}
	want := map[string]metav1.ConditionStatus{
		podnetv1alpha1.ConditionAccepted: metav1.ConditionTrue, podnetv1alpha1.ConditionAllocating: metav1.ConditionTrue,
	}
	for condition, status := range want {
		if is := apimeta.FindStatusCondition(f.network.Status.Conditions, condition); is == nil || is.Status != status {
			f.fail(settles, "condition %s is %+v", condition, is)
		}
	}
}

// summary is what the order of what happened must not show in.
func (w *world) summary() string {
	var out strings.Builder
	f := final{w, w.api.network()}
	nodes := slices.SortedFunc(slices.Values(w.nodes()), byName)
	blocks := [2]map[string][]string{w.holdingsByNode(0), w.holdingsByNode(1)}
	for _, m := range nodes {
		live := 0
		for _, p := range m.pods {
			if p.state == podLive {
				live++
			}
		}
		condition := networkUnavailable(w.api.node(m.name))
		fmt.Fprintf(&out, "%s: %d and %d blocks, %d pods of %d, NetworkUnavailable %s %s\n",
			m.name, len(blocks[0][m.name]), len(blocks[1][m.name]), live, len(m.pods), condition.Status, condition.Reason)
	}
	for _, c := range slices.SortedFunc(slices.Values(f.network.Status.Conditions), func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) }) {
		// How much each range has left depends on which one a block came from.
		if c.Type != podnetv1alpha1.ConditionRunningLow {
			fmt.Fprintf(&out, "%s: %s %s\n", c.Type, c.Status, c.Reason)
		}
	}
	var allocated, addresses int64
	for _, r := range f.network.Status.Ranges {
		allocated += *r.BlocksAllocated
		addresses += *r.AddressesAllocated
	}
	fmt.Fprintf(&out, "%d of %d nodes ready, %d blocks, %d addresses\n", *f.network.Status.NodesReady, *f.network.Status.NodesTotal, allocated, addresses)
	return out.String()
}
