package kernel

import (
	"slices"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

// What a State holds can be found, made, taken away and watched. Whoever adds a kind registers it in
// kinds, and needs no other change in here.
func TestEveryKindIsRegistered(t *testing.T) {
	lists := new(model.State).Lists()
	if len(kinds) != len(lists) {
		t.Errorf("a State has %d kinds, and %d are registered", len(lists), len(kinds))
	}
	lasting := []model.ObjectKind{model.KindPort, model.KindSysctl}
	untold := []model.ObjectKind{model.KindSysctl, model.KindFirewall}
	for _, l := range lists {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.of == l.Kind() })
		if i < 0 {
			t.Errorf("%s is not registered", l.Kind())
			continue
		}
		k := kinds[i]
		if k.find == nil || k.put == nil || (k.take == nil) != slices.Contains(lasting, k.of) {
			t.Errorf("%s cannot be found, made or taken away", k.of)
		}
		if told := k.news.read != nil && k.news.added != 0 && len(k.news.groups) > 0; told == slices.Contains(untold, k.of) {
			t.Errorf("%s is not watched", k.of)
		}
		if k.news.read != nil && k.news.added&3 != 0 {
			t.Errorf("%s: message %d is not that of what was added", k.of, k.news.added)
		}
	}
}

// An object of another type than its kind has is refused, and does not end the agent.
func TestObjectOfAnotherTypeIsRefused(t *testing.T) {
	for _, k := range kinds {
		if err := k.put(t.Context(), nil, nil, stranger{of: k.of}); err == nil {
			t.Errorf("%s: a stranger was put", k.of)
		}
	}
	if _, err := kindOf(stranger{of: "unheard-of"}); err == nil {
		t.Error("a kind that is not registered was found")
	}
}

// stranger says that it is of a kind, and is of none of its types.
type stranger struct {
	model.Object
	of model.ObjectKind
}

func (s stranger) ObjectKind() model.ObjectKind { return s.of }
