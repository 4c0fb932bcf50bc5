package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Rule sends the packets of a family to one of podnet's tables.
type Rule struct {
	// IPv6 is the family: false for IPv4.
	IPv6     bool
	Priority int
	Table    int
	// Mark restricts the rule to packets with this mark; 0 for all packets.
	Mark uint32
	// In restricts it to packets that come in by this link; empty for all packets.
	In string
}

// ObjectKind implements Object.
func (Rule) ObjectKind() ObjectKind { return KindRule }

// Identity implements Object.
func (r Rule) Identity() any { return r }

// On implements Object.
func (Rule) On() string { return "" }

// IP implements Object.
func (Rule) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (r Rule) Describe() string {
	family := "IPv4"
	if r.IPv6 {
		family = "IPv6"
	}
	return fmt.Sprintf("%s rule of priority %d to table %d", family, r.Priority, r.Table)
}

// Detail implements Object.
func (Rule) Detail(Object) string { return "" }

// Compare orders rules by family, priority and table.
func (r Rule) Compare(other Rule) int {
	return cmp.Or(compareBool(r.IPv6, other.IPv6), cmp.Compare(r.Priority, other.Priority), cmp.Compare(r.Table, other.Table),
		strings.Compare(r.In, other.In), cmp.Compare(r.Mark, other.Mark))
}
