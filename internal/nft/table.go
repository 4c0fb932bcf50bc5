// Package nft holds tables of nftables as values: what they are made of, how two of
// them differ, and by which fingerprints one is known again in a kernel. What
// tables shall say is left to internal/plan and internal/policy, and the doing to agent/nft.
package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Family is which packets a table sees.
type Family string

// The families of podnet's tables.
const (
	Inet   Family = "inet"
	Bridge Family = "bridge"
	ARP    Family = "arp"
)

// Table is a table of nftables that is podnet's alone.
type Table struct {
	Family Family
	Name   string
	// Counters are the names of those that rules count with, which keep what they have
	// counted when rules change. Only tables that are not compared by fingerprints have any.
	Counters []string
	Sets     []Set
	Chains   []Chain
}

// Set is a set of a table or, where Value is not empty, a map.
type Set struct {
	Name string
	// Key and Value are types as nft writes them, such as "ipv4_addr . inet_service".
	Key   string
	Value string
	// TypeOf are expressions of Key's types, one by one; empty where nft can tell a set
	// by the types alone, which it cannot where one is a bare integer.
	TypeOf string
	// Interval allows prefixes and ranges as keys.
	Interval bool
	// Forgets is the time after which the kernel forgets elements that its rules
	// added; 0 for a set whose elements are podnet's. Such a set's elements are nobody's
	// to compare.
	Forgets  time.Duration
	Elements []Element
}

// Element is an element of a Set. The parts of concatenated keys and values are
// written one by one.
type Element struct {
	Key   []string
	Value []string
}

// Chain is a chain of a table.
type Chain struct {
	Name string
	// Base is where packets come in; zero for a chain that only others lead to.
	Base  Base
	Rules []Rule
}

// Base is where the kernel leads packets into a chain.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority Priority
}

// ChainType is what a base chain may do.
type ChainType string

// The types of chains.
const (
	TypeFilter ChainType = "filter"
	TypeNAT    ChainType = "nat"
)

// Hook is the point in a packet's way at which a base chain is met.
type Hook string

// The hooks.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// Priority orders the chains of a hook: the lower is met first.
type Priority struct {
	// Place is one that has a name; empty for 0.
	Place Place
	// Offset is how far behind it, or before it.
	Offset int
}

// Place is a priority that nft has a name for. The number depends on the family.
type Place string

// Places.
const (
	Raw    Place = "raw"
	Mangle Place = "mangle"
	DstNAT Place = "dstnat"
	Filter Place = "filter"
	SrcNAT Place = "srcnat"
)

// At returns the priority of a place, or one so far behind it.
func (p Place) At(offset int) Priority { return Priority{p, offset} }

// String writes the priority as nft takes it, such as dstnat-10.
func (p Priority) String() string {
	switch {
	case p.Place == "":
		return strconv.Itoa(p.Offset)
	case p.Offset == 0:
		return string(p.Place)
	default:
		return fmt.Sprintf("%s%+d", p.Place, p.Offset)
	}
}

// MarshalText implements encoding.TextMarshaler.
func (p Priority) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Rule is a rule of a chain. What the kernel holds cannot be read back
// as it was written, so rules that are read are compared by their fingerprints alone, which
// stand in the kernel as the rules' comments.
type Rule struct {
	// Text is the rule as nft takes it; empty in what was found.
	Text        string
	Fingerprint string
}

// Rules makes rules of their texts.
func Rules(texts ...string) []Rule {
	rules := make([]Rule, 0, len(texts))
	for _, t := range texts {
		rules = append(rules, Rule{Text: t})
	}
	return rules
}

// Sign fills in the fingerprints of a table's rules. They cover the
// declarations of all sets and chains too, so that whatever changes in the
// table's structure is seen.
func (t *Table) Sign() {
	structure := sha256.New()
	for _, s := range t.Sets {
		fmt.Fprintf(structure, "set %q %q %q %q %t %s\n", s.Name, s.Key, s.TypeOf, s.Value, s.Interval, s.Forgets)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(structure, "chain %q %q %q %q\n", c.Name, c.Base.Type, c.Base.Hook, c.Base.written())
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		for j := range c.Rules {
			sum := sha256.Sum256(fmt.Appendf(structure.Sum(nil), "%s %d %s", c.Name, j, c.Rules[j].Text))
			c.Rules[j].Fingerprint = hex.EncodeToString(sum[:8])
		}
	}
}

// written is the priority of a base chain, and nothing for other chains.
func (b Base) written() string {
	if b == (Base{}) {
		return ""
	}
	return b.Priority.String()
}

// Structure is the same for tables with the same sets, chains and rules, whatever their
// elements. Fingerprints of rules cover the declarations of the sets and chains.
func (t Table) Structure() string {
	var sets, chains []string
	for _, s := range t.Sets {
		sets = append(sets, s.Name)
	}
	for _, c := range t.Chains {
		prints := []string{c.Name}
		for _, r := range c.Rules {
			prints = append(prints, r.Fingerprint)
		}
		chains = append(chains, strings.Join(prints, " "))
	}
	slices.Sort(chains)
	return strings.Join(sets, " ") + "\n" + strings.Join(chains, "\n")
}

// Sort brings counters, sets and elements into one order, so that equal tables are equal.
func (t *Table) Sort() {
	slices.Sort(t.Counters)
	slices.SortFunc(t.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range t.Sets {
		slices.SortFunc(s.Elements, CompareElement)
	}
}

// Clone returns a copy that shares nothing that Sort changes.
func (t Table) Clone() Table {
	t.Counters, t.Sets = slices.Clone(t.Counters), slices.Clone(t.Sets)
	for i := range t.Sets {
		t.Sets[i].Elements = slices.Clone(t.Sets[i].Elements)
	}
	return t
}

// Mentions reports whether the key of an element of the table has one of some words in it.
func (t Table) Mentions(words []string) bool {
	for _, s := range t.Sets {
		if slices.ContainsFunc(s.Elements, func(e Element) bool {
			return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(e.Key, w) })
		}) {
			return true
		}
	}
	return false
}

// Compare orders tables by family and name.
func (t Table) Compare(other Table) int {
	return cmp.Or(cmp.Compare(t.Family, other.Family), strings.Compare(t.Name, other.Name))
}

// String names the table.
func (t Table) String() string { return fmt.Sprintf("nft table %s %s", t.Family, t.Name) }

// CompareElement orders the elements of a set by their keys.
func CompareElement(a, b Element) int { return slices.Compare(a.Key, b.Key) }
