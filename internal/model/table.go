package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Table is an nftables table that is podnet's alone.
type Table struct {
	// Family is inet, bridge or arp.
	Family string
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
	// added; 0 for a set whose elements are podnet's. Such a set's elements are no
	// part of a State.
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
	// Type is filter or nat, Hook and Priority are as nft writes them, such as
	// prerouting and dstnat-10. All are empty for a chain that only others lead to.
	Type     string
	Hook     string
	Priority string
	Rules    []FirewallRule
}

// FirewallRule is a rule of a chain. What the kernel holds cannot be read back
// as it was written, so rules are compared by their fingerprints alone, which
// stand in the kernel as the rules' comments.
type FirewallRule struct {
	// Text is the rule as nft takes it; empty in what was found.
	Text        string
	Fingerprint string
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
		fmt.Fprintf(structure, "chain %q %q %q %q\n", c.Name, c.Type, c.Hook, c.Priority)
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		for j := range c.Rules {
			sum := sha256.Sum256(fmt.Appendf(structure.Sum(nil), "%s %d %s", c.Name, j, c.Rules[j].Text))
			c.Rules[j].Fingerprint = hex.EncodeToString(sum[:8])
		}
	}
}

type tableKey struct{ family, name string }

// ObjectKind implements Object.
func (Table) ObjectKind() ObjectKind { return KindFirewall }

// Identity implements Object.
func (t Table) Identity() any { return tableKey{t.Family, t.Name} }

// On implements Object.
func (Table) On() string { return "" }

// IP implements Object.
func (Table) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (t Table) Describe() string { return fmt.Sprintf("nft table %s %s", t.Family, t.Name) }

// Detail implements Object.
func (Table) Detail(Object) string { return "" }

// Compare orders tables by family and name.
func (t Table) Compare(other Table) int {
	return cmp.Or(strings.Compare(t.Family, other.Family), strings.Compare(t.Name, other.Name))
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
