package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// modes answers which mode the objects ask for between this node and another.
// What depends on this node alone is computed once, and what depends on the
// other node's labels once for all nodes with the same labels.
type modes struct {
	otherwise model.Mode
	// rules are those RouteModes that can apply to this node, the winner first.
	rules []modeRule
	// known remembers the answer by the labels.
	known map[string]model.Mode
}

// modeRule is a RouteMode as seen from this node: it applies to every other node
// that one of the selectors selects.
type modeRule struct {
	mode   model.Mode
	others []model.Selector
}

func newModes(otherwise model.Mode, all []model.RouteMode, own map[string]string) *modes {
	m := &modes{otherwise: otherwise, known: map[string]model.Mode{}}
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b model.RouteMode) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	for _, r := range sorted {
		if others := othersOf(r, own); len(others) > 0 {
			m.rules = append(m.rules, modeRule{r.Mode, others})
		}
	}
	return m
}

// othersOf returns the selectors that the other node of a pair may match, given
// the labels of this one: a pair has one node of each selector, in either order.
func othersOf(r model.RouteMode, own map[string]string) []model.Selector {
	switch len(r.Between) {
	case 1:
		if r.Between[0].Matches(own) {
			return r.Between
		}
	case 2:
		var others []model.Selector
		for i, s := range r.Between {
			if s.Matches(own) {
				others = append(others, r.Between[1-i])
			}
		}
		return others
	}
	return nil
}

// between returns the mode for a node with these labels.
func (m *modes) between(labels map[string]string) model.Mode {
	if len(m.rules) == 0 {
		return m.otherwise
	}
	key := labelKey(labels)
	mode, ok := m.known[key]
	if !ok {
		mode = m.decide(labels)
		m.known[key] = mode
	}
	return mode
}

func (m *modes) decide(labels map[string]string) model.Mode {
	for _, r := range m.rules {
		if slices.ContainsFunc(r.others, func(s model.Selector) bool { return s.Matches(labels) }) {
			return r.mode
		}
	}
	return m.otherwise
}

// labelKey writes labels in one order.
func labelKey(labels map[string]string) string {
	var key strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&key, "%q=%q,", k, labels[k])
	}
	return key.String()
}
