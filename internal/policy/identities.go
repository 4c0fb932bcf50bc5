package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// identity is what addresses have in common that policies cannot tell apart, as
// the other end of connections in one direction.
type identity struct {
	// name stands for the peers that the identity is one of, whatever others there are.
	name  string
	peers bits
	// numbers are those of named ports, for connections to it.
	numbers map[portName]uint16
	// pods are the attached pods that may have connections with it, by family, and
	// how: a verdict for each address.
	pods [2][]model.Element
	// verdicts lead to the identity, by family.
	verdicts [2][]string
}

// decision is what one direction came to.
type decision struct {
	direction
	peers []*peers
	// names are those of ports that rules use for the other end.
	names []portName
	// identities are by what tells them apart.
	identities map[string]*identity
	// peerElements lead from single addresses to identities, by family, and
	// blockElements from blocks.
	peerElements, blockElements [2][]model.Element
}

// compile decides on a direction.
func (b *build) compile(d direction) {
	out := &b.decided[d]
	*out = decision{direction: d, peers: b.classify(d), identities: map[string]*identity{}}
	if len(out.peers) == 0 {
		return
	}
	if d == egress {
		out.names = b.namesUsed()
	}
	segments := [2][]segment{segmentsOf(out.peers, true), segmentsOf(out.peers, false)}
	for i := range segments {
		b.placeBlocks(out, i, segments[i])
	}
	b.placePods(out, segments)
	b.placeNodes(out, segments)
}

// namesUsed returns the names of ports that egress rules use.
func (b *build) namesUsed() []portName {
	var names []portName
	for _, l := range b.local {
		if c := l.classes[egress]; c != nil {
			for _, r := range c.rules {
				names = append(names, r.ports.names...)
			}
		}
	}
	slices.SortFunc(names, comparePortNames)
	return slices.Compact(names)
}

// identify returns the identity of who is one of these peers and has these named
// ports. It makes it, with all that the attached pods allow it, where it is new.
func (b *build) identify(d *decision, who bits, named []model.NamedPort) *identity {
	if who.empty() {
		return nil
	}
	key := who.key()
	var numbers map[portName]uint16
	for _, n := range d.names {
		if number, ok := n.lookup(named); ok {
			if numbers == nil {
				numbers = map[portName]uint16{}
			}
			numbers[n] = number
			key += fmt.Sprintf("%d %q %d,", n.protocol, n.name, number)
		}
	}
	if found, ok := d.identities[key]; ok {
		return found
	}
	made := &identity{name: d.identityName(who, numbers), peers: who, numbers: numbers}
	for family := range families {
		made.verdicts[family] = []string{"goto " + chainOf(made, family)}
	}
	d.identities[key] = made
	for _, l := range b.local {
		if l.classes[d.direction] == nil {
			continue
		}
		allowed := l.classes[d.direction].grant(made)
		if allowed.empty() {
			continue
		}
		verdict := []string{"return"}
		if !allowed.all {
			name := nameOf("ports", allowed.key())
			b.portSets[name] = allowed
			verdict = []string{"goto " + name}
		}
		for _, a := range l.keys {
			i := model.FamilyIndex(a.Addr)
			made.pods[i] = append(made.pods[i], model.Element{Key: a.key, Value: verdict})
		}
	}
	return made
}

func (d *decision) identityName(who bits, numbers map[portName]uint16) string {
	var parts []string
	for i, p := range d.peers {
		if who.has(i) {
			parts = append(parts, p.key)
		}
	}
	slices.Sort(parts)
	for _, n := range d.names {
		if number, ok := numbers[n]; ok {
			parts = append(parts, fmt.Sprintf("%s %q is %d", protocols[n.protocol], n.name, number))
		}
	}
	return nameOf(words[d.direction].identity, strings.Join(parts, "\n\n"))
}

// grant returns the ports that a class and an identity have in common.
func (c *class) grant(i *identity) ports {
	if known, ok := c.granted[i]; ok {
		return known
	}
	var out ports
	for _, r := range c.rules {
		if !i.peers.has(r.peer) {
			continue
		}
		out = out.union(r.ports.fixed)
		for _, n := range r.ports.names {
			if number, ok := i.numbers[n]; ok {
				var one ports
				one.of[n.protocol] = []portRange{{number, number}}
				out = out.union(one)
			}
		}
	}
	c.granted[i] = out
	return out
}

// reaches says whether any attached pod allows the identity anything in a family.
func (i *identity) reaches(family int) bool { return i != nil && len(i.pods[family]) > 0 }

// placeBlocks leads from blocks of addresses to identities.
func (b *build) placeBlocks(d *decision, family int, segments []segment) {
	for _, s := range segments {
		who := b.identify(d, s.peers, nil)
		if !who.reaches(family) {
			continue
		}
		for _, p := range s.Prefixes() {
			d.blockElements[family] = append(d.blockElements[family], model.Element{Key: []string{prefixText(p)}, Value: who.verdicts[family]})
		}
	}
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// placePods leads from the addresses of pods to identities, unless their blocks do.
func (b *build) placePods(d *decision, segments [2][]segment) {
	selected := map[*podGroup]bits{}
	for i, p := range d.peers {
		p.members(b.Index, func(g *podGroup) {
			if selected[g] == nil {
				selected[g] = newBits(len(d.peers))
			}
			selected[g].set(i)
		})
	}
	place := func(p *indexedPod, addrs []addrKey, who bits) {
		for _, a := range addrs {
			family := model.FamilyIndex(a.Addr)
			blocks := peersAt(segments[family], a.Addr)
			id := b.identify(d, who.union(blocks), p.Ports)
			if !id.reaches(family) || id == b.identify(d, blocks, nil) {
				continue
			}
			d.peerElements[family] = append(d.peerElements[family], model.Element{Key: a.key, Value: id.verdicts[family]})
		}
	}
	for _, l := range b.local {
		if l.object != nil {
			place(l.object, l.keys, selected[l.object.group])
		}
	}
	for _, groups := range b.groups {
		for _, g := range groups {
			// Without names of ports to look up, blocks lead to the same.
			if selected[g] == nil && len(d.names) == 0 {
				continue
			}
			for _, p := range g.pods {
				if !b.attached[p] {
					place(p, b.unclaimed(p.addrs), selected[g])
				}
			}
		}
	}
}

// unclaimed leaves out the addresses that attached pods have.
func (b *build) unclaimed(addrs []addrKey) []addrKey {
	claimed := func(a addrKey) bool { return b.claimed[a.Addr] }
	if !slices.ContainsFunc(addrs, claimed) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), claimed)
}

// placeNodes makes the addresses that nodes have in the pod ranges count as the
// nodes, where the blocks would have it otherwise.
func (b *build) placeNodes(d *decision, segments [2][]segment) {
	for own, judged := range b.nodes {
		family := model.FamilyIndex(own)
		is := b.identify(d, peersAt(segments[family], judged), nil)
		would := b.identify(d, peersAt(segments[family], own), nil)
		if is == would || !is.reaches(family) && !would.reaches(family) {
			continue
		}
		verdict := []string{"drop"}
		if is.reaches(family) {
			verdict = is.verdicts[family]
		}
		d.peerElements[family] = append(d.peerElements[family], model.Element{Key: []string{own.String()}, Value: verdict})
	}
}
