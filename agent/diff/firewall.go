package diff

import (
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// elementChanges returns the operations on the elements of the tables that stay, which are sorted.
func elementChanges(want, have []model.Table) []Op {
	var ops []Op
	for _, w := range want {
		i, there := slices.BinarySearchFunc(have, w, model.Table.Compare)
		if there && have[i].Structure() == w.Structure() {
			ops = append(ops, elementOps(w, have[i])...)
		}
	}
	return ops
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
		put, del := changedElements(w.Elements, found[w.Name].Elements)
		if len(del) > 0 {
			ops = append(ops, elementsOp(Delete, want, w, del))
		}
		if len(put) > 0 {
			ops = append(ops, elementsOp(Put, want, w, put))
		}
	}
	return ops
}

// changedElements returns the elements to put and those to delete, given both sorted; one
// whose value differs is among both.
func changedElements(want, have []model.Element) (put, del []model.Element) {
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
