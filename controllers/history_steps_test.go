package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

const maxNodes = 5

// pick returns one of a list, and whether there is one.
func pick[T any](r *rand.Rand, list []T) (T, bool) {
	if len(list) == 0 {
		var none T
		return none, false
	}
	return list[r.IntN(len(list))], true
}

// steps are what can happen, and how often it does.
var steps = []struct {
	weight int
	// meanwhile says that it also happens while a manager waits for an answer.
	meanwhile bool
	do        func(*world, *rand.Rand)
}{
	{30, true, (*world).stepReconcile},
	{30, true, (*world).stepAgent},
	{40, true, (*world).stepPods},
	{4, true, (*world).stepNode},
	{4, true, (*world).stepNetwork},
	{4, true, (*world).stepSubnet},
	{3, true, (*world).stepFault},
	{5, false, (*world).stepTime},
}

func (w *world) step(r *rand.Rand) {
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := r.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			if !w.nested || s.meanwhile {
				s.do(w, r)
			}
			break
		}
	}
	w.check()
}

func (w *world) stepReconcile(r *rand.Rand) {
	m, ok := pick(r, w.alive())
	if !ok {
		w.startManager(r)
		return
	}
	m.progress(r)
	if r.IntN(12) == 0 {
		m.fault = &fault{after: r.IntN(3), done: r.IntN(2) == 0, crash: r.IntN(2) == 0}
	}
	for range 1 + r.IntN(6) {
		switch r.IntN(7) {
		case 0:
			m.reconcile(networkController, podnetv1alpha1.DefaultPodNetwork)
		case 1, 2, 3:
			m.reconcile(nodeController, fmt.Sprintf("n%d", r.IntN(maxNodes)))
		default:
			if name, ok := pick(r, sortedKeys(m.cache.objects[subnetKind])); ok {
				m.reconcile(subnetController, name)
			}
		}
	}
	m.fault = nil
}

func (w *world) stepAgent(r *rand.Rand) {
	m, ok := pick(r, w.running())
	if !ok {
		return
	}
	m.progress(r)
	if r.IntN(4) > 0 {
		m.pass(r)
	}
	if r.IntN(4) > 0 {
		m.write()
	}
}

func (w *world) stepPods(r *rand.Rand) {
	m, ok := pick(r, w.running())
	if !ok {
		return
	}
	switch n := r.IntN(12); {
	case n == 0:
		// More than a block has.
		for range 4 + r.IntN(8) {
			m.ask()
		}
	case n == 1:
		for _, p := range slices.Clone(m.pods) {
			if r.IntN(3) > 0 {
				m.remove(p)
			}
		}
	case n < 4:
		m.ask()
	case n < 6:
		if p, ok := pick(r, m.pods); ok {
			m.remove(p)
		}
	default:
		for range 1 + r.IntN(6) {
			if p, ok := pick(r, m.pods); ok && p.state != podLive {
				m.add(p)
			}
		}
	}
}

// mostPods is what a machine runs at most.
const mostPods = 14

func (m *machine) ask() {
	if m.lies || len(m.pods) >= mostPods {
		return
	}
	m.w.serial++
	m.pods = append(m.pods, &pod{id: fmt.Sprintf("c%d", m.w.serial)})
}

var families = [][2]bool{{true, true}, {true, true}, {true, false}, {false, true}}

func randomLabels(r *rand.Rand) map[string]string {
	if zone := []string{"", "a", "b"}[r.IntN(3)]; zone != "" {
		return map[string]string{zoneLabel: zone}
	}
	return nil
}

func (w *world) stepNode(r *rand.Rand) {
	name := fmt.Sprintf("n%d", r.IntN(maxNodes))
	m := w.machineOf(name)
	if m == nil {
		if former := w.formerOf(name); former != nil && r.IntN(2) == 0 {
			// Its kubelet makes the Node again.
			former.online = true
			w.join(former)
			return
		}
		// Agents know their blocks by the node's name: no two machines have one.
		for _, former := range w.running() {
			if former.name == name {
				former.turnOff()
			}
		}
		m = w.newMachine(name, randomLabels(r), families[r.IntN(len(families))])
		m.lies = r.IntN(6) == 0
		w.join(m)
		return
	}
	switch r.IntN(8) {
	case 0:
		w.leave(m)
		m.turnOff()
	case 1:
		// It runs on, and nobody reaches it.
		w.leave(m)
		m.online = false
	case 2:
		w.leave(m)
	case 3, 4:
		w.leave(m)
		w.join(m)
	default:
		m.labels = randomLabels(r)
		node := w.api.node(name).DeepCopy()
		node.Labels = m.labels
		w.must(w.api.update(node))
		w.note("%s has labels %v", m, m.labels)
	}
}

func (w *world) stepNetwork(r *rand.Rand) {
	family := r.IntN(2)
	cidr := rangesOf[family][r.IntN(len(rangesOf[family]))]
	zone := []string{"", "", "a", "b"}[r.IntN(4)]
	w.note("somebody changes the ranges (%s) or limits", cidr)
	w.changeNetwork(func(spec *podnetv1alpha1.PodNetworkSpec) {
		i := slices.IndexFunc(spec.Ranges, func(r podnetv1alpha1.Range) bool { return r.CIDR == cidr })
		switch {
		case r.IntN(4) == 0:
			spec.NodeBlocks = randomLimits(r)
		case i < 0:
			spec.Ranges = append(spec.Ranges, rangeOf(cidr, zone))
		case spec.Ranges[i].State == podnetv1alpha1.RangeActive:
			spec.Ranges[i].State = podnetv1alpha1.RangeDraining
		case r.IntN(3) == 0:
			spec.Ranges[i].State = podnetv1alpha1.RangeActive
		case len(spec.Ranges) > 1 && removable(w.api.network(), spec.Ranges[i]):
			w.checkRemoval(cidr)
			spec.Ranges = slices.Delete(spec.Ranges, i, i+1)
		}
	})
	w.note("the network is %s", describeNetwork(w.api.network()))
}

func describeNetwork(n *podnetv1alpha1.PodNetwork) string {
	out := fmt.Sprintf("max %d reserve %d", n.Spec.NodeBlocks.Max, *n.Spec.NodeBlocks.Reserve)
	for _, r := range n.Spec.Ranges {
		out += fmt.Sprintf(", %s %s", r.CIDR, r.State)
		if r.NodeSelector != nil {
			out += " zone " + r.NodeSelector.MatchLabels[zoneLabel]
		}
	}
	return out
}

// mostBlocks is how many blocks of a family a node may ever hold.
const mostBlocks = 4

func randomLimits(r *rand.Rand) podnetv1alpha1.NodeBlocks {
	return podnetv1alpha1.NodeBlocks{Max: int32(1 + r.IntN(mostBlocks)), Reserve: ptr.To(int32(r.IntN(4))), IdleSeconds: idleSeconds}
}

func (w *world) stepSubnet(r *rand.Rand) {
	if r.IntN(4) == 0 {
		if w.byHand {
			w.makeByHand(r)
		}
		return
	}
	s, ok := pick(r, w.api.subnets())
	if !ok {
		return
	}
	if r.IntN(3) > 0 {
		w.note("somebody deletes NodeSubnet %s", s.Name)
		if len(s.Finalizers) == 0 {
			w.takeByForce(s)
			return
		}
		w.must(w.api.delete(s))
		return
	}
	w.takeByForce(s)
}

func (w *world) stepFault(r *rand.Rand) {
	switch r.IntN(6) {
	case 0:
		if m, ok := pick(r, w.alive()); ok {
			m.dead = true
			w.note("manager %d ends", m.id)
		}
	case 1:
		if len(w.alive()) < 2 {
			w.startManager(r)
			w.most = max(w.most, len(w.alive()))
		}
	case 2, 3:
		if m, ok := pick(r, w.running()); ok && m.up {
			w.note("the agent of %s crashes", m)
			m.crash()
			w.cutOff(m)
		} else if ok {
			w.note("the agent of %s starts", m)
			m.startAgent()
		}
	case 4:
		if m, ok := pick(r, w.nodes()); ok {
			m.online = !m.online
			w.note("%s online: %t", m, m.online)
			w.cutOff(m)
		}
	case 5:
		if m, ok := pick(r, w.nodes()); ok && r.IntN(3) == 0 {
			w.note("%s boots", m)
			m.crash()
			m.boot()
			w.cutOff(m)
		}
	}
}

func (w *world) stepTime(r *rand.Rand) {
	// Mostly a moment, sometimes until something ends.
	w.pass(seconds([]int{1, 3, 10, 40, restSeconds + 5}[r.IntN(5)]))
}
