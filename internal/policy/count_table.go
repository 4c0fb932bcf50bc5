package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// countChain is a chain that packets go through before they are filtered. It has no verdict on any.
func countChain(name string, hook nft.Hook) nft.Chain {
	c := chain(name, acceptErrors)
	c.Base = base(hook, -1)
	for _, f := range families {
		c.Rules = append(c.Rules, nft.Rule{Text: fmt.Sprintf(client+" . "+server+" @%s%s return", f.header, f.header, selfSet, f.digit)})
	}
	return c
}

// writeCounts writes what counts the packets of rules. Without a policy that is to be
// counted it writes nothing.
func (b *build) writeCounts(t *nft.Table, policies []countedPolicy) []CountedRule {
	if len(policies) == 0 {
		return nil
	}
	// What a pod has with its own node is filtered in both directions of the connection.
	forwarded := countChain("count", nft.Forward)
	ofNode := []nft.Chain{countChain("countinput", nft.Input), countChain("countoutput", nft.Output)}
	var rules []CountedRule
	w := countWriter{build: b, table: t, sets: map[string]bool{}}
	writeNode := false
	for i := range policies {
		p := &policies[i]
		for _, r := range p.rules {
			rules = append(rules, r.CountedRule)
			t.Counters = append(t.Counters, r.Counter)
		}
		for family := range families {
			jump, ok := w.policy(p, family)
			if !ok {
				continue
			}
			forwarded.Rules = append(forwarded.Rules, jump)
			if p.ofNode {
				writeNode = true
				for j := range ofNode {
					ofNode[j].Rules = append(ofNode[j].Rules, jump)
				}
			}
		}
	}
	t.Chains = append(t.Chains, forwarded)
	if writeNode {
		t.Chains = append(t.Chains, ofNode...)
	}
	return rules
}

// countWriter writes sets that rules share once.
type countWriter struct {
	*build
	table *nft.Table
	sets  map[string]bool
}

// put writes a set, unless it was written before, and returns its name.
func (w *countWriter) put(s nft.Set) string {
	if !w.sets[s.Name] {
		w.sets[s.Name] = true
		w.table.Sets = append(w.table.Sets, s)
	}
	return s.Name
}

// policy writes the chains of a policy, and returns the rule that leads its packets to them;
// false where no pod of it has an address of the family.
func (w *countWriter) policy(p *countedPolicy, family int) (nft.Rule, bool) {
	f := families[family]
	id := fmt.Sprintf("%s %s", p.id, words[p.direction].chain)
	var pods []nft.Element
	for _, l := range p.pods {
		for _, a := range l.keys {
			if model.FamilyIndex(a.Addr) == family {
				pods = append(pods, nft.Element{Key: a.key})
			}
		}
	}
	if len(pods) == 0 {
		return nft.Rule{}, false
	}
	all := chain(nameOf("count"+f.digit, id))
	for i := range p.rules {
		if c := w.rule(p, &p.rules[i], family); len(c.Rules) > 0 {
			w.table.Chains = append(w.table.Chains, c)
			all.Rules = append(all.Rules, nft.Rule{Text: "jump " + c.Name})
		}
	}
	w.table.Chains = append(w.table.Chains, all)
	set := w.put(nft.Set{Name: nameOf("counted"+f.digit, id), Key: f.address, Elements: pods})
	return nft.Rule{Text: fmt.Sprintf(words[p.direction].pod, f.header) + " @" + set + " jump " + all.Name}, true
}

// rule returns the chain that counts the packets of a rule; without rules where it matches none.
func (w *countWriter) rule(p *countedPolicy, r *countedRule, family int) nft.Chain {
	f := families[family]
	c := chain(nameOf("count"+f.digit, r.Counter))
	conditions, may := w.peers(p, r.peers, family)
	if !may {
		return c
	}
	count := fmt.Sprintf("counter name %q return", r.Counter)
	var matches []string
	switch fixed := r.ports.fixed; {
	case fixed.all():
		matches = []string{count}
	case !fixed.empty():
		set, _ := fixed.write(nameOf("countports", fixed.key()))
		matches = portMatches("meta l4proto . th %s @"+w.put(set), count)
	}
	if named := w.named(p, r, family); len(named) > 0 {
		set := w.put(nft.Set{Name: nameOf("named"+f.digit, r.Counter), Key: f.address + " . inet_proto . inet_service", Elements: named})
		matches = append(matches, portMatches(fmt.Sprintf(server, f.header)+" . meta l4proto . th %s @"+set, count)...)
	}
	if len(matches) > 0 {
		c.Rules = chain("", append(conditions, matches...)...).Rules
	}
	return c
}

// portMatches are the rules that match a port of the server's, in each direction of a connection.
func portMatches(match, verdict string) []string {
	return []string{
		"ct direction original " + fmt.Sprintf(match, "dport") + " " + verdict,
		"ct direction reply " + fmt.Sprintf(match, "sport") + " " + verdict,
	}
}

// peers returns the rules by which packets leave whose other end is none of the peers, and
// whether any may be. Blocks stand in the rule: see inline.
func (w *countWriter) peers(p *countedPolicy, who *peers, family int) (conditions []string, may bool) {
	f := families[family]
	other := fmt.Sprintf(words[p.direction].other, f.header)
	in, out := w.members(who)
	var blocks []string
	if who.blocks != nil {
		for _, prefix := range who.blocks.Prefixes() {
			if model.FamilyIndex(prefix.Addr()) == family {
				blocks = append(blocks, prefixText(prefix))
			}
		}
	}
	if slices.Contains(blocks, prefixText(everything[family])) {
		return nil, true
	}
	if len(out[family]) > 0 {
		conditions = append(conditions, other+" @"+w.put(nft.Set{Name: nameOf("notpeers"+f.digit, who.key), Key: f.address, Elements: out[family]})+" return")
	}
	leave := ""
	if len(in[family]) > 0 {
		leave += other + " != @" + w.put(nft.Set{Name: nameOf("peers"+f.digit, who.key), Key: f.address, Elements: in[family]}) + " "
	}
	if len(blocks) > 0 {
		leave += other + " != { " + strings.Join(blocks, ", ") + " } "
	}
	return append(conditions, leave+"return"), leave != ""
}

// members returns the single addresses of peers, by family, and those that are in their
// blocks without being any: nodes go by another address than the one they have among pods.
func (b *build) members(who *peers) (in, out [2][]nft.Element) {
	seen := map[netip.Addr]bool{}
	add := func(to *[2][]nft.Element, addrs ...addrKey) {
		for _, a := range addrs {
			if !seen[a.Addr] {
				seen[a.Addr] = true
				i := model.FamilyIndex(a.Addr)
				to[i] = append(to[i], nft.Element{Key: a.key})
			}
		}
	}
	selected := map[*podGroup]bool{}
	who.members(b.Index, func(g *podGroup) { selected[g] = true })
	for _, l := range b.local {
		if l.object != nil && selected[l.object.group] {
			add(&in, l.keys...)
		}
	}
	for g := range selected {
		for _, p := range g.pods {
			if !b.attached[p] {
				add(&in, b.unclaimed(p.addrs)...)
			}
		}
	}
	for _, c := range b.shared {
		if !slices.ContainsFunc(c.pods, func(p *indexedPod) bool { return !selected[p.group] }) {
			add(&in, c.addrKey)
		}
	}
	inBlocks := func(a netip.Addr) bool { return who.blocks != nil && who.blocks.Contains(a) }
	for own, nodes := range b.nodes {
		is := !slices.ContainsFunc(nodes, func(n nodeAddress) bool { return !inBlocks(n.seenAs) && !who.selectsNode(n) })
		switch would := inBlocks(own); {
		case is && !would:
			add(&in, keyOf(own))
		case would && !is:
			add(&out, keyOf(own))
		}
	}
	return in, out
}

// named returns the servers' ports that have names which a rule uses, as elements of an
// address, a protocol and a port.
func (b *build) named(p *countedPolicy, r *countedRule, family int) []nft.Element {
	if len(r.ports.names) == 0 {
		return nil
	}
	seen := map[string]bool{}
	var out []nft.Element
	// add adds the ports that all of some pods have, which have the same addresses.
	add := func(addrs []addrKey, pods ...*indexedPod) {
		for _, a := range addrs {
			if model.FamilyIndex(a.Addr) != family {
				continue
			}
			for _, key := range r.ports.numbersOf(a, pods) {
				if id := strings.Join(key, " "); !seen[id] {
					seen[id] = true
					out = append(out, nft.Element{Key: key})
				}
			}
		}
	}
	if p.direction == ingress {
		for _, l := range p.pods {
			if l.object != nil {
				add(l.keys, l.object)
			}
		}
		return out
	}
	// Which of them are peers is asked before.
	for _, l := range b.local {
		if l.object != nil {
			add(l.keys, l.object)
		}
	}
	for _, pod := range b.pods {
		if !b.attached[pod] {
			add(b.unclaimed(pod.addrs), pod)
		}
	}
	for _, c := range b.shared {
		add([]addrKey{c.addrKey}, c.pods...)
	}
	return out
}

// numbersOf returns the ports of an address that have these names whichever of the pods has
// it, as keys of elements.
func (s portSpec) numbersOf(a addrKey, pods []*indexedPod) [][]string {
	var out [][]string
	for i, p := range pods {
		var of [][]string
		for _, n := range s.names {
			if number, ok := n.lookup(p.Ports); ok {
				of = append(of, []string{a.String(), protocols[n.protocol], fmt.Sprint(number)})
			}
		}
		if i == 0 {
			out = of
			continue
		}
		out = slices.DeleteFunc(out, func(key []string) bool {
			return !slices.ContainsFunc(of, func(k []string) bool { return slices.Equal(k, key) })
		})
	}
	return out
}
