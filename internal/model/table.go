package model

import (
	"net/netip"

	"github.com/podnet/podnet/internal/nft"
)

// Table is a table of nftables as an Object. Its rules have fingerprints.
type Table struct{ nft.Table }

type tableKey struct {
	family nft.Family
	name   string
}

// ObjectKind implements Object.
func (Table) ObjectKind() ObjectKind { return KindFirewall }

// Identity implements Object.
func (t Table) Identity() any { return tableKey{t.Family, t.Name} }

// On implements Object.
func (Table) On() string { return "" }

// IP implements Object.
func (Table) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (t Table) Describe() string { return t.String() }

// Detail implements Object.
func (Table) Detail(Object) string { return "" }

// Compare orders tables by family and name.
func (t Table) Compare(other Table) int { return t.Table.Compare(other.Table) }
