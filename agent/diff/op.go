// Package diff computes the operations that turn what a kernel is into what it
// shall be. It is pure: it knows neither netlink nor nft, and leaves the doing
// to agent/kernel.
package diff

import "github.com/podnet/podnet/internal/model"

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
	// Object is a model.Link, Address, Route, Rule, Neighbour, FDBEntry, Sysctl
	// or Table, or an Elements. Putting a Table replaces the whole of it.
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
