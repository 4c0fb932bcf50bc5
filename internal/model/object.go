package model

import (
	"net/netip"
	"slices"
)

// Object is something in a node's kernel that podnet makes. Of each kind there is one type
// of Object, in a file of its own, and a list in State.Lists.
type Object interface {
	ObjectKind() ObjectKind
	// Identity is comparable and tells the object from all others: putting it replaces the one
	// of the same identity.
	Identity() any
	// On is the link that the object is on, and with which it goes; empty for none.
	On() string
	// IP is the address that the object is about, or the first one of the prefix; invalid for none.
	IP() netip.Addr
	// Describe names the object in words.
	Describe() string
	// Detail says in words in what the object differs from one of the same identity.
	Detail(other Object) string
}

// ObjectKind is a kind of objects, as metrics name it.
type ObjectKind string

// The kinds.
const (
	KindLink      ObjectKind = "link"
	KindSysctl    ObjectKind = "sysctl"
	KindPort      ObjectKind = "port"
	KindAddress   ObjectKind = "address"
	KindFirewall  ObjectKind = "firewall"
	KindNeighbour ObjectKind = "neighbour"
	KindFDB       ObjectKind = "fdb"
	KindRoute     ObjectKind = "route"
	KindRule      ObjectKind = "rule"
)

// Lists returns the lists of the state, each with the objects of one kind, in the order in which
// they are made, so that each finds what it needs; they go in the opposite order.
func (s *State) Lists() []List {
	return []List{
		plain(&s.Links),
		inOrder[Sysctl]{lasting(plain(&s.Sysctls))},
		lasting(plain(&s.Ports)),
		plain(&s.Addresses),
		tables{list[Table]{objects: &s.Firewall, same: func(a, b Table) bool { return a.Structure() == b.Structure() }}},
		plain(&s.Neighbours),
		plain(&s.FDB),
		plain(&s.Routes),
		plain(&s.Rules),
	}
}

// List is one list of a State.
type List interface {
	Kind() ObjectKind
	Each(f func(Object))
	Add(o Object)
	Remove(goes func(Object) bool)
	// Changes returns what of the list is not in another list of its kind as it is, and what of
	// that has an identity that nothing in this list has, both in their order. Both lists are as
	// Sort leaves them.
	Changes(have List) (put, del []Object)

	sort()
	clone()
}

// Sort brings the lists of the state into one order, so that equal states print
// and compare equal. Sysctls keep theirs, which has a meaning.
func (s *State) Sort() {
	for _, l := range s.Lists() {
		l.sort()
	}
}

// Clone returns a copy that shares nothing that Sort and lists change.
func (s State) Clone() State {
	for _, l := range s.Lists() {
		l.clone()
	}
	return s
}

// ordered are objects that Compare brings into an order: to those of the same identity it says 0.
type ordered[T any] interface {
	Object
	Compare(other T) int
}

type list[T ordered[T]] struct {
	objects *[]T
	// same reports whether two objects of one identity are as each other.
	same func(a, b T) bool
	// lasts says that the objects are not taken away for themselves.
	lasts bool
}

// plain is a list of objects that are compared as the values that they are.
func plain[T interface {
	comparable
	ordered[T]
}](objects *[]T) list[T] {
	return list[T]{objects: objects, same: func(a, b T) bool { return a == b }}
}

// lasting is a list of objects that go with their links alone, or of which it is unknown
// what they were before.
func lasting[T ordered[T]](l list[T]) list[T] {
	l.lasts = true
	return l
}

// Kind implements List.
func (l list[T]) Kind() ObjectKind {
	var object T
	return object.ObjectKind()
}

// Each implements List.
func (l list[T]) Each(f func(Object)) {
	for _, o := range *l.objects {
		f(o)
	}
}

// Add implements List.
func (l list[T]) Add(o Object) {
	if object, ok := o.(T); ok {
		*l.objects = append(*l.objects, object)
	}
}

// Remove implements List.
func (l list[T]) Remove(goes func(Object) bool) {
	*l.objects = slices.DeleteFunc(*l.objects, func(o T) bool { return goes(o) })
}

// Changes implements List.
func (l list[T]) Changes(have List) (put, del []Object) {
	want, found := *l.objects, all[T](have)
	for len(want) > 0 || len(found) > 0 {
		order := 0
		switch {
		case len(want) == 0:
			order = 1
		case len(found) == 0:
			order = -1
		default:
			order = want[0].Compare(found[0])
		}
		switch {
		case order < 0:
			put, want = append(put, want[0]), want[1:]
		case order > 0:
			if !l.lasts {
				del = append(del, found[0])
			}
			found = found[1:]
		default:
			if !l.same(want[0], found[0]) {
				put = append(put, want[0])
			}
			want, found = want[1:], found[1:]
		}
	}
	return put, del
}

func (l list[T]) all() []T { return *l.objects }

// all returns the objects of a list of a kind.
func all[T any](l List) []T {
	if of, ok := l.(interface{ all() []T }); ok {
		return of.all()
	}
	return nil
}

func (l list[T]) sort() { slices.SortFunc(*l.objects, T.Compare) }

func (l list[T]) clone() { *l.objects = slices.Clone(*l.objects) }

// inOrder is a list whose order has a meaning, which it keeps.
type inOrder[T ordered[T]] struct{ list[T] }

func (l inOrder[T]) sort() {}

// Changes implements List.
func (l inOrder[T]) Changes(have List) (put, del []Object) {
	found := slices.SortedFunc(slices.Values(all[T](have)), T.Compare)
	for _, want := range *l.objects {
		if i, ok := slices.BinarySearchFunc(found, want, T.Compare); !ok || !l.same(want, found[i]) {
			put = append(put, want)
		}
	}
	return put, nil
}

// tables is the list of tables, which hold lists themselves.
type tables struct{ list[Table] }

func (l tables) sort() {
	l.list.sort()
	for i := range *l.objects {
		(*l.objects)[i].Sort()
	}
}

func (l tables) clone() {
	l.list.clone()
	for i := range *l.objects {
		t := &(*l.objects)[i]
		t.Table = t.Table.Clone()
	}
}
