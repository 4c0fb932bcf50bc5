package paths

import (
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

// Proofs as they are found.
var (
	nothing = model.Proof{Standing: model.Unproven}
	fresh   = model.Proof{Standing: model.Proven, Fresh: true}
	stale   = model.Proof{Standing: model.Proven}
	suspect = model.Proof{Standing: model.Suspect}
	failed  = model.Proof{Standing: model.Failed}
)

// waysTo are some ways, none of which has an obstacle.
func waysTo(ways []model.Way) []model.WayTo {
	to := make([]model.WayTo, len(ways))
	for i := range ways {
		to[i] = model.WayTo{Way: &ways[i], Limit: 1500 - 50*i}
	}
	return to
}

func TestChoose(t *testing.T) {
	const noRoute, noVXLAN = "this node has no route to the endpoint", "this node's kernel cannot make VXLAN devices (module vxlan)"
	type obstacles = [2]string
	type proofs = [2]model.Proof
	const none, direct, tunnel, gone = model.Path(""), model.PathRouted, model.PathOverlay, model.PathDown
	for name, c := range map[string]struct {
		want      model.Mode
		forced    bool
		obstacles obstacles
		taken     model.Path
		proofs    proofs
		path      model.Path
		diverges  bool
		wish      model.Path
		because   []string
	}{
		"auto begins with the overlay":                          {model.ModeAuto, false, obstacles{}, none, proofs{nothing, nothing}, tunnel, false, none, []string{"not come back yet"}},
		"routed begins with the overlay":                        {model.ModeRouted, false, obstacles{}, none, proofs{nothing, nothing}, tunnel, true, none, []string{"not come back yet"}},
		"overlay begins with the overlay":                       {model.ModeOverlay, false, obstacles{}, none, proofs{nothing, nothing}, tunnel, false, none, nil},
		"no mode is auto":                                       {"", false, obstacles{}, none, proofs{nothing, nothing}, tunnel, false, none, []string{"not proven"}},
		"auto is routed where that is proven":                   {model.ModeAuto, false, obstacles{}, tunnel, proofs{fresh, fresh}, direct, false, none, nil},
		"routed is routed where that is proven":                 {model.ModeRouted, false, obstacles{}, tunnel, proofs{fresh, nothing}, direct, false, none, nil},
		"overlay leaves a routed path when proven":              {model.ModeOverlay, false, obstacles{}, direct, proofs{fresh, fresh}, tunnel, false, none, nil},
		"overlay keeps the routed path until then":              {model.ModeOverlay, false, obstacles{}, direct, proofs{fresh, nothing}, direct, true, none, []string{"not come back yet"}},
		"an old proof has to be made again":                     {model.ModeAuto, false, obstacles{}, tunnel, proofs{stale, fresh}, tunnel, false, direct, []string{"only begun"}},
		"a suspect path does not take over":                     {model.ModeAuto, false, obstacles{}, tunnel, proofs{suspect, fresh}, tunnel, false, none, []string{"only begun"}},
		"a suspect path is kept":                                {model.ModeAuto, false, obstacles{}, direct, proofs{suspect, fresh}, direct, false, none, nil},
		"a path of which nothing is known is kept":              {model.ModeRouted, false, obstacles{}, direct, proofs{nothing, fresh}, direct, false, none, nil},
		"a failed path is left":                                 {model.ModeAuto, false, obstacles{}, direct, proofs{failed, fresh}, tunnel, false, none, []string{"routed path is not proven", "those of the overlay do"}},
		"a failed path is left whatever is asked":               {model.ModeRouted, false, obstacles{}, direct, proofs{failed, fresh}, tunnel, true, none, []string{"routed path is not proven"}},
		"a failed overlay is left whatever is asked":            {model.ModeOverlay, false, obstacles{}, tunnel, proofs{fresh, failed}, direct, true, none, []string{"overlay is not proven"}},
		"a failed path is kept until the other is proven again": {model.ModeAuto, false, obstacles{}, direct, proofs{failed, stale}, direct, false, tunnel, []string{"kept"}},
		"where both failed the last one is kept":                {model.ModeAuto, false, obstacles{}, direct, proofs{failed, failed}, direct, false, none, []string{"kept"}},
		"and so is the overlay":                                 {model.ModeRouted, false, obstacles{}, tunnel, proofs{failed, failed}, tunnel, true, none, []string{"do not come back"}},
		"forced is taken unproven":                              {model.ModeRouted, true, obstacles{}, tunnel, proofs{failed, fresh}, direct, false, none, nil},
		"forced overlay too":                                    {model.ModeOverlay, true, obstacles{}, direct, proofs{fresh, failed}, tunnel, false, none, nil},
		"what is impossible is not forced":                      {model.ModeRouted, true, obstacles{noRoute, ""}, tunnel, proofs{nothing, fresh}, gone, true, none, []string{noRoute, "without proof"}},
		"auto proves also what is forced":                       {model.ModeAuto, true, obstacles{}, tunnel, proofs{nothing, fresh}, tunnel, false, none, []string{"not come back yet"}},
		"routed without a route is overlay":                     {model.ModeRouted, false, obstacles{noRoute, ""}, none, proofs{}, tunnel, true, none, []string{noRoute}},
		"auto without a route is overlay":                       {model.ModeAuto, false, obstacles{noRoute, ""}, none, proofs{}, tunnel, false, none, nil},
		"routed needs no overlay":                               {model.ModeRouted, false, obstacles{"", noVXLAN}, none, proofs{nothing, nothing}, direct, false, none, []string{noVXLAN, "unproven"}},
		"auto without an overlay is routed":                     {model.ModeAuto, false, obstacles{"", noVXLAN}, none, proofs{fresh, nothing}, direct, false, none, nil},
		"overlay is not replaced by what is not proven":         {model.ModeOverlay, false, obstacles{"", noVXLAN}, none, proofs{nothing, nothing}, gone, true, direct, []string{"module vxlan", "not proven"}},
		"overlay is replaced by what is proven":                 {model.ModeOverlay, false, obstacles{"", noVXLAN}, none, proofs{fresh, nothing}, direct, true, none, []string{"module vxlan"}},
		"nothing is possible":                                   {model.ModeAuto, false, obstacles{noRoute, noVXLAN}, direct, proofs{fresh, fresh}, gone, true, none, []string{noRoute, noVXLAN}},
		"silence is said":                                       {model.ModeAuto, false, obstacles{}, direct, proofs{{Standing: model.Suspect, Silent: true}, nothing}, direct, false, none, []string{"No probe has come back"}},
	} {
		t.Run(name, func(t *testing.T) {
			q := model.PathQuestion{Want: c.want, Forced: c.forced, Ways: waysTo(model.Ways)}
			for i, text := range c.obstacles {
				if text != "" {
					q.Ways[i].Obstacle = model.Obstacle{Reason: model.NoRoute, Text: text}
				}
			}
			d := Choose(q, model.Evidence{Taken: c.taken, Proofs: c.proofs[:]})
			if d.Path != c.path || d.Diverges != c.diverges || d.Wish != c.wish {
				t.Errorf("path %s, diverges %t, wish %q; want %s, %t, %q", d.Path, d.Diverges, d.Wish, c.path, c.diverges, c.wish)
			}
			if (d.Why != "") != (d.Reason != "") {
				t.Errorf("reason %q stands beside %q", d.Reason, d.Why)
			}
			if len(c.because) == 0 && d.Why != "" {
				t.Errorf("gives the reason %q for what was asked", d.Why)
			}
			for _, b := range c.because {
				if !strings.Contains(d.Why, b) || !strings.HasSuffix(d.Why, ".") {
					t.Errorf("reason %q is no sentence that names %q", d.Why, b)
				}
			}
		})
	}
}
