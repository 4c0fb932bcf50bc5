package plan

import (
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
	otherwise asked
	// sorted are all RouteModes, the strongest first.
	sorted []model.RouteMode
	// rules are those RouteModes that can apply to this node, the strongest first.
	rules []modeRule
	// known remembers the answer by the labels.
	known map[string]asked
}

// asked is a mode and the name of the RouteMode that asks for it; no name stands
// for the PodNetwork.
type asked struct {
	mode   model.Mode
	forced bool
	by     string
}

// modeRule is a RouteMode as seen from this node: it applies to every other node
// that one of the selectors selects.
type modeRule struct {
	asked
	others []model.Selector
}

func newModes(otherwise model.Mode, all []model.RouteMode, own map[string]string) *modes {
	m := &modes{otherwise: asked{mode: otherwise}, sorted: slices.Clone(all), known: map[string]asked{}}
	slices.SortFunc(m.sorted, model.CompareStrength)
	for _, r := range m.sorted {
		if others := othersOf(r, own); len(others) > 0 {
			m.rules = append(m.rules, modeRule{asked{r.Mode, r.Forced, r.Name}, others})
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

// between returns what is asked for towards a node with these labels.
func (m *modes) between(labels map[string]string) asked {
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

func (m *modes) decide(labels map[string]string) asked {
	for _, r := range m.rules {
		if slices.ContainsFunc(r.others, func(s model.Selector) bool { return s.Matches(labels) }) {
			return r.asked
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
