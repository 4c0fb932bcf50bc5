package diff

import (
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// Diff returns the operations that turn have into want, in an order in which
// each finds what it needs and packets keep their way: what is new is there
// before what is old goes. It is the same for any order of the lists.
//
//   - Parameters that name none of podnet's links come first, then the links,
//     then the parameters that name one.
//   - A link that cannot be changed in place is removed and recreated, and all
//     that was on it is put again.
//   - Addresses come before the routes that use them as source, and old ones go
//     after these routes have another: the kernel removes a route with its source.
//   - The firewall stands before the routes lead packets to it.
//
// Parameters that are no longer wanted stay as they are: what they were before
// is unknown. So do ports, which go with their links.
func Diff(want, have model.State) []Op {
	want, have = sorted(want), sorted(have)
	recreated := recreatedLinks(want, have)
	have = withoutIPv6(without(have, recreated), want.Links)

	var first, ops opList
	var gone [][]model.Object
	found := have.Lists()
	for i, list := range want.Lists() {
		put, del := list.Changes(found[i])
		switch list.Kind() {
		case model.KindSysctl:
			late, early := split(put, func(o model.Object) bool { return hasLink(want.Links, o.On()) })
			add(&first, Put, early)
			put = late
		case model.KindLink:
			add(&ops, Delete, recreated)
		case model.KindAddress:
			var moved []model.Object
			moved, del = split(del, func(o model.Object) bool { return hasAddress(want.Addresses, o.IP()) })
			have.Routes = withoutSources(have.Routes, moved)
			ops.addresses(put, moved)
			put = nil
		}
		add(&ops, Put, put)
		if list.Kind() == model.KindFirewall {
			ops = append(ops, elementChanges(want.Firewall, have.Firewall)...)
		}
		gone = append(gone, del)
	}
	for _, del := range slices.Backward(gone) {
		add(&ops, Delete, del)
	}
	return slices.Concat(first, ops)
}

// Additions returns the operations that add a part, such as a pod's, to a kernel
// that has everything that the part needs. Its tables hold elements alone.
func Additions(part model.State) []Op {
	part = sorted(part)
	var ops opList
	for _, list := range part.Lists() {
		if list.Kind() == model.KindFirewall {
			ops.elements(Put, part.Firewall)
			continue
		}
		list.Each(func(o model.Object) { ops = append(ops, Op{Put, o}) })
	}
	return ops
}

// Removals returns the operations that take away what Additions made, but for
// ports, parameters and addresses, which go with their links.
func Removals(part model.State) []Op {
	part = sorted(part)
	var ops opList
	var nothing model.State
	lists := part.Lists()
	for i, none := range slices.Backward(nothing.Lists()) {
		switch none.Kind() {
		case model.KindFirewall:
			ops.elements(Delete, part.Firewall)
		case model.KindAddress:
		default:
			_, del := none.Changes(lists[i])
			add(&ops, Delete, del)
		}
	}
	return ops
}

type opList []Op

func add[T model.Object](ops *opList, verb Verb, objects []T) {
	for _, o := range objects {
		*ops = append(*ops, Op{verb, o})
	}
}

// addresses puts addresses. One that moves to another link is put before it goes
// from the old one, so that it is never missing; on one link it cannot be twice.
func (ops *opList) addresses(put, moved []model.Object) {
	before, after := split(moved, func(m model.Object) bool {
		return slices.ContainsFunc(put, func(p model.Object) bool { return p.On() == m.On() && p.IP() == m.IP() })
	})
	add(ops, Delete, before)
	add(ops, Put, put)
	add(ops, Delete, after)
}

func (ops *opList) elements(verb Verb, tables []model.Table) {
	for _, t := range tables {
		for _, s := range t.Sets {
			if len(s.Elements) > 0 {
				*ops = append(*ops, elementsOp(verb, t, s, s.Elements))
			}
		}
	}
}

// recreatedLinks returns the links that have to be removed because the kernel does
// not change what makes a VXLAN device, as they are found. The source of its outer
// packets, and the interface that these leave by, it does change.
func recreatedLinks(want, have model.State) []model.Link {
	var recreated []model.Link
	for _, h := range have.Links {
		i, wanted := slices.BinarySearchFunc(want.Links, h, model.Link.Compare)
		if w := want.Links; wanted && (w[i].Kind != h.Kind || w[i].VNI != h.VNI || w[i].Port != h.Port) {
			recreated = append(recreated, h)
		}
	}
	return recreated
}

// without returns the state as the kernel leaves it when the links are removed.
func without(s model.State, links []model.Link) model.State {
	if len(links) == 0 {
		return s
	}
	goes := func(o model.Object) bool { return hasLink(links, o.On()) }
	var lost []model.Object
	for _, a := range s.Addresses {
		if goes(a) {
			lost = append(lost, a)
		}
	}
	for _, list := range s.Lists() {
		list.Remove(goes)
	}
	s.Links = remove(s.Links, func(l model.Link) bool { return hasLink(links, l.Name) })
	s.Routes = withoutSources(s.Routes, lost)
	return s
}

// withoutIPv6 returns the state as the kernel leaves it when the links are as wanted:
// it takes all that is of IPv6 off those that carry less than IPv6 needs.
func withoutIPv6(s model.State, wanted []model.Link) model.State {
	small := remove(wanted, func(l model.Link) bool { return l.MTU >= model.MinIPv6MTU })
	if len(small) == 0 {
		return s
	}
	for _, list := range s.Lists() {
		list.Remove(func(o model.Object) bool { return o.IP().Is6() && hasLink(small, o.On()) })
	}
	return s
}

// remove returns what a predicate does not hold for, in a list of its own.
func remove[T any](list []T, goes func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), goes)
}

// split returns what a predicate holds for, and the rest, both in their order.
func split(objects []model.Object, holds func(model.Object) bool) (those, others []model.Object) {
	for _, o := range objects {
		if holds(o) {
			those = append(those, o)
		} else {
			others = append(others, o)
		}
	}
	return those, others
}

func hasLink(links []model.Link, name string) bool {
	return slices.ContainsFunc(links, func(l model.Link) bool { return l.Name == name })
}

func hasAddress(addresses []model.Address, addr netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(a model.Address) bool { return a.Addr.Addr() == addr })
}

// withoutSources leaves out the routes that may go, or lose their source, with
// an address.
func withoutSources(routes []model.Route, lost []model.Object) []model.Route {
	if len(lost) == 0 {
		return routes
	}
	return remove(routes, func(r model.Route) bool {
		return slices.ContainsFunc(lost, func(a model.Object) bool { return a.IP() == r.Src })
	})
}

// sorted returns a sorted copy of a state.
func sorted(s model.State) model.State {
	s = s.Clone()
	s.Sort()
	return s
}
