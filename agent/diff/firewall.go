package diff

import (
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

type tableKey struct{ family, name string }

// firewallOps returns the operations on the tables, which are sorted: what is to be put or
// changed, and separately the deletion of tables that are no longer wanted. A
// table whose structure is not as wanted is replaced as a whole; otherwise only
// the elements that differ are touched.
func firewallOps(want, have []model.Table) (change, old []Op) {
	found := map[tableKey]model.Table{}
	for _, t := range have {
		found[tableKey{t.Family, t.Name}] = t
	}
	for _, w := range want {
		key := tableKey{w.Family, w.Name}
		h, ok := found[key]
		delete(found, key)
		if !ok || !sameStructure(w, h) {
			change = append(change, Op{Put, w})
			continue
		}
		change = append(change, elementOps(w, h)...)
	}
	for _, h := range have {
		if _, ok := found[tableKey{h.Family, h.Name}]; ok {
			old = append(old, Op{Delete, model.Table{Family: h.Family, Name: h.Name}})
		}
	}
	return change, old
}

// sameStructure says whether two tables have the same sets, chains and rules.
// Fingerprints of rules cover the declarations of the sets and chains.
func sameStructure(a, b model.Table) bool {
	return slices.Equal(setNames(a), setNames(b)) && slices.Equal(fingerprints(a), fingerprints(b))
}

func setNames(t model.Table) []string {
	var names []string
	for _, s := range t.Sets {
		names = append(names, s.Name)
	}
	return names
}

// fingerprints returns the rules of all chains, each chain's in their order.
func fingerprints(t model.Table) []string {
	var all []string
	for _, c := range t.Chains {
		prints := []string{c.Name}
		for _, r := range c.Rules {
			prints = append(prints, r.Fingerprint)
		}
		all = append(all, strings.Join(prints, " "))
	}
	slices.Sort(all)
	return all
}

// elementOps returns the changes of elements, set by set. What goes does so
// before what comes: a key has one value, and prefixes of a set do not overlap.
// Nothing lies between the two, so that they can be one transaction.
func elementOps(want, have model.Table) []Op {
	found := map[string]model.Set{}
	for _, s := range have.Sets {
		found[s.Name] = s
	}
	var ops []Op
	for _, w := range want.Sets {
		if w.Forgets > 0 {
			continue
		}
		put, del := elementChanges(w.Elements, found[w.Name].Elements)
		if len(del) > 0 {
			ops = append(ops, elementsOp(Delete, want, w, del))
		}
		if len(put) > 0 {
			ops = append(ops, elementsOp(Put, want, w, put))
		}
	}
	return ops
}

// elementChanges returns the elements to put and those to delete, given both sorted; one
// whose value differs is among both.
func elementChanges(want, have []model.Element) (put, del []model.Element) {
	for len(want) > 0 || len(have) > 0 {
		order := 0
		switch {
		case len(want) == 0:
			order = 1
		case len(have) == 0:
			order = -1
		default:
			order = model.CompareElement(want[0], have[0])
		}
		switch {
		case order < 0:
			put, want = append(put, want[0]), want[1:]
		case order > 0:
			del, have = append(del, have[0]), have[1:]
		default:
			if !slices.Equal(want[0].Value, have[0].Value) {
				put, del = append(put, want[0]), append(del, have[0])
			}
			want, have = want[1:], have[1:]
		}
	}
	return put, del
}

func elementsOp(verb Verb, t model.Table, s model.Set, elements []model.Element) Op {
	return Op{verb, Elements{Family: t.Family, Table: t.Name, Set: s.Name, Map: s.Value != "", Elements: elements}}
}
