package plan

import (
	"testing"

	"github.com/podnet/podnet/internal/model"
)

func TestEveryWayOfTheModelIsPlanned(t *testing.T) {
	if len(waysTo) != len(model.Ways) {
		t.Fatalf("%d ways are planned, and there are %d", len(waysTo), len(model.Ways))
	}
	seen := map[any]bool{}
	for _, w := range model.Ways {
		for _, mark := range []any{w.Path, w.Mode, w.Name, w.Table, w.Mark, w.Port, w.Source} {
			if seen[mark] {
				t.Errorf("%s shares %v with another way", w.Path, mark)
			}
			seen[mark] = true
		}
		for _, d := range w.Devices {
			if model.PathBy(d) != w.Path || !model.IsOwnLink(d) {
				t.Errorf("a route by %s is not known to be %s", d, w.Path)
			}
		}
	}
	if model.PathBy("eth0") != model.PathRouted || model.IsOwnLink("eth0") || !model.IsOwnLink(model.BridgeLink) {
		t.Error("links of the node are taken for podnet's")
	}
}
