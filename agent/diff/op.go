// Package diff computes the operations that turn what a kernel is into what it
// shall be. It is pure: it knows neither netlink nor nft, and leaves the doing
// to agent/kernel.
package diff

import (
	"fmt"
	"net/netip"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
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
	// Object is one of a State's lists, or Elements. Putting a Table replaces the whole of it.
	Object model.Object
}

// String names an operation and its object.
func (o Op) String() string { return fmt.Sprintf("%s %s", o.Verb, o.Object.Describe()) }

// Elements are elements of one set or map of a table: putting them adds them,
// deleting them takes them out.
type Elements struct{ nft.Elements }

// ObjectKind implements model.Object.
func (Elements) ObjectKind() model.ObjectKind { return model.KindFirewall }

// On implements model.Object.
func (Elements) On() string { return "" }

// IP implements model.Object.
func (Elements) IP() netip.Addr { return netip.Addr{} }

// Detail implements model.Object.
func (Elements) Detail(model.Object) string { return "" }

// Identity implements model.Object.
func (e Elements) Identity() any { return setKey{e.Family, e.Table, e.Set} }

// Describe implements model.Object.
func (e Elements) Describe() string { return e.String() }
