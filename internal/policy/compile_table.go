package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// families are the words that differ between the IP families. Their index is
// that of model.FamilyIndex.
var families = [...]struct{ digit, header, address string }{
	{"4", "ip", "ipv4_addr"},
	{"6", "ip6", "ipv6_addr"},
}

// words are those that differ between the directions.
var words = [len(directions)]struct {
	// chain is the name of the chain that decides and of the set of isolated pods;
	// others that of the map of the other ends, and identity begins the names of
	// their identities.
	chain, others, identity string
	// pod and other are the addresses of the isolated pod and of the other end, as
	// conntrack knows them. With them a packet of either direction of a connection is
	// decided on alike: whoever opened it, and whom Services led it to.
	pod, other string
}{
	ingress: {chain: "ingress", others: "sources", identity: "from", pod: server, other: client},
	egress:  {chain: "egress", others: "destinations", identity: "to", pod: client, other: server},
}

// client and server are the two ends of a connection, given the family's header.
const (
	client = "ct original %s saddr"
	server = "ct reply %s saddr"
)

// selfSet holds the isolated pods, as both ends of what they send to themselves.
const selfSet = "self"

// chainOf is the name of the chain of an identity in a family, and of its map.
func chainOf(i *identity, family int) string {
	kind, hash, _ := strings.Cut(i.name, "-")
	return kind + families[family].digit + "-" + hash
}

// tables writes down what was decided, and what counts. It returns what is counted too.
func (b *build) tables(policies []countedPolicy) ([]nft.Table, []CountedRule) {
	t := nft.Table{
		Family: nft.Inet, Name: model.PolicyTable, Counters: []string{DeniedCounter}, Chains: []nft.Chain{forward(), stray(), denied(b.sample)},
	}
	if b.decided[egress].host.fallback != nil {
		t.Chains = append(t.Chains, toHost(nft.Input), toHost(nft.Output))
	}
	for family := range families {
		t.Sets = append(t.Sets, b.self(family))
		for _, d := range directions {
			b.writeDirection(&t, &b.decided[d], family)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.portSets)) {
		set, chain := b.portSets[name].write(name)
		t.Sets, t.Chains = append(t.Sets, set), append(t.Chains, chain)
	}
	counted := b.writeCounts(&t, policies)
	tables := []nft.Table{t}
	if bridge, ok := b.bridgeTable(); ok {
		tables = append(tables, bridge)
	}
	for _, t := range tables {
		t.Sort()
		slices.SortFunc(t.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	}
	return tables, counted
}

func chain(name string, rules ...string) nft.Chain {
	return nft.Chain{Name: name, Rules: nft.Rules(rules...)}
}

// base returns where packets come in that are filtered, so far behind those that the node's own
// filters see.
func base(hook nft.Hook, offset int) nft.Base {
	return nft.Base{Type: nft.TypeFilter, Hook: hook, Priority: nft.Filter.At(offset)}
}

// forward is where packets from and to pods are filtered, each time, and not only the
// first of a connection: a connection obeys the policy that is. An ICMP error belongs, to
// conntrack, to the connection that it is about, and is treated as that; that no pod sends
// errors about connections of others another table ensures (internal/plan). What the node itself
// sends and receives does not come this way.
func forward() nft.Chain {
	c := chain("forward", "ct state { invalid, untracked } goto stray")
	c.Base = base(nft.Forward, 0)
	// A packet between two pods of the node has to be accepted by both.
	for _, d := range []direction{egress, ingress} {
		for _, f := range families {
			set := words[d].chain + f.digit
			c.Rules = append(c.Rules, nft.Rule{Text: fmt.Sprintf(words[d].pod, f.header) + " @" + set + " jump " + set})
		}
	}
	return c
}

// stray decides on packets that belong to no connection that the kernel knows: whether
// policies allow them is unknown. Neighbour discovery, which a bridge carries from pod
// to pod, is never tracked; of what is routed no packet has the hop limit that it has.
func stray() nft.Chain {
	rules := []string{"icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"}
	for _, f := range families {
		rules = append(rules,
			fmt.Sprintf("%s saddr @%s%s "+toDenied, f.header, words[egress].chain, f.digit),
			fmt.Sprintf("%s daddr @%s%s "+toDenied, f.header, words[ingress].chain, f.digit))
	}
	return chain("stray", rules...)
}

// self returns the set of isolated pods as both ends of a connection. A pod can
// reach itself, by a Service for instance, whatever policies say.
func (b *build) self(family int) nft.Set {
	f := families[family]
	s := nft.Set{Name: selfSet + f.digit, Key: f.address + " . " + f.address}
	for _, l := range b.local {
		if l.classes != [len(directions)]*class{} {
			for _, a := range l.Addrs {
				if model.FamilyIndex(a) == family {
					s.Elements = append(s.Elements, nft.Element{Key: []string{a.String(), a.String()}})
				}
			}
		}
	}
	return s
}

// hostChain decides on what attached pods have with their own node.
const hostChain = "host"

// toHost is where packets between pods and this node itself are filtered, as forward
// does: only policies of the cluster forbid any. What the node says of a connection that it
// forwards, such as that a packet is too large, is not about one with the node.
func toHost(hook nft.Hook) nft.Chain {
	c := chain(string(hook))
	if hook == nft.Output {
		c = chain(string(hook), acceptErrors)
	}
	c.Base = base(hook, 0)
	for _, f := range families {
		c.Rules = append(c.Rules, nft.Rule{
			Text: fmt.Sprintf(client, f.header) + " @" + words[egress].chain + f.digit + " jump " + hostChain + f.digit,
		})
	}
	return c
}

// writeDirection writes what was decided on a direction in a family.
func (b *build) writeDirection(t *nft.Table, d *decision, family int) {
	f, w := families[family], words[d.direction]
	isolated := nft.Set{Name: w.chain + f.digit, Key: f.address}
	for _, l := range b.local {
		if l.classes[d.direction] != nil {
			for _, a := range l.keys {
				if model.FamilyIndex(a.Addr) == family {
					isolated.Elements = append(isolated.Elements, nft.Element{Key: a.key})
				}
			}
		}
	}
	t.Sets = append(t.Sets, isolated)
	d.forward.write(t, d.direction, family, w.chain, w.others)
	if d.host.fallback != nil {
		d.host.write(t, d.direction, family, hostChain, hostChain+w.others)
	}
	for _, identities := range []map[string]*identity{d.identities, d.joint} {
		for _, i := range identities {
			if !i.reaches(family) {
				continue
			}
			name := chainOf(i, family)
			t.Sets = append(t.Sets, nft.Set{Name: name, Key: f.address, Value: "verdict", Elements: i.pods[family]})
			t.Chains = append(t.Chains, chain(name, fmt.Sprintf(w.pod, f.header)+" vmap @"+name, toDenied))
		}
	}
}

// write writes a chain that leads to identities, and its map.
func (l *lookups) write(t *nft.Table, d direction, family int, name, addrs string) {
	f := families[family]
	other := fmt.Sprintf(words[d].other, f.header)
	set := nft.Set{Name: addrs + f.digit, Key: f.address, Value: "verdict", Elements: l.addrs[family]}
	entry := chain(name+f.digit,
		fmt.Sprintf(client+" . "+server+" @%s%s return", f.header, f.header, selfSet, f.digit),
		fmt.Sprintf("%s vmap @%s", other, set.Name))
	if len(l.blocks[family]) > 0 {
		entry.Rules = append(entry.Rules, nft.Rule{Text: other + " vmap " + inline(l.blocks[family])})
	}
	otherwise := toDenied
	if l.fallback != nil {
		otherwise = l.fallback.verdict(family)[0]
	}
	entry.Rules = append(entry.Rules, nft.Rule{Text: otherwise})
	t.Sets = append(t.Sets, set)
	t.Chains = append(t.Chains, entry)
}

// inline writes elements as a map within a rule. Prefixes stand in the rule and not
// in a map with a name: they change with policies, seldom, and a map of prefixes
// cannot be changed in part and at once by every nft.
func inline(elements []nft.Element) string {
	parts := make([]string, 0, len(elements))
	for _, e := range elements {
		parts = append(parts, strings.Join(e.Key, " . ")+" : "+strings.Join(e.Value, " . "))
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// neighbourTypes are the ICMPv6 messages without which neighbours do not find each other, and
// a bridge does not know who listens (RFC 4890, section 4.4.1).
const neighbourTypes = "{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report, " +
	"nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }"

// bridgeTable keeps from isolated pods what other ports of a bridge send to addresses
// that are nobody's in particular, or mean something on the bridge alone: the rules go by
// the addresses that pods have of the cluster, to which none of this is sent. Nor may an
// isolated pod send it. Without such a pod on a bridge there is no such table.
func (b *build) bridgeTable() (nft.Table, bool) {
	t := nft.Table{Family: nft.Bridge, Name: model.PolicyTable}
	c := chain("forward")
	c.Base = base(nft.Forward, 0)
	is := false
	for _, d := range directions {
		ports := nft.Set{Name: words[d].chain + "ports", Key: "ifname"}
		for _, l := range b.local {
			if l.classes[d] != nil && l.Attachment == model.Bridge {
				ports.Elements = append(ports.Elements, nft.Element{Key: []string{l.HostLink}})
				is = true
			}
		}
		t.Sets = append(t.Sets, ports)
		side := "oifname"
		if d == egress {
			side = "iifname"
		}
		at := side + " @" + ports.Name
		for _, rule := range []string{
			"ether type ip meta pkttype { broadcast, multicast } drop",
			"icmpv6 type " + neighbourTypes + " ip6 hoplimit { 1, 255 } return",
			"ether type ip6 meta pkttype { broadcast, multicast } drop",
			"ip6 daddr fe80::/10 drop",
			"ip6 saddr fe80::/10 drop",
		} {
			c.Rules = append(c.Rules, nft.Rule{Text: at + " " + rule})
		}
	}
	t.Chains = []nft.Chain{c}
	return t, is
}
