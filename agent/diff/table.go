package diff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// TableChange turns a table into another one of its name, in one transaction. It is
// for tables whose chains come and go with what they are about, as those of network
// policy do: replacing such a table for each of its changes would cost as much as
// the table is large.
type TableChange struct {
	Family string
	Table  string
	// Counters are made.
	Counters []string
	// Sets are made, with these elements and no others.
	Sets []model.Set
	// Chains are made, or have their rules replaced.
	Chains []model.Chain
	// Changes are of the elements of other sets; what goes stands before what comes.
	Changes []Op
	// Old are emptied. Nothing leads to them any more, and they are to be deleted by
	// an operation of their own.
	Old TableParts
	partOfTable
}

// Identity implements model.Object.
func (c TableChange) Identity() any { return model.Table{Family: c.Family, Name: c.Table}.Identity() }

// Describe implements model.Object.
func (c TableChange) Describe() string {
	return fmt.Sprintf("change of %d chains, %d sets and the elements of %d more of nft table %s %s",
		len(c.Chains), len(c.Sets), len(c.Changes), c.Family, c.Table)
}

// TableParts are parts of a table. Of the sets the names and values count.
type TableParts struct {
	Family   string
	Table    string
	Counters []string
	Sets     []model.Set
	Chains   []string
	partOfTable
}

// Identity implements model.Object.
func (p TableParts) Identity() any { return model.Table{Family: p.Family, Name: p.Table}.Identity() }

// Describe implements model.Object.
func (p TableParts) Describe() string {
	return fmt.Sprintf("%d chains, %d sets and %d counters of nft table %s %s", len(p.Chains), len(p.Sets), len(p.Counters), p.Family, p.Table)
}

// Empty reports whether there are none.
func (p TableParts) Empty() bool {
	return len(p.Counters) == 0 && len(p.Sets) == 0 && len(p.Chains) == 0
}

// ChangeTable returns what turns have into want, both as internal/policy writes them:
// with texts of rules, and counters, sets, elements and chains sorted. It reports false where the
// table has to be replaced as a whole.
//
// The kernel may count a chain as used for a while after the last element that led to
// it went (k8s.io/kubernetes#121046), so that what is old is only emptied here.
func ChangeTable(want, have model.Table) (change TableChange, ok bool) {
	change = TableChange{Family: want.Family, Table: want.Name, Old: TableParts{Family: want.Family, Table: want.Name}}
	change.Counters = missing(want.Counters, have.Counters)
	change.Old.Counters = missing(have.Counters, want.Counters)
	sets := map[string]model.Set{}
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
			return TableChange{}, false
		default:
			put, del := changedElements(w.Elements, h.Elements)
			if len(del) > 0 {
				change.Changes = append(change.Changes, elementsOp(Delete, want, w, del))
			}
			if len(put) > 0 {
				change.Changes = append(change.Changes, elementsOp(Put, want, w, put))
			}
		}
	}
	for _, s := range have.Sets {
		if _, old := sets[s.Name]; old {
			s.Elements = nil
			change.Old.Sets = append(change.Old.Sets, s)
		}
	}
	chains := map[string]model.Chain{}
	for _, c := range have.Chains {
		chains[c.Name] = c
	}
	for _, w := range want.Chains {
		h, found := chains[w.Name]
		delete(chains, w.Name)
		switch {
		case !found:
			change.Chains = append(change.Chains, w)
		case w.Type != h.Type || w.Hook != h.Hook || w.Priority != h.Priority:
			return TableChange{}, false
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

// missing returns what of a list is not in another one.
func missing(list, in []string) []string {
	return remove(list, func(name string) bool { return slices.Contains(in, name) })
}

// Empty reports whether the change changes nothing.
func (c TableChange) Empty() bool {
	return len(c.Counters) == 0 && len(c.Sets) == 0 && len(c.Chains) == 0 && len(c.Changes) == 0 && c.Old.Empty()
}

// Without returns the parts that are not in a table.
func (p TableParts) Without(t model.Table) TableParts {
	p.Counters = missing(p.Counters, t.Counters)
	p.Sets = remove(p.Sets, func(s model.Set) bool {
		return slices.ContainsFunc(t.Sets, func(is model.Set) bool { return is.Name == s.Name })
	})
	p.Chains = remove(p.Chains, func(name string) bool {
		return slices.ContainsFunc(t.Chains, func(is model.Chain) bool { return is.Name == name })
	})
	return p
}

// With returns these parts and others of the same table.
func (p TableParts) With(q TableParts) TableParts {
	q.Counters = slices.Concat(p.Counters, q.Counters)
	slices.Sort(q.Counters)
	q.Counters = slices.Compact(q.Counters)
	q.Sets = slices.Concat(p.Sets, q.Sets)
	q.Chains = slices.Concat(p.Chains, q.Chains)
	slices.SortFunc(q.Sets, func(a, b model.Set) int { return strings.Compare(a.Name, b.Name) })
	q.Sets = slices.CompactFunc(q.Sets, func(a, b model.Set) bool { return a.Name == b.Name })
	slices.Sort(q.Chains)
	q.Chains = slices.Compact(q.Chains)
	return q
}
