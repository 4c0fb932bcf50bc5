package policytest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podnet/podnet/internal/nft"
)

// Packet is one of a connection's, as it is forwarded.
type Packet struct {
	Connection
	// Reply says that it goes from the server to the client.
	Reply bool
	// State is conntrack's; empty stands for established.
	State string
}

// Verdict runs the rules of a table on a packet, as the kernel does: one that is
// forwarded, or one between a pod and its node. It returns whether the packet is accepted and how many rules it met. It knows as
// much of nft's language as internal/policy uses, and returns an error for anything
// else.
func Verdict(t nft.Table, p Packet) (accepted bool, rules int, err error) {
	m := newMachine(t, p)
	accepted, err = m.accepted()
	return accepted, m.rules, err
}

// Counted runs the rules as Verdict does, and returns the counters that count the packet.
func Counted(t nft.Table, p Packet) ([]string, error) {
	m := newMachine(t, p)
	_, err := m.accepted()
	return m.counted, err
}

func newMachine(t nft.Table, p Packet) *machine {
	m := &machine{table: t, packet: p, chains: map[string]nft.Chain{}, sets: map[string]nft.Set{}}
	for _, c := range t.Chains {
		m.chains[c.Name] = c
	}
	for _, s := range t.Sets {
		m.sets[s.Name] = s
	}
	return m
}

// accepted reports whether no chain of the packet's hook drops it.
func (m *machine) accepted() (bool, error) {
	for _, c := range m.table.Chains {
		if c.Base.Hook != m.packet.hook() {
			continue
		}
		verdict, err := m.run(c.Name, 0)
		if err != nil || verdict == "drop" {
			return false, err
		}
	}
	return true, nil
}

// hook is where the kernel has rules filter the packet.
func (p Packet) hook() nft.Hook {
	switch {
	case !p.ToHost:
		return nft.Forward
	case p.Reply:
		return nft.Output
	}
	return nft.Input
}

type machine struct {
	table  nft.Table
	packet Packet
	chains map[string]nft.Chain
	sets   map[string]nft.Set
	// rules counts those that were met, and counted are the counters that were.
	rules   int
	counted []string
}

// run runs a chain and returns accept, drop, or return where the chain came to its end.
func (m *machine) run(name string, depth int) (string, error) {
	c, ok := m.chains[name]
	if !ok || depth > 15 {
		return "", fmt.Errorf("no chain %s, or too deep", name)
	}
	for _, r := range c.Rules {
		m.rules++
		verdict, err := m.rule(r.Text)
		if err != nil {
			return "", fmt.Errorf("%s: rule %q: %w", name, r.Text, err)
		}
		word, target, _ := strings.Cut(verdict, " ")
		switch word {
		case "": // it does not match
		case "accept", "drop", "return":
			return word, nil
		case "jump", "goto":
			verdict, err := m.run(target, depth+1)
			if err != nil || verdict != "return" || word == "goto" {
				return verdict, err
			}
		default:
			return "", fmt.Errorf("%s: verdict %q", name, verdict)
		}
	}
	return "return", nil
}

// rule returns the verdict of a rule; empty where it does not match.
func (m *machine) rule(text string) (string, error) {
	words := strings.Fields(text)
	for len(words) > 0 {
		if n, matches := m.statement(words); n > 0 {
			if words = words[n:]; !matches || len(words) == 0 {
				return "", nil
			}
			continue
		}
		switch words[0] {
		case "accept", "drop", "return":
			return words[0], m.end(words[1:])
		case "jump", "goto":
			return words[0] + " " + words[1], m.end(words[2:])
		}
		var key []string
		there := true
		for {
			part, has, rest, err := m.key(words)
			if err != nil {
				return "", err
			}
			key, there, words = append(key, part), there && has, rest
			if len(words) == 0 || words[0] != "." {
				break
			}
			words = words[1:]
		}
		if words[0] == "vmap" {
			return m.vmap(key, there, words[1:])
		}
		matches, rest, err := m.compare(key, words)
		if err != nil || !matches || !there {
			return "", err
		}
		words = rest
	}
	return "", fmt.Errorf("no verdict")
}

// statement returns the number of words of a statement that decides nothing by itself, and
// 0 where there is none; and whether it matches. There are never too many packets here.
func (m *machine) statement(words []string) (n int, matches bool) {
	switch words[0] {
	case "counter": // name NAME
		m.counted = append(m.counted, strings.Trim(words[2], `"`))
		return 3, true
	case "log": // prefix PREFIX group GROUP snaplen BYTES
		return 7, true
	case "limit": // rate over RATE burst BURST packets
		return 7, false
	}
	return 0, false
}

func (m *machine) end(words []string) error {
	if len(words) > 0 {
		return fmt.Errorf("%q after the verdict", words)
	}
	return nil
}

// key reads an expression, and returns its value and whether the packet has one.
func (m *machine) key(words []string) (value string, has bool, rest []string, err error) {
	p := m.packet
	from, to := p.Client, p.Server
	if p.Reply {
		from, to = to, from
	}
	tracked := p.State != "invalid" && p.State != "untracked"
	of := func(a netip.Addr, header string) bool { return a.Is4() == (header == "ip") }
	starts := func(expression string) bool { return strings.HasPrefix(strings.Join(words, " ")+" ", expression+" ") }
	switch {
	case starts("ct state"):
		state := p.State
		if state == "" {
			state = "established"
		}
		return state, true, words[2:], nil
	case starts("ct direction"):
		direction := "original"
		if p.Reply {
			direction = "reply"
		}
		return direction, tracked, words[2:], nil
	case starts("ct original ip saddr"), starts("ct original ip6 saddr"):
		return p.Client.String(), tracked && of(p.Client, words[2]), words[4:], nil
	case starts("ct reply ip saddr"), starts("ct reply ip6 saddr"):
		return p.Server.String(), tracked && of(p.Server, words[2]), words[4:], nil
	case starts("ip saddr"), starts("ip6 saddr"):
		return from.String(), of(from, words[0]), words[2:], nil
	case starts("ip daddr"), starts("ip6 daddr"):
		return to.String(), of(to, words[0]), words[2:], nil
	case starts("meta l4proto"):
		protocol := p.Protocol
		if protocol == "icmp" && p.Client.Is6() {
			protocol = "ipv6-icmp"
		}
		return protocol, true, words[2:], nil
	case starts("th dport"), starts("th sport"):
		// The other port is one that no policy names.
		port := "none"
		if (words[1] == "dport") == !p.Reply {
			port = strconv.Itoa(int(p.Port))
		}
		return port, true, words[2:], nil
	case starts("icmpv6 type"):
		return "echo-request", p.Protocol == "icmp" && p.Client.Is6(), words[2:], nil
	}
	return "", false, nil, fmt.Errorf("unknown expression %q", words)
}

// compare reports whether a key is equal to a word, in braces, or in a set.
func (m *machine) compare(key []string, words []string) (bool, []string, error) {
	not := words[0] == "!="
	if not {
		words = words[1:]
	}
	if name, ok := strings.CutPrefix(words[0], "@"); ok {
		s, ok := m.sets[name]
		if !ok || s.Value != "" {
			return false, nil, fmt.Errorf("no set %s", name)
		}
		_, found, err := lookup(s.Elements, key)
		return found != not, words[1:], err
	}
	if words[0] == "{" {
		end := slices.Index(words, "}")
		holds := slices.ContainsFunc(words[1:end], func(w string) bool { return in(strings.TrimSuffix(w, ","), key[0]) })
		return holds != not, words[end+1:], nil
	}
	return (words[0] == key[0]) != not, words[1:], nil
}

// vmap returns the verdict that a map has for a key.
func (m *machine) vmap(key []string, there bool, words []string) (string, error) {
	var elements []nft.Element
	if name, ok := strings.CutPrefix(words[0], "@"); ok {
		s, ok := m.sets[name]
		if !ok || s.Value != "verdict" {
			return "", fmt.Errorf("no map %s", name)
		}
		elements = s.Elements
	} else {
		text := strings.Trim(strings.Join(words, " "), "{} ")
		for element := range strings.SplitSeq(text, ", ") {
			key, value, _ := strings.Cut(element, " : ")
			elements = append(elements, nft.Element{Key: []string{key}, Value: []string{value}})
		}
	}
	if !there {
		return "", nil
	}
	e, found, err := lookup(elements, key)
	if err != nil || !found {
		return "", err
	}
	return e.Value[0], nil
}

// lookup finds the element that holds a key. That two do is an error: nft refuses it.
func lookup(elements []nft.Element, key []string) (nft.Element, bool, error) {
	var found []nft.Element
	for _, e := range elements {
		if len(e.Key) != len(key) {
			return e, false, fmt.Errorf("element %v for key %v", e, key)
		}
		holds := true
		for i := range key {
			holds = holds && in(e.Key[i], key[i])
		}
		if holds {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return nft.Element{}, false, nil
	case 1:
		return found[0], true, nil
	}
	return nft.Element{}, false, fmt.Errorf("elements overlap: %v", found)
}

// in reports whether a part of an element, which may be a prefix or a range, holds a value.
func in(part, value string) bool {
	if part == value {
		return true
	}
	if p, err := netip.ParsePrefix(part); err == nil {
		a, err := netip.ParseAddr(value)
		return err == nil && p.Contains(a)
	}
	first, last, ok := strings.Cut(part, "-")
	if !ok {
		return false
	}
	n, err := strconv.Atoi(value)
	low, lowErr := strconv.Atoi(first)
	high, highErr := strconv.Atoi(last)
	return err == nil && lowErr == nil && highErr == nil && low <= n && n <= high
}
