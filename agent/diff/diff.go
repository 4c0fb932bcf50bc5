package diff

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// Diff returns the operations that turn have into want, in an order in which
// each finds what it needs and packets keep their way: what is new is there
// before what is old goes. It is the same for any order of the lists.
//
//   - Parameters that name none of podnet's links come first, then the links,
//     then the parameters that name one.
//   - A link that cannot be changed in place is removed and made anew, and all
//     that was on it is put again.
//   - Addresses come before the routes that use them as source, and old ones go
//     after these routes have another: the kernel removes a route with its source.
//   - The firewall stands before the routes lead packets to it.
//
// Parameters that are no longer wanted stay as they are: what they were before
// is not known. So do ports, which go with their links.
func Diff(want, have model.State) []Op {
	want, have = sorted(want), sorted(have)
	remade := remadeLinks(want, have)
	have = withoutIPv6(without(have, remade), want.Links)

	var put, del model.State
	put.Links, del.Links = changes(want.Links, have.Links, func(l model.Link) string { return l.Name })
	put.Addresses, del.Addresses = changes(want.Addresses, have.Addresses, func(a model.Address) model.Address { return a })
	moved, gone := movedAddresses(want, del.Addresses)
	del.Addresses = gone
	have.Routes = withoutSources(have.Routes, moved)
	put.Routes, del.Routes = changes(want.Routes, have.Routes, routeKey)
	put.Rules, del.Rules = changes(want.Rules, have.Rules, func(r model.Rule) model.Rule { return r })
	put.Neighbours, del.Neighbours = changes(want.Neighbours, have.Neighbours, neighbourKey)
	put.FDB, del.FDB = changes(want.FDB, have.FDB, fdbKey)
	put.Ports, _ = changes(want.Ports, have.Ports, func(p model.Port) string { return p.Link })
	put.Sysctls, _ = changes(want.Sysctls, have.Sysctls, func(s model.Sysctl) string { return s.Key })
	firewall, oldTables := firewallOps(want.Firewall, have.Firewall)
	early, late := splitSysctls(put.Sysctls, want.Links)

	var ops opList
	appendOps(&ops, Put, early)
	appendOps(&ops, Delete, remade)
	appendOps(&ops, Put, put.Links)
	appendOps(&ops, Put, late)
	appendOps(&ops, Put, put.Ports)
	ops.addresses(put.Addresses, moved)
	ops = append(ops, firewall...)
	appendOps(&ops, Put, put.Neighbours)
	appendOps(&ops, Put, put.FDB)
	appendOps(&ops, Put, put.Routes)
	appendOps(&ops, Put, put.Rules)

	appendOps(&ops, Delete, del.Rules)
	appendOps(&ops, Delete, del.Routes)
	appendOps(&ops, Delete, del.FDB)
	appendOps(&ops, Delete, del.Neighbours)
	ops = append(ops, oldTables...)
	appendOps(&ops, Delete, del.Addresses)
	appendOps(&ops, Delete, del.Links)
	return ops
}

// Additions returns the operations that add a part, such as a pod's, to a kernel
// that has everything that the part needs. Its tables hold elements alone.
func Additions(part model.State) []Op {
	part = sorted(part)
	var ops opList
	appendOps(&ops, Put, part.Ports)
	appendOps(&ops, Put, part.Sysctls)
	appendOps(&ops, Put, part.Addresses)
	ops.elements(Put, part.Firewall)
	appendOps(&ops, Put, part.Neighbours)
	appendOps(&ops, Put, part.Routes)
	return ops
}

// Removals returns the operations that take away what Additions made, but for
// ports, parameters and addresses, which go with their links.
func Removals(part model.State) []Op {
	part = sorted(part)
	var ops opList
	appendOps(&ops, Delete, part.Routes)
	appendOps(&ops, Delete, part.Neighbours)
	ops.elements(Delete, part.Firewall)
	return ops
}

type opList []Op

func appendOps[T any](ops *opList, verb Verb, objects []T) {
	for _, o := range objects {
		*ops = append(*ops, Op{verb, o})
	}
}

// addresses puts addresses. One that moves to another link is put before it goes
// from the old one, so that it is never missing; on one link it cannot be twice.
func (ops *opList) addresses(put, moved []model.Address) {
	onOneLink := func(m model.Address) bool {
		return slices.ContainsFunc(put, func(p model.Address) bool { return p.Link == m.Link && p.Addr.Addr() == m.Addr.Addr() })
	}
	var before, after []model.Address
	for _, m := range moved {
		if onOneLink(m) {
			before = append(before, m)
		} else {
			after = append(after, m)
		}
	}
	appendOps(ops, Delete, before)
	appendOps(ops, Put, put)
	appendOps(ops, Delete, after)
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

type linkAddr struct {
	link string
	addr netip.Addr
}

type tableDst struct {
	table int
	dst   netip.Prefix
}

func routeKey(r model.Route) tableDst { return tableDst{r.Table, r.Dst} }

func neighbourKey(n model.Neighbour) linkAddr { return linkAddr{n.Link, n.Addr} }

type linkMAC struct {
	link string
	mac  model.MAC
}

func fdbKey(e model.FDBEntry) linkMAC { return linkMAC{e.Link, e.MAC} }

// changes returns what of want is not in have as it is, and what of have has a
// key that nothing in want has, both in the order in which they are given.
func changes[T comparable, K comparable](want, have []T, key func(T) K) (put, del []T) {
	found := make(map[K]T, len(have))
	for _, h := range have {
		found[key(h)] = h
	}
	wanted := make(map[K]bool, len(want))
	for _, w := range want {
		wanted[key(w)] = true
		if h, ok := found[key(w)]; !ok || h != w {
			put = append(put, w)
		}
	}
	for _, h := range have {
		if !wanted[key(h)] {
			del = append(del, h)
		}
	}
	return put, del
}

// remadeLinks returns the links that have to be removed because the kernel does
// not change what makes a VXLAN device, as they are found. The source of its outer
// packets, and the interface that these leave by, it does change.
func remadeLinks(want, have model.State) []model.Link {
	var remade []model.Link
	for _, h := range have.Links {
		i := slices.IndexFunc(want.Links, func(w model.Link) bool { return w.Name == h.Name })
		if i < 0 {
			continue
		}
		w := want.Links[i]
		if w.Kind != h.Kind || w.VNI != h.VNI || w.Port != h.Port {
			remade = append(remade, h)
		}
	}
	return remade
}

// without returns the state as the kernel leaves it when the links are removed.
func without(s model.State, links []model.Link) model.State {
	if len(links) == 0 {
		return s
	}
	on := func(link string) bool {
		return slices.ContainsFunc(links, func(l model.Link) bool { return l.Name == link })
	}
	var lost []model.Address
	for _, a := range s.Addresses {
		if on(a.Link) {
			lost = append(lost, a)
		}
	}
	s.Links = remove(s.Links, func(l model.Link) bool { return on(l.Name) })
	s.Addresses = remove(s.Addresses, func(a model.Address) bool { return on(a.Link) })
	s.Neighbours = remove(s.Neighbours, func(n model.Neighbour) bool { return on(n.Link) })
	s.FDB = remove(s.FDB, func(e model.FDBEntry) bool { return on(e.Link) })
	s.Ports = remove(s.Ports, func(p model.Port) bool { return on(p.Bridge) })
	s.Routes = withoutSources(remove(s.Routes, func(r model.Route) bool { return on(r.Link) }), lost)
	s.Sysctls = remove(s.Sysctls, func(p model.Sysctl) bool { return on(sysctlLink(p.Key)) })
	return s
}

// withoutIPv6 returns the state as the kernel leaves it when the links are as wanted:
// it takes all that is of IPv6 off those that carry less than IPv6 needs.
func withoutIPv6(s model.State, wanted []model.Link) model.State {
	var small []string
	for _, l := range wanted {
		if l.MTU < model.MinIPv6MTU {
			small = append(small, l.Name)
		}
	}
	if len(small) == 0 {
		return s
	}
	lost := func(link string, a netip.Addr) bool { return a.Is6() && slices.Contains(small, link) }
	s.Addresses = remove(s.Addresses, func(a model.Address) bool { return lost(a.Link, a.Addr.Addr()) })
	s.Neighbours = remove(s.Neighbours, func(n model.Neighbour) bool { return lost(n.Link, n.Addr) })
	s.Routes = remove(s.Routes, func(r model.Route) bool { return lost(r.Link, r.Dst.Addr()) })
	return s
}

// remove returns what a predicate does not hold for, in a list of its own.
func remove[T any](list []T, goes func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), goes)
}

// movedAddresses tells the addresses to delete that another link or prefix
// length is to have from those that go altogether.
func movedAddresses(want model.State, del []model.Address) (moved, gone []model.Address) {
	for _, d := range del {
		if slices.ContainsFunc(want.Addresses, func(w model.Address) bool { return w.Addr.Addr() == d.Addr.Addr() }) {
			moved = append(moved, d)
		} else {
			gone = append(gone, d)
		}
	}
	return moved, gone
}

// withoutSources leaves out the routes that may go, or lose their source, with
// an address.
func withoutSources(routes []model.Route, lost []model.Address) []model.Route {
	if len(lost) == 0 {
		return routes
	}
	return remove(routes, func(r model.Route) bool {
		return slices.ContainsFunc(lost, func(a model.Address) bool { return a.Addr.Addr() == r.Src })
	})
}

// splitSysctls tells the parameters that can be set before the links are there
// from those of the links, and keeps their order.
func splitSysctls(sysctls []model.Sysctl, links []model.Link) (early, late []model.Sysctl) {
	for _, s := range sysctls {
		if slices.ContainsFunc(links, func(l model.Link) bool { return l.Name == sysctlLink(s.Key) }) {
			late = append(late, s)
		} else {
			early = append(early, s)
		}
	}
	return early, late
}

// sysctlLink returns the link that a parameter is of, or nothing: keys of links
// are net/<family>/conf/<link>/<parameter>, and the same with neigh.
func sysctlLink(key string) string {
	parts := strings.Split(key, "/")
	if len(parts) != 5 || parts[0] != "net" || parts[2] != "conf" && parts[2] != "neigh" {
		return ""
	}
	return parts[3]
}

// sorted returns a sorted copy of a state.
func sorted(s model.State) model.State {
	out := model.State{
		Links: slices.Clone(s.Links), Addresses: slices.Clone(s.Addresses), Routes: slices.Clone(s.Routes),
		Rules: slices.Clone(s.Rules), Neighbours: slices.Clone(s.Neighbours), FDB: slices.Clone(s.FDB),
		Sysctls: slices.Clone(s.Sysctls), Ports: slices.Clone(s.Ports),
	}
	for _, t := range s.Firewall {
		t.Sets = slices.Clone(t.Sets)
		for i := range t.Sets {
			t.Sets[i].Elements = slices.Clone(t.Sets[i].Elements)
		}
		out.Firewall = append(out.Firewall, t)
	}
	out.Sort()
	return out
}
