package paths

import (
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

// threeWays are those that there are and one that is made up: whoever adds a way has nothing to
// change in this package.
var threeWays = slices.Insert(slices.Clone(model.Ways), 1, model.Way{
	Path: "courier", Mode: "Courier", Name: "the courier", Devices: []string{"courier0"},
})

func TestThirdWayIsChosen(t *testing.T) {
	const courier = model.Path("courier")
	for name, c := range map[string]struct {
		want       model.Mode
		impossible []int
		taken      model.Path
		proofs     []model.Proof
		path, wish model.Path
		reason     model.PathReason
		why        string
	}{
		"what needs no proof comes first":         {want: model.ModeAuto, path: courier, reason: model.PathSecond, why: "The courier is taken because the routed path is not proven"},
		"a mode asks for it":                      {want: "Courier", path: courier},
		"the order decides between proven ones":   {want: model.ModeOverlay, taken: model.PathRouted, proofs: []model.Proof{failed, fresh, failed}, path: courier, reason: model.PathSecond, why: "those of the courier do"},
		"a better one takes over":                 {want: model.ModeAuto, taken: model.PathOverlay, proofs: []model.Proof{failed, fresh, fresh}, path: courier, reason: model.PathSecond, why: "its probes do not come back"},
		"one in good standing is not left for it": {want: model.ModeAuto, taken: courier, proofs: []model.Proof{nothing, suspect, fresh}, path: courier, reason: model.PathSecond, why: "not come back yet"},
		"a stale one is waited for":               {want: model.ModeAuto, taken: model.PathOverlay, proofs: []model.Proof{failed, stale, fresh}, path: model.PathOverlay, wish: courier, reason: model.PathSecond, why: "do not come back"},
		"but not on a path that fails":            {want: model.ModeAuto, taken: courier, proofs: []model.Proof{stale, failed, fresh}, path: model.PathOverlay, reason: model.PathSecond, why: "only begun"},
		"it stands in for what is impossible":     {want: model.ModeOverlay, impossible: []int{2}, path: courier, reason: model.PathFallback, why: "The courier is taken although Overlay is asked for"},
		"nothing is possible":                     {want: model.ModeAuto, impossible: []int{0, 1, 2}, path: model.PathDown, reason: model.PathImpossible, why: "the overlay is impossible because of chance, and so is the courier because of chance, and so is the routed path"},
	} {
		t.Run(name, func(t *testing.T) {
			q := model.PathQuestion{Want: c.want, Ways: waysTo(threeWays)}
			for _, i := range c.impossible {
				q.Ways[i].Obstacle = model.Obstacle{Reason: model.NoRoute, Text: "of chance"}
			}
			proofs := c.proofs
			if proofs == nil {
				proofs = []model.Proof{nothing, nothing, nothing}
			}
			d := Choose(q, model.Evidence{Taken: c.taken, Proofs: proofs})
			if d.Path != c.path || d.Wish != c.wish || d.Reason != c.reason || !strings.Contains(d.Why, c.why) {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestAnyHistoryOfThreeWays(t *testing.T) {
	for seed := range *seeds / 3 {
		playHistory(t, seed, newWorldOf(seed, threeWays))
	}
}
