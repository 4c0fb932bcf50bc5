package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Change turns a table into another one of its name, in one transaction. It is
// for tables whose chains come and go with what they are about, as those of network
// policy do: replacing such a table for each of its changes would cost as much as
// the table is large.
type Change struct {
	Family Family
	Table  string
	// Counters are made.
	Counters []string
	// Sets are made, with these elements and no others.
	Sets []Set
	// Chains are made, or have their rules replaced.
	Chains []Chain
	// Delete and Add are elements of other sets. What goes does so before what comes.
	Delete, Add []Elements
	// Old are emptied. Nothing leads to them any more, and they are to be deleted by
	// an operation of their own.
	Old Parts
}

// String names the change in words.
func (c Change) String() string {
	return fmt.Sprintf("change of %d chains, %d sets and the elements of %d more of %s",
		len(c.Chains), len(c.Sets), len(c.Delete)+len(c.Add), Table{Family: c.Family, Name: c.Table})
}

// Parts are parts of a table. Of the sets the names and values count.
type Parts struct {
	Family   Family
	Table    string
	Counters []string
	Sets     []Set
	Chains   []string
}

// String names the parts in words.
func (p Parts) String() string {
	return fmt.Sprintf("%d chains, %d sets and %d counters of %s",
		len(p.Chains), len(p.Sets), len(p.Counters), Table{Family: p.Family, Name: p.Table})
}

// Empty reports whether there are none.
func (p Parts) Empty() bool {
	return len(p.Counters) == 0 && len(p.Sets) == 0 && len(p.Chains) == 0
}

// Difference returns what turns have into want, both as they are written:
// with texts of rules, and counters, sets, elements and chains sorted. It reports false where the
// table has to be replaced as a whole.
//
// The kernel may count a chain as used for a while after the last element that led to
// it went (k8s.io/kubernetes#121046), so that what is old is only emptied here.
func Difference(want, have Table) (change Change, ok bool) {
	change = Change{Family: want.Family, Table: want.Name, Old: Parts{Family: want.Family, Table: want.Name}}
	change.Counters = missing(want.Counters, have.Counters)
	change.Old.Counters = missing(have.Counters, want.Counters)
	sets := map[string]Set{}
	for _, s := range have.Sets {
		sets[s.Name] = s
	}
	for _, w := range want.Sets {
		h, found := sets[w.Name]
		delete(sets, w.Name)
		switch {
		case !found:
			change.Sets = append(change.Sets, w)
		case w.Key != h.Key || w.Value != h.Value || w.Interval != h.Interval:
			return Change{}, false
		default:
			change.elements(want, w, h.Elements)
		}
	}
	for _, s := range have.Sets {
		if _, old := sets[s.Name]; old {
			s.Elements = nil
			change.Old.Sets = append(change.Old.Sets, s)
		}
	}
	chains := map[string]Chain{}
	for _, c := range have.Chains {
		chains[c.Name] = c
	}
	for _, w := range want.Chains {
		h, found := chains[w.Name]
		delete(chains, w.Name)
		switch {
		case !found:
			change.Chains = append(change.Chains, w)
		case w.Base != h.Base:
			return Change{}, false
		case !slices.Equal(w.Rules, h.Rules):
			change.Chains = append(change.Chains, w)
		}
	}
	for _, c := range have.Chains {
		if _, old := chains[c.Name]; old {
			change.Old.Chains = append(change.Old.Chains, c.Name)
		}
	}
	return change, true
}

// ChangedElements returns what changes the elements of have into those of want, a table of
// the same structure whose sets and elements are sorted too. Of sets whose elements are
// nobody's it returns nothing.
func ChangedElements(want, have Table) Change {
	c := Change{Family: want.Family, Table: want.Name}
	found := map[string]Set{}
	for _, s := range have.Sets {
		found[s.Name] = s
	}
	for _, w := range want.Sets {
		if w.Forgets == 0 {
			c.elements(want, w, found[w.Name].Elements)
		}
	}
	return c
}

// elements adds what turns the elements of a set into those that are wanted.
func (c *Change) elements(t Table, want Set, have []Element) {
	add, del := changedElements(want.Elements, have)
	if len(del) > 0 {
		c.Delete = append(c.Delete, ElementsOf(t, want, del))
	}
	if len(add) > 0 {
		c.Add = append(c.Add, ElementsOf(t, want, add))
	}
}

// changedElements returns the elements to add and those to delete, given both sorted; one
// whose value differs is among both.
func changedElements(want, have []Element) (add, del []Element) {
	for len(want) > 0 || len(have) > 0 {
		order := 0
		switch {
		case len(want) == 0:
			order = 1
		case len(have) == 0:
			order = -1
		default:
			order = CompareElement(want[0], have[0])
		}
		switch {
		case order < 0:
			add, want = append(add, want[0]), want[1:]
		case order > 0:
			del, have = append(del, have[0]), have[1:]
		default:
			if !slices.Equal(want[0].Value, have[0].Value) {
				add, del = append(add, want[0]), append(del, have[0])
			}
			want, have = want[1:], have[1:]
		}
	}
	return add, del
}

// Elements are elements of one set or map of a table.
type Elements struct {
	Family Family
	Table  string
	Set    string
	// Map says that Set is a map.
	Map  bool
	List []Element
}

// ElementsOf returns elements as those of a set of a table.
func ElementsOf(t Table, s Set, elements []Element) Elements {
	return Elements{Family: t.Family, Table: t.Name, Set: s.Name, Map: s.Value != "", List: elements}
}

// String names the elements in words.
func (e Elements) String() string {
	return fmt.Sprintf("%d elements of nft set %s of table %s %s", len(e.List), e.Set, e.Family, e.Table)
}

// missing returns what of a list is not in another one.
func missing(list, in []string) []string {
	return without(list, func(name string) bool { return slices.Contains(in, name) })
}

// Empty reports whether the change changes nothing.
func (c Change) Empty() bool {
	return len(c.Counters) == 0 && len(c.Sets) == 0 && len(c.Chains) == 0 && len(c.Delete) == 0 && len(c.Add) == 0 && c.Old.Empty()
}

// without returns what a predicate does not hold for, in a list of its own.
func without[T any](list []T, goes func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), goes)
}

// Without returns the parts that are not in a table.
func (p Parts) Without(t Table) Parts {
	p.Counters = missing(p.Counters, t.Counters)
	p.Sets = without(p.Sets, func(s Set) bool {
		return slices.ContainsFunc(t.Sets, func(is Set) bool { return is.Name == s.Name })
	})
	p.Chains = without(p.Chains, func(name string) bool {
		return slices.ContainsFunc(t.Chains, func(is Chain) bool { return is.Name == name })
	})
	return p
}

// With returns these parts and others of the same table.
func (p Parts) With(q Parts) Parts {
	q.Counters = slices.Concat(p.Counters, q.Counters)
	slices.Sort(q.Counters)
	q.Counters = slices.Compact(q.Counters)
	q.Sets = slices.Concat(p.Sets, q.Sets)
	q.Chains = slices.Concat(p.Chains, q.Chains)
	slices.SortFunc(q.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	q.Sets = slices.CompactFunc(q.Sets, func(a, b Set) bool { return a.Name == b.Name })
	slices.Sort(q.Chains)
	q.Chains = slices.Compact(q.Chains)
	return q
}
