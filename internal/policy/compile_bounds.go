package policy

import (
	"maps"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// What the NetworkPolicies of one namespace may cost all pods of a node. They are written by
// whoever works in the namespace, and a change of a large table holds up every other one.
// 30,000 blocks take nft half a second, and 300,000 elements three.
const (
	// MostBlocks is how many blocks, exceptions included, the NetworkPolicies of a namespace
	// name at most.
	MostBlocks = 30_000
	// MostElements is how many elements of a node's table tell the peers of a namespace's
	// NetworkPolicies apart at most, in one direction: for each combination of peers that there
	// is, one for each pod of the node that policies are about, and one for each port.
	MostElements = 300_000
)

// withinBlocks returns the policies of a namespace, sorted by name. Those that would have it
// name more than MostBlocks isolate as before, and allow nothing; their names are returned.
func withinBlocks(policies []model.NetworkPolicy) (kept []model.NetworkPolicy, left []string) {
	blocks := 0
	for _, p := range policies {
		n := 0
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, peer := range r.Peers {
				if peer.Block != nil {
					n += 1 + len(peer.Block.Except)
				}
			}
		}
		if blocks+n > MostBlocks {
			left = append(left, p.Namespace+"/"+p.Name)
			var types []model.PolicyType
			for _, d := range directions {
				if isolates(&p, d) {
					types = append(types, directionNames[d])
				}
			}
			p.Types, p.Ingress, p.Egress = types, nil, nil
		} else {
			blocks += n
		}
		kept = append(kept, p)
	}
	return kept, left
}

// namespaceCost is what the NetworkPolicies of a namespace say of one direction.
type namespaceCost struct {
	// ports are those of the rules about each of the peers, and classes what is allowed.
	ports   map[int]int
	classes map[*class]bool
}

// close lets no rule of a namespace allow anything that would cost more than MostElements,
// and returns the names of these namespaces.
func (b *build) close(d *decision) []string {
	isolated := 0
	costs := map[string]*namespaceCost{}
	for _, l := range b.local {
		c := l.classes[d.direction]
		if c == nil {
			continue
		}
		isolated++
		of := costs[l.Namespace]
		if of == nil {
			of = &namespaceCost{map[int]int{}, map[*class]bool{}}
			costs[l.Namespace] = of
		}
		if of.classes[c] {
			continue
		}
		of.classes[c] = true
		for _, r := range c.rules {
			of.ports[r.peer] += r.ports.count()
		}
	}
	closed := map[string]bool{}
	for name, of := range costs {
		if b.exceeds(d, of, isolated) {
			closed[name] = true
		}
	}
	if len(closed) > 0 {
		b.shut(d, closed)
	}
	return slices.Sorted(maps.Keys(closed))
}

// shut takes their rules from the pods of namespaces, and the peers that nobody else names from
// the decision.
func (b *build) shut(d *decision, closed map[string]bool) {
	without := map[*class]*class{}
	d.classes = nil
	used := make([]bool, len(d.peers))
	for _, l := range b.local {
		c := l.classes[d.direction]
		if c == nil {
			continue
		}
		if closed[l.Namespace] {
			if without[c] == nil {
				without[c] = &class{isolated: c.isolated, tiers: c.tiers, granted: map[*identity]ports{}}
			}
			c = without[c]
			l.classes[d.direction] = c
		}
		if slices.Contains(d.classes, c) {
			continue
		}
		d.classes = append(d.classes, c)
		for _, r := range c.rules {
			used[r.peer] = true
		}
		for _, r := range slices.Concat(c.tiers[:]...) {
			used[r.peer] = true
		}
	}
	for i, is := range used {
		if !is {
			d.peers[i] = &peers{key: d.peers[i].key}
		}
	}
}

// exceeds reports whether the rules of a namespace cost more than MostElements where so many
// pods are isolated. It looks closely only at those that could.
func (b *build) exceeds(d *decision, of *namespaceCost, isolated int) bool {
	var own []*peers
	var portsOf []int
	ranges, selecting, allOf := 0, 0, 0
	for _, i := range slices.Sorted(maps.Keys(of.ports)) {
		own, portsOf = append(own, d.peers[i]), append(portsOf, of.ports[i])
		allOf += of.ports[i]
		if d.peers[i].blocks != nil {
			ranges += len(d.peers[i].blocks.Ranges())
		}
		if d.peers[i].selects() {
			selecting++
		}
	}
	const few = 16 // so that the shift is no overflow
	most := 2*ranges + 1 + 1<<min(selecting, few)
	if selecting <= few && most*(isolated+allOf) <= MostElements {
		return false
	}
	combinations := map[string]bits{}
	for _, s := range slices.Concat(segmentsOf(own, true), segmentsOf(own, false)) {
		combinations[s.peers.key()] = s.peers
	}
	for _, who := range b.selected(own) {
		combinations[who.key()] = who
	}
	cost := 0
	for _, who := range combinations {
		cost += isolated
		for i, n := range portsOf {
			if who.has(i) {
				cost += n
			}
		}
	}
	return cost > MostElements
}

// selected returns the peers that each group of pods is one of, of those that are one.
func (b *build) selected(all []*peers) map[*podGroup]bits {
	selected := map[*podGroup]bits{}
	for i, p := range all {
		p.members(b.Index, func(g *podGroup) {
			if selected[g] == nil {
				selected[g] = newBits(len(all))
			}
			selected[g].set(i)
		})
	}
	return selected
}

// count is the number of ranges and names of ports.
func (s portSpec) count() int {
	n := len(s.names)
	for _, ranges := range s.fixed.of {
		n += len(ranges)
	}
	return n
}
