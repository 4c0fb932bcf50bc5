// Package paths chooses the path that packets to another node's block take, out
// of the mode that the objects ask for, what is possible between the two nodes,
// and what probes say (Choose). It evaluates what comes back of probes (Machine), and
// which are to be sent next (Machine.Next). It is the only place that knows what
// Auto means. Sending probes is left to agent/prober, and how a path is put into
// routes to internal/plan.
//
// Everything here is a function of its arguments, time included.
package paths

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// Decision is the path to take, and why.
type Decision struct {
	Path model.Path
	// Diverges says that Path is not what was asked for.
	Diverges bool
	// Reason is why Path is what it is, and Why says it in a sentence.
	Reason model.PathReason
	Why    string
	// Wish is the path that would be taken if it were proven again; empty for none.
	Wish model.Path
	// Proof is what is known of Path.
	Proof model.Proof
}

// candidate is a way that may be taken, and what is known of it.
type candidate struct {
	model.WayTo
	proof model.Proof
}

func (c candidate) impossible() bool { return !c.Possible() }

// Choose returns the path to take, by one of the ways, of which there must be some.
//
// Each mode prefers the way that it asks for, and Auto the first one; the others follow in
// their order. The preferred way is taken as soon as it is proven. A path that has failed is left for
// another one as soon as that answers: whatever is asked for, packets do not stay on
// a path that fails while there is one that works. As long as nothing is known
// packets stay where they are, and begin with a way that works wherever
// nodes reach each other. Where no probe comes back at all the last path that
// worked is kept. A path that is not in force takes over only by a fresh proof.
//
// Auto differs from the mode of the first way in that none of its paths is a divergence.
func Choose(q model.PathQuestion, e model.Evidence) Decision {
	if !(q.Forced && asks(q)) && !slices.ContainsFunc(q.Ways, model.WayTo.Possible) {
		d := down(obstacles(q))
		d.Diverges = true
		return d
	}
	all := preference(q, e)
	possible := all
	if slices.ContainsFunc(all, candidate.impossible) {
		possible = slices.DeleteFunc(slices.Clone(all), candidate.impossible)
	}
	var d Decision
	switch first := all[0]; {
	case q.Forced && asks(q):
		d = forced(q, first)
	case !first.Possible():
		d = withoutFirst(q, e, first, possible)
	case len(possible) == 1:
		d = onlyFirst(first, all[1:])
	default:
		d = among(e, possible)
	}
	d.Diverges = d.Path == model.PathDown || asks(q) && d.Path != all[0].Path
	for _, c := range all {
		if c.Path != d.Path {
			continue
		}
		d.Proof = c.proof
		if c.proof.Silent && !(q.Forced && asks(q)) {
			d.Reason = model.PathSilent
			d.Why = fmt.Sprintf("No probe has come back by %s, or by another path, for a minute: it is kept.", c.Name)
		}
	}
	return d
}

// asks reports whether a mode asks for one way: Auto, and none, do not.
func asks(q model.PathQuestion) bool {
	return slices.ContainsFunc(q.Ways, func(w model.WayTo) bool { return w.Mode == q.Want })
}

// preference returns the ways, the one that is preferred first.
func preference(q model.PathQuestion, e model.Evidence) []candidate {
	all := make([]candidate, 0, len(q.Ways))
	for i, w := range q.Ways {
		all = append(all, candidate{w, e.Proof(i)})
	}
	if i := slices.IndexFunc(all, func(c candidate) bool { return c.Mode == q.Want }); i > 0 {
		preferred := all[i]
		copy(all[1:], all[:i])
		all[0] = preferred
	}
	return all
}

func forced(q model.PathQuestion, first candidate) Decision {
	if !first.Possible() {
		return down(fmt.Sprintf("%s is asked for without proof, and it is impossible because %s", q.Want, first.Obstacle.Text))
	}
	return Decision{Path: first.Path}
}

func down(why string) Decision {
	return Decision{Path: model.PathDown, Reason: model.PathImpossible, Why: "There is no path: " + why + "."}
}

// obstacles says why no way is possible, the last one first.
func obstacles(q model.PathQuestion) string {
	last := len(q.Ways) - 1
	text := q.Ways[last].Name + " is impossible because " + q.Ways[last].Obstacle.Text
	for i := last - 1; i >= 0; i-- {
		text += ", and so is " + q.Ways[i].Name + " because " + q.Ways[i].Obstacle.Text
	}
	return text
}

// withoutFirst is the choice where the preferred way is impossible. Whoever asks for
// an encapsulation may do so because the underlay does not know the pods: there a way that
// depends on that has to be proven.
func withoutFirst(q model.PathQuestion, e model.Evidence, first candidate, possible []candidate) Decision {
	usable := slices.DeleteFunc(slices.Clone(possible), func(c candidate) bool { return c.NeedsProof && !c.proof.Holds() })
	if len(usable) == 0 {
		d := down(fmt.Sprintf("%s is asked for, and it is impossible because %s, and %s is not proven", q.Want, first.Obstacle.Text, possible[0].Name))
		d.Wish = possible[0].Path
		return d
	}
	d := among(e, usable)
	if asks(q) {
		d.Reason = model.PathFallback
		d.Why = fmt.Sprintf("%s is taken although %s is asked for, because %s.", capital(d.Path, usable), q.Want, first.Obstacle.Text)
	}
	return d
}

// onlyFirst is the choice where only the preferred way is possible.
func onlyFirst(first candidate, others []candidate) Decision {
	d := Decision{Path: first.Path}
	if first.NeedsProof && !first.proof.Holds() {
		d.Reason = model.PathUnproven
		d.Why = fmt.Sprintf("%s is taken unproven, because %s.", capitalize(first.Name), others[0].Obstacle.Text)
	}
	return d
}

// among is the choice between ways that are possible, the preferred one first.
func among(e model.Evidence, ways []candidate) Decision {
	d := Decision{Path: e.Taken}
	rank := slices.IndexFunc(ways, func(c candidate) bool { return c.Path == e.Taken })
	if rank < 0 {
		d.Path = start(ways).Path
	} else {
		d.Path, d.Wish = takeOver(ways, rank)
	}
	first := ways[0]
	switch {
	case d.Path != first.Path:
		d.Reason, d.Why = model.PathSecond, whySecond(first, d.Path, ways)
	case first.proof.Standing == model.Failed && len(ways) > 1:
		d.Reason = model.PathKept
		d.Why = fmt.Sprintf("%s is kept although its probes do not come back, because %s is not proven either.",
			capitalize(first.Name), ways[1].Name)
	}
	return d
}

// start returns the way that is taken where none is yet.
func start(ways []candidate) candidate {
	if i := slices.IndexFunc(ways, func(c candidate) bool { return c.proof.Standing == model.Proven }); i >= 0 {
		return ways[i]
	}
	if i := slices.IndexFunc(ways, func(c candidate) bool { return !c.NeedsProof }); i >= 0 {
		return ways[i]
	}
	return ways[0]
}

// takeOver returns the path that takes over from the one in force, if any does, and the one
// that waits for a fresh proof to do so: a better one that is proven, or any that
// packets can escape to.
func takeOver(ways []candidate, rank int) (taken, wish model.Path) {
	from := ways[rank]
	for i, c := range ways {
		escape := escapes(from.proof, c.proof)
		if i == rank || !escape && (i > rank || c.proof.Standing != model.Proven) {
			continue
		}
		if c.proof.Fresh {
			return c.Path, ""
		}
		if wish == "" {
			wish = c.Path
		}
	}
	return from.Path, wish
}

// escapes reports whether packets are better off on another path than on the one in
// force: also one that has not been steady for long, as long as it answers.
func escapes(taken, other model.Proof) bool {
	return taken.Standing == model.Failed && !taken.Answers && (other.Standing == model.Proven || other.Answers)
}

// whySecond says why the preferred way is not taken.
func whySecond(first candidate, taken model.Path, ways []candidate) string {
	why := "its probes have not come back yet"
	switch {
	case first.proof.Standing == model.Failed:
		why = fmt.Sprintf("its probes do not come back while those of %s do", name(taken, ways))
	case first.proof.Standing != model.Unproven:
		why = "its probes have only begun to come back"
	}
	return fmt.Sprintf("%s is taken because %s is not proven: %s.", capital(taken, ways), first.Name, why)
}

func name(p model.Path, ways []candidate) string {
	i := slices.IndexFunc(ways, func(c candidate) bool { return c.Path == p })
	return ways[i].Name
}

func capital(p model.Path, ways []candidate) string { return capitalize(name(p, ways)) }

func capitalize(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
