// Package paths chooses the path that packets to another node's block take, out
// of the mode that the objects ask for, what is possible between the two nodes,
// and what probes say (Choose). It says what probes say of a path (Machine), and
// which are to be sent next (Machine.Next). It is the only place that knows what
// Auto means. Sending probes is left to agent/prober, and how a path is put into
// routes to internal/plan.
//
// Everything here is a function of its arguments, time included.
package paths

import (
	"fmt"

	"github.com/podnet/podnet/internal/model"
)

// Decision is the path to take, and why.
type Decision struct {
	Path model.Path
	// Diverges says that Path is not what was asked for.
	Diverges bool
	// Why is a sentence that says why Path is what it is; empty where there is
	// nothing to say.
	Why string
	// Wish is the path that would be taken if it were proven anew; empty for none.
	Wish model.Path
	// Proof is what is known of Path.
	Proof model.Proof
}

// Choose returns the path to take.
//
// Each mode has a path that it prefers: Overlay the overlay, Routed and Auto the
// routed path. It is taken as soon as it is proven. A path that has failed is left for
// the other one as soon as that answers: whatever is asked for, packets do not stay on
// a path that fails while there is one that works. As long as nothing is known
// packets stay where they are, and begin with the overlay, which works wherever
// nodes reach each other. Where no probe comes back at all the last path that
// worked is kept. A path that is not in force takes over only by a fresh proof.
//
// Auto differs from Routed in that neither of its paths is a divergence.
func Choose(q model.PathQuestion, e model.Evidence) Decision {
	first, second := preference(q.Want)
	d := Decision{}
	switch {
	case isForced(q):
		d = forced(q, first)
	case q.Obstacles[first] != "" && q.Obstacles[second] != "":
		d = down("the overlay is impossible because %s, and so is the routed path because %s",
			q.Obstacles[model.OverlayWay], q.Obstacles[model.RoutedWay])
	case q.Obstacles[first] != "":
		d = onlySecond(q, e)
	case q.Obstacles[second] != "":
		d = onlyFirst(q, e)
	default:
		d = either(q, e)
	}
	d.Diverges = d.Path == model.PathDown || asks(q.Want) && d.Path != model.Ways[first]
	for i, way := range model.Ways {
		if way == d.Path {
			d.Proof = e.Proofs[i]
		}
	}
	if d.Path != model.PathDown && d.Proof.Silent && !isForced(q) {
		d.Why = fmt.Sprintf("No probe has come back by %s, or by another path, for a minute: it is kept.", name(d.Path))
	}
	return d
}

// preference returns the index of the path that a mode prefers, and that of the other.
func preference(want model.Mode) (first, second int) {
	if want == model.ModeOverlay {
		return model.OverlayWay, model.RoutedWay
	}
	return model.RoutedWay, model.OverlayWay
}

// isForced says whether a path is taken whatever its probes say.
func isForced(q model.PathQuestion) bool { return q.Forced && asks(q.Want) }

func forced(q model.PathQuestion, first int) Decision {
	if q.Obstacles[first] != "" {
		return down("%s is asked for without proof, and it is impossible because %s", q.Want, q.Obstacles[first])
	}
	return Decision{Path: model.Ways[first]}
}

func down(format string, args ...any) Decision {
	return Decision{Path: model.PathDown, Why: "There is no path: " + fmt.Sprintf(format, args...) + "."}
}

// onlySecond is the choice where the preferred path is impossible. Whoever asks for
// the overlay may do so because the underlay does not know the pods: there the
// routed path has to be proven.
func onlySecond(q model.PathQuestion, e model.Evidence) Decision {
	first, second := preference(q.Want)
	if second == model.RoutedWay && !e.Proofs[model.RoutedWay].Holds() {
		d := down("%s is asked for, and it is impossible because %s, and the routed path is not proven", q.Want, q.Obstacles[first])
		d.Wish = model.PathRouted
		return d
	}
	d := Decision{Path: model.Ways[second]}
	if asks(q.Want) {
		d.Why = fmt.Sprintf("%s is taken although %s is asked for, because %s.", capital(d.Path), q.Want, q.Obstacles[first])
	}
	return d
}

// onlyFirst is the choice where only the preferred path is possible.
func onlyFirst(q model.PathQuestion, e model.Evidence) Decision {
	first, second := preference(q.Want)
	d := Decision{Path: model.Ways[first]}
	if first == model.RoutedWay && !e.Proofs[first].Holds() {
		d.Why = fmt.Sprintf("The routed path is taken unproven, because %s.", q.Obstacles[second])
	}
	return d
}

// either is the choice where both paths are possible.
func either(q model.PathQuestion, e model.Evidence) Decision {
	first, second := preference(q.Want)
	f, s := e.Proofs[first], e.Proofs[second]
	d := Decision{Path: e.Taken}
	switch {
	case e.Taken == model.Ways[first]:
		if escapes(f, s) {
			d = takeOver(e.Taken, model.Ways[second], s)
		}
	case e.Taken == model.Ways[second]:
		if f.Standing == model.Proven || escapes(s, f) {
			d = takeOver(e.Taken, model.Ways[first], f)
		}
	case f.Standing == model.Proven:
		d.Path = model.Ways[first]
	case s.Standing == model.Proven:
		d.Path = model.Ways[second]
	default:
		d.Path = model.PathOverlay
	}
	switch {
	case d.Path == model.Ways[second]:
		d.Why = whySecond(q, f)
	case f.Standing == model.Failed:
		d.Why = fmt.Sprintf("%s is kept although its probes do not come back, because %s is not proven either.",
			capital(d.Path), name(model.Ways[second]))
	}
	return d
}

// escapes says whether packets are better off on the other path than on the one in
// force: also one that has not been steady for long, as long as it answers.
func escapes(taken, other model.Proof) bool {
	return taken.Standing == model.Failed && !taken.Answers && (other.Standing == model.Proven || other.Answers)
}

// takeOver lets a proven path take over where its proof is fresh, and otherwise
// wishes for a fresh one.
func takeOver(from, to model.Path, proof model.Proof) Decision {
	if proof.Fresh {
		return Decision{Path: to}
	}
	return Decision{Path: from, Wish: to}
}

// whySecond says why the preferred path, of which a proof is given, is not taken.
func whySecond(q model.PathQuestion, proof model.Proof) string {
	first, second := preference(q.Want)
	why := "its probes have not come back yet"
	switch {
	case proof.Standing == model.Failed:
		why = fmt.Sprintf("its probes do not come back while those of %s do", name(model.Ways[second]))
	case proof.Standing != model.Unproven:
		why = "its probes have only begun to come back"
	}
	return fmt.Sprintf("%s is taken because %s is not proven: %s.", capital(model.Ways[second]), name(model.Ways[first]), why)
}

func name(p model.Path) string {
	if p == model.PathRouted {
		return "the routed path"
	}
	return "the overlay"
}

func capital(p model.Path) string {
	if p == model.PathRouted {
		return "The routed path"
	}
	return "The overlay"
}

// asks says whether a mode asks for one path: Auto, and none, do not.
func asks(want model.Mode) bool { return want == model.ModeRouted || want == model.ModeOverlay }
