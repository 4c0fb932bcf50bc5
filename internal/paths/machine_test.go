package paths

import (
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

// The indexes of model.Ways.
const (
	routedWay = iota
	overlayWay
)

// quiet returns a world in which pods use the path in force, that is routed.
func quiet(t *testing.T) *world {
	t.Helper()
	w := newWorld(1)
	w.run(5 * time.Second)
	if w.machine.Taken != model.PathRouted {
		t.Fatalf("begins with %s", w.machine.Taken)
	}
	return w
}

func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.step()
	}
}

// The time that a path has to be steady keeps packets from coming back to it, and not
// from fleeing to it.
func TestPathThatWasNotSteadyIsBetterThanOneThatFailed(t *testing.T) {
	for _, flaps := range []int{1, 3, 6} {
		w := quiet(t)
		for range flaps {
			for w.machine.tracks[overlayWay].standing != model.Proven {
				w.step()
			}
			w.wires[overlayWay].up = false
			w.run(5 * time.Second)
			w.wires[overlayWay].up = true
		}
		w.run(5 * time.Second)
		if standing := w.machine.tracks[overlayWay].standing; standing != model.Failed {
			t.Fatalf("after %d flaps the overlay is %s", flaps, standing)
		}
		w.wires[routedWay].up = false
		w.run(prompt)
		if w.machine.Taken != model.PathOverlay {
			t.Errorf("after %d flaps of the overlay packets stay on the routed path, which failed", flaps)
		}
	}
}

func TestPathThatFailsAgainHasToBeSteadyForLonger(t *testing.T) {
	w := quiet(t)
	var waits []time.Duration
	for range 8 {
		w.wires[routedWay].up = false
		w.run(5 * time.Second)
		if w.machine.Taken != model.PathOverlay {
			t.Fatal("the routed path is not left")
		}
		w.wires[routedWay].up = true
		began := w.now
		for w.machine.Taken != model.PathRouted {
			w.step()
		}
		waits = append(waits, w.now.Sub(began).Round(time.Second))
	}
	for i, wait := range waits {
		want := min(firstHold<<i, lastHold)
		if wait < want || wait > want+5*time.Second {
			t.Errorf("after failure %d it has to be steady for %s, want %s", i+1, wait, want)
		}
	}
}

func TestSilenceIsSaidAfterAMinute(t *testing.T) {
	w := quiet(t)
	w.answering = false
	w.run(50 * time.Second)
	if w.machine.Evidence(w.now).Proofs[routedWay].Silent {
		t.Error("an agent that is being upgraded is reported")
	}
	w.run(20 * time.Second)
	e := w.machine.Evidence(w.now)
	if !e.Proofs[routedWay].Silent || e.Taken != model.PathRouted || Choose(w.question, e).Why == "" {
		t.Errorf("after more than a minute: %+v", e)
	}
	w.answering = true
	w.run(5 * time.Second)
	if e := w.machine.Evidence(w.now); e.Proofs[routedWay].Standing != model.Proven || e.Proofs[routedWay].Silent {
		t.Errorf("the other node is back: %+v", e)
	}
}

// Who is restarted is back within some seconds; who is away for longer counts at once, long before it is said of its node.
func TestBlockThatDoesNotAnswerIsUnheardWithinSeconds(t *testing.T) {
	w := quiet(t)
	unheard := func() bool { return w.machine.Evidence(w.now).Proofs[routedWay].Unheard }
	w.answering = false
	w.run(lull - time.Second)
	if unheard() {
		t.Error("an agent that is restarted counts as down")
	}
	w.run(3 * time.Second)
	if !unheard() || w.machine.Evidence(w.now).Proofs[routedWay].Silent {
		t.Errorf("after %s: %+v", lull, w.machine.Evidence(w.now))
	}
	w.answering = true
	w.run(5 * time.Second)
	if unheard() {
		t.Error("the other node is back")
	}
}

// Loss by chance takes packets from no path, and seldom an MTU.
func TestRandomLossChangesNothing(t *testing.T) {
	w := quiet(t)
	w.loss = 0.03
	mtu, changes := 0, 0
	for end := w.now.Add(time.Hour); w.now.Before(end); {
		w.step()
		if w.machine.Taken != model.PathRouted {
			t.Fatal("the path is left")
		}
		if now := w.machine.Evidence(w.now).Proofs[routedWay].MTU; now != mtu {
			mtu = now
			changes++
		}
	}
	if changes > 4 {
		t.Errorf("the MTU changes %d times in an hour", changes)
	}
}
