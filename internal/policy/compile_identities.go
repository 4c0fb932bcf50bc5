package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// identity is what addresses have in common that policies cannot tell apart, as
// the other end of connections in one direction.
type identity struct {
	// name stands for the peers that the identity is one of, whatever others there are.
	name  string
	peers bits
	// host says that it is this node itself, with which NetworkPolicies let their pods
	// have any connection.
	host bool
	// numbers are those of named ports, for connections to it.
	numbers map[portName]uint16
	// pods are the attached pods that may have connections with it, by family, and
	// how: a verdict for each address.
	pods [2][]nft.Element
	// verdicts lead to the identity, by family.
	verdicts [2][]string
}

// decision is what one direction came to.
type decision struct {
	direction
	peers   []*peers
	classes []*class
	// strangers is the index of those peers who have an address that pods may have, and
	// are nobody that is known. It is -1 where it does not matter.
	strangers int
	// nobody is the empty set of peers.
	nobody bits
	// names are those of ports that rules use for the other end.
	names []portName
	// identities are by what tells them apart, and joint those of who may have any of
	// several identities, by the names of these.
	identities, joint map[string]*identity
	// forward and host lead from addresses to identities: of packets that this node
	// forwards, and of those between pods and the node itself.
	forward, host lookups
}

// lookups lead from addresses to identities, by family: first single addresses do, then
// blocks, and what is in neither has the identity fallback.
type lookups struct {
	addrs, blocks [2][]nft.Element
	fallback      *identity
}

// compile decides on a direction.
func (b *build) compile(d direction) {
	out := &b.decided[d]
	*out = decision{direction: d, strangers: -1, identities: map[string]*identity{}, joint: map[string]*identity{}}
	b.classify(out)
	b.closed = append(b.closed, b.close(out)...)
	if len(out.classes) == 0 {
		return
	}
	if out.mayForbidStrangers() {
		out.strangers = len(out.peers)
		out.peers = append(out.peers, &peers{key: "strangers", blocks: b.ranges})
	}
	out.nobody = newBits(len(out.peers))
	if d == egress {
		out.names = out.namesUsed()
	}
	segments := [2][]segment{segmentsOf(out.peers, true), segmentsOf(out.peers, false)}
	b.placeBlocks(out, &out.forward, segments)
	b.placePods(out, segments)
	b.placeNodes(out, &out.forward, segments)
	if d == egress && out.asksTiers() {
		b.placeBlocks(out, &out.host, segments)
		b.placeNodes(out, &out.host, segments)
	}
}

// asksTiers reports whether policies of the cluster are about any attached pod.
func (d *decision) asksTiers() bool {
	return slices.ContainsFunc(d.classes, func(c *class) bool { return len(c.tiers[model.AdminTier])+len(c.tiers[model.BaselineTier]) > 0 })
}

// mayForbidStrangers reports whether a rule forbids something to peers, or by ports, that it
// takes objects to know: then it may be about who is unknown.
func (d *decision) mayForbidStrangers() bool {
	for _, c := range d.classes {
		for _, r := range slices.Concat(c.tiers[:]...) {
			if r.action != model.PolicyAccept && (d.peers[r.peer].selects() || len(r.ports.names) > 0) {
				return true
			}
		}
	}
	return false
}

func (d *decision) isStranger(i *identity) bool { return d.strangers >= 0 && i.peers.has(d.strangers) }

// known leaves strangers out of peers.
func (d *decision) known(who bits) bits {
	if d.strangers < 0 {
		return who
	}
	return who.without(d.strangers)
}

// namesUsed returns the names of ports that rules use for the other end.
func (d *decision) namesUsed() []portName {
	var names []portName
	for _, c := range d.classes {
		for _, r := range c.rules {
			names = append(names, r.ports.names...)
		}
		for _, r := range slices.Concat(c.tiers[:]...) {
			names = append(names, r.ports.names...)
		}
	}
	slices.SortFunc(names, comparePortNames)
	return slices.Compact(names)
}

// identify returns the identity of who is one of these peers, has these named
// ports, and may be this node. It makes it, with all that the attached pods allow it,
// where it is new.
func (b *build) identify(d *decision, who bits, named []model.NamedPort, host bool) *identity {
	if who == nil {
		who = d.nobody
	}
	key := who.key()
	if host {
		key += "host"
	}
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
	made := &identity{name: d.identityName(who, numbers, host), peers: who, numbers: numbers, host: host}
	d.identities[key] = made
	b.allow(d, made, func(c *class) ports { return d.grant(c, made) })
	return made
}

// anyOf returns the identity of who may have any of several: it may what all of them may.
func (b *build) anyOf(d *decision, all []*identity) *identity {
	slices.SortFunc(all, func(a, b *identity) int { return strings.Compare(a.name, b.name) })
	all = slices.Compact(all)
	if len(all) == 1 {
		return all[0]
	}
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = one.name
	}
	key := strings.Join(names, "\n")
	if found, ok := d.joint[key]; ok {
		return found
	}
	kind, _, _ := strings.Cut(all[0].name, "-")
	made := &identity{name: nameOf(kind, "any of\n"+key)}
	d.joint[key] = made
	b.allow(d, made, func(c *class) ports {
		allowed := allPorts()
		for _, one := range all {
			allowed = allowed.both(d.grant(c, one))
		}
		return allowed
	})
	return made
}

// allow finds the attached pods that may have connections with an identity, and how.
func (b *build) allow(d *decision, made *identity, grant func(*class) ports) {
	for family := range families {
		made.verdicts[family] = []string{"goto " + chainOf(made, family)}
	}
	for _, l := range b.local {
		if l.classes[d.direction] == nil {
			continue
		}
		allowed := grant(l.classes[d.direction])
		if allowed.empty() {
			continue
		}
		verdict := []string{"return"}
		if !allowed.all() {
			name := nameOf("ports", allowed.key())
			b.portSets[name] = allowed
			verdict = []string{"goto " + name}
		}
		for _, a := range l.keys {
			i := model.FamilyIndex(a.Addr)
			made.pods[i] = append(made.pods[i], nft.Element{Key: a.key, Value: verdict})
		}
	}
}

func (d *decision) identityName(who bits, numbers map[portName]uint16, host bool) string {
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
	prefix := words[d.direction].identity
	if host {
		prefix = "host"
	}
	return nameOf(prefix, strings.Join(parts, "\n\n"))
}

// reaches reports whether any attached pod allows the identity anything in a family.
func (i *identity) reaches(family int) bool { return len(i.pods[family]) > 0 }

// verdict is where packets of the identity are sent.
func (i *identity) verdict(family int) []string {
	if i.reaches(family) {
		return i.verdicts[family]
	}
	return []string{toDenied}
}

// placeBlocks leads from blocks of addresses to identities.
func (b *build) placeBlocks(d *decision, to *lookups, segments [2][]segment) {
	host := to == &d.host
	to.fallback = b.identify(d, nil, nil, host)
	for family := range segments {
		for _, s := range segments[family] {
			is := b.identify(d, s.peers, nil, host)
			if is == to.fallback || !is.reaches(family) && !to.fallback.reaches(family) {
				continue
			}
			for _, p := range s.Prefixes() {
				to.blocks[family] = append(to.blocks[family], nft.Element{Key: []string{prefixText(p)}, Value: is.verdict(family)})
			}
		}
	}
}

// place leads from an address to its identity, where the blocks would have it
// otherwise.
func (l *lookups) place(a addrKey, is, would *identity) {
	family := model.FamilyIndex(a.Addr)
	if is == would || !is.reaches(family) && !would.reaches(family) {
		return
	}
	l.addrs[family] = append(l.addrs[family], nft.Element{Key: a.key, Value: is.verdict(family)})
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// placePods leads from the addresses of pods to identities, unless their blocks do.
func (b *build) placePods(d *decision, segments [2][]segment) {
	selected := b.selected(d.peers)
	is := func(p *indexedPod, blocks bits) *identity {
		who := selected[p.group].union(blocks)
		if _, known := b.namespaces[p.Namespace]; known {
			who = d.known(who)
		}
		return b.identify(d, who, p.Ports, false)
	}
	place := func(p *indexedPod, addrs []addrKey) {
		for _, a := range addrs {
			blocks := peersAt(segments[model.FamilyIndex(a.Addr)], a.Addr)
			d.forward.place(a, is(p, blocks), b.identify(d, blocks, nil, false))
		}
	}
	for _, l := range b.local {
		if l.object != nil {
			place(l.object, l.keys)
		}
	}
	for _, groups := range b.groups {
		for _, g := range groups {
			// Without names of ports to look up, and strangers to tell them from, blocks
			// lead to the same.
			if selected[g] == nil && len(d.names) == 0 && d.strangers < 0 {
				continue
			}
			for _, p := range g.pods {
				if !b.attached[p] {
					place(p, b.unclaimed(p.addrs))
				}
			}
		}
	}
	for _, c := range b.shared {
		blocks := peersAt(segments[model.FamilyIndex(c.Addr)], c.Addr)
		var all []*identity
		for _, p := range c.pods {
			all = append(all, is(p, blocks))
		}
		d.forward.place(c.addrKey, b.anyOf(d, all), b.identify(d, blocks, nil, false))
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

// placeNodes leads from the addresses of nodes to identities. Those that they have in
// the pod ranges count as the nodes.
func (b *build) placeNodes(d *decision, to *lookups, segments [2][]segment) {
	host := to == &d.host
	for own, nodes := range b.nodes {
		family := model.FamilyIndex(own)
		var all []*identity
		for _, n := range nodes {
			who := d.known(peersAt(segments[family], n.seenAs))
			for i, p := range d.peers {
				if p.selectsNode(n) {
					who = who.with(i, len(d.peers))
				}
			}
			all = append(all, b.identify(d, who, nil, host))
		}
		would := b.identify(d, peersAt(segments[family], own), nil, host)
		to.place(keyOf(own), b.anyOf(d, all), would)
	}
}
