// Package diff computes the operations that turn what a kernel is into what it
// shall be. It is pure: it knows neither netlink nor nft, and leaves the doing
// to agent/kernel.
package diff

import (
	"fmt"

	"github.com/podnet/podnet/internal/model"
)

// Verb is what an operation does with its object.
type Verb string

// The verbs. Put makes the object, or replaces the one of the same identity in
// one atomic step; Delete removes it and is content where it is gone already.
const (
	Put    Verb = "put"
	Delete Verb = "delete"
)

// Op is one operation on the kernel.
type Op struct {
	Verb Verb
	// Object is a model.Link, Address, Route, Rule, Neighbour, FDBEntry, Port, Sysctl
	// or Table, or an Elements, TableChange or TableParts. Putting a Table replaces the
	// whole of it.
	Object any
}

// Elements are elements of one set or map of a table: putting them adds them,
// deleting them takes them out.
type Elements struct {
	Family string
	Table  string
	Set    string
	// Map says that Set is a map.
	Map      bool
	Elements []model.Element
}

// String names an operation and its object.
func (o Op) String() string { return fmt.Sprintf("%s %s", o.Verb, Describe(o.Object)) }

// Describe names an object of an operation in words.
func Describe(object any) string {
	switch o := object.(type) {
	case model.Link:
		return fmt.Sprintf("%s link %s", o.Kind, o.Name)
	case model.Address:
		return fmt.Sprintf("address %s on %s", o.Addr, o.Link)
	case model.Route:
		what := "route to " + o.Dst.String()
		if o.Table != 0 {
			what = fmt.Sprintf("route of table %d to %s", o.Table, o.Dst)
		}
		switch {
		case o.Unreachable:
			return "unreachable " + what
		case o.Via.IsValid():
			return what + fmt.Sprintf(" via %s on %s", o.Via, o.Link)
		default:
			return what + " on " + o.Link
		}
	case model.Rule:
		return fmt.Sprintf("%s rule of priority %d to table %d", familyName(o.IPv6), o.Priority, o.Table)
	case model.Neighbour:
		return fmt.Sprintf("neighbour %s on %s", o.Addr, o.Link)
	case model.FDBEntry:
		return fmt.Sprintf("forwarding entry of %s to %s on %s", o.MAC, o.Endpoint, o.Link)
	case model.Port:
		return fmt.Sprintf("port %s of bridge %s", o.Link, o.Bridge)
	case model.Sysctl:
		return fmt.Sprintf("sysctl %s=%s", o.Key, o.Value)
	case model.Table:
		return fmt.Sprintf("nft table %s %s", o.Family, o.Name)
	case Elements:
		return fmt.Sprintf("%d elements of nft set %s of table %s %s", len(o.Elements), o.Set, o.Family, o.Table)
	case TableChange:
		return fmt.Sprintf("change of %d chains, %d sets and the elements of %d more of nft table %s %s",
			len(o.Chains), len(o.Sets), len(o.Changes), o.Family, o.Table)
	case TableParts:
		return fmt.Sprintf("%d chains, %d sets and %d counters of nft table %s %s", len(o.Chains), len(o.Sets), len(o.Counters), o.Family, o.Table)
	}
	return fmt.Sprintf("%T", object)
}

func familyName(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}
