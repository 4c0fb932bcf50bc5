package paths

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

var seeds = flag.Uint64("seeds", 60, "how many histories of a path to play")

const (
	// tick is the time between two moments of a history, and timeout that after which
	// a probe is taken for lost.
	tick    = 25 * time.Millisecond
	timeout = 100 * time.Millisecond
	// idle is the interval between rounds that nothing else asks for.
	idle = time.Second
	// prompt is the time within which a path that stopped is left, for another one that
	// has worked for longer than notice.
	prompt = time.Second
	notice = 3 * time.Second
)

// wire is what a path really is.
type wire struct {
	up  bool
	mtu int
	// since is when it became so.
	since time.Time
}

// world is two blocks, the paths between them, and what one end thinks of these.
type world struct {
	random    *rand.Rand
	now       time.Time
	question  model.PathQuestion
	active    bool
	answering bool
	// loss is the share of probes that are lost by chance.
	loss      float64
	wires     []wire
	machine   Machine
	sent      []Round
	due, full time.Time
	// dead is since when the path that is taken does not work although the other one
	// does; zero for not so.
	dead time.Time
	// settledSince is since when the other node answers, this one runs, and both have
	// the same obstacles.
	settledSince time.Time
	trace        []string
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%7.3f ", w.now.Sub(begin).Seconds())+fmt.Sprintf(format, args...))
}

var begin = time.Unix(1_000_000, 0)

func newWorld(seed uint64) *world { return newWorldOf(seed, model.Ways) }

func newWorldOf(seed uint64, ways []model.Way) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 7)), now: begin, answering: true, active: true}
	w.question = model.PathQuestion{Want: model.ModeAuto, Ways: waysTo(ways)}
	w.wires = make([]wire, len(ways))
	for i := range w.wires {
		w.wires[i] = wire{up: true, mtu: 1500 - 50*i, since: begin}
	}
	w.machine = NewMachine("", w.question.Ways)
	w.decide()
	return w
}

func (w *world) decide() Decision {
	for i, to := range w.question.Ways {
		if !to.Possible() {
			w.machine.Forget(i)
		}
	}
	d := Choose(w.question, w.machine.Evidence(w.now))
	if d.Path != w.machine.Taken {
		w.log("takes %s: %s", d.Path, d.Why)
		w.machine.Taken = d.Path
	}
	return d
}

// step plays one moment: what is due is sent, and what was sent long enough ago is evaluated.
func (w *world) step() {
	w.now = w.now.Add(tick)
	for len(w.sent) > 0 && w.now.Sub(w.sent[0].At) >= timeout {
		w.machine.Evaluate(w.sent[0])
		w.sent = w.sent[1:]
	}
	d := w.decide()
	pace := w.machine.Next(w.question.Ways, w.active, d.Wish)
	interval := map[Pace]time.Duration{Idle: idle, Waiting: WaitingInterval, Active: ActiveInterval, Doubt: DoubtInterval}[pace]
	if next := w.now.Add(interval); next.Before(w.due) {
		w.due = next
	}
	if w.now.Before(w.due) {
		return
	}
	if pace == Active && !w.now.Before(w.full) {
		pace = Idle
	}
	if pace != Active {
		w.full = w.now.Add(idle)
	}
	round := Round{At: w.now, Results: make([]Result, len(w.wires))}
	for i, sizes := range w.machine.Sizes(pace, w.question.Ways) {
		round.Results[i].Sent = sizes
		for _, size := range sizes {
			if w.answering && w.wires[i].up && size <= w.wires[i].mtu && (w.loss == 0 || w.random.Float64() >= w.loss) {
				round.Results[i].Back = append(round.Results[i].Back, size)
			}
		}
	}
	w.sent = append(w.sent, round)
	w.due = w.now.Add(interval)
}

// carries reports whether a path really carries pods' packets.
func (w *world) carries(i int) bool {
	return w.question.Ways[i].Possible() && w.wires[i].up && w.wires[i].mtu >= least
}

// change changes something.
func (w *world) change() {
	i := w.random.IntN(len(w.wires))
	way := &w.question.Ways[i]
	set := func(up bool, mtu int) {
		w.wires[i] = wire{up: up, mtu: mtu, since: w.now}
		w.log("%s: up %t, MTU %d", way.Path, up, mtu)
	}
	limit := w.machine.Limit(i)
	switch w.random.IntN(8) {
	case 0, 1:
		set(!w.wires[i].up, w.wires[i].mtu)
	case 2:
		set(w.wires[i].up, least+w.random.IntN(limit-least))
	case 3:
		set(true, limit)
	case 4:
		w.question.Want = model.ModeAuto
		if j := w.random.IntN(len(w.wires) + 1); j > 0 {
			w.question.Want = w.question.Ways[j-1].Mode
		}
		w.log("asks for %s", w.question.Want)
	case 5:
		w.answering, w.settledSince = !w.answering, w.now
		w.log("the other node answers: %t", w.answering)
	case 6:
		w.machine = NewMachine(w.machine.Taken, w.question.Ways)
		w.sent, w.settledSince = nil, w.now
		w.log("starts again")
	case 7:
		w.settledSince = w.now
		if way.Possible() {
			way.Obstacle = model.Obstacle{Reason: model.NoRoute, Text: "of chance"}
		} else {
			way.Obstacle = model.Obstacle{}
		}
		w.log("%s: obstacle %q", way.Path, way.Obstacle.Text)
	}
}

// check checks that packets do not stay on a path that has stopped while there is
// one that works.
func (w *world) check() error {
	taken := slices.IndexFunc(w.question.Ways, func(to model.WayTo) bool { return to.Path == w.machine.Taken })
	stays := false
	if taken >= 0 && w.answering && w.question.Ways[taken].Possible() && !w.carries(taken) && w.now.Sub(w.settledSince) > notice {
		for i := range w.wires {
			stays = stays || i != taken && w.carries(i) && w.now.Sub(w.wires[i].since) > notice
		}
	}
	if !stays {
		w.dead = time.Time{}
		return nil
	}
	if w.dead.IsZero() {
		w.dead = w.now
	}
	if w.now.Sub(w.dead) > prompt {
		return fmt.Errorf("stays on %s, which stopped, although the other path works", w.machine.Taken)
	}
	return nil
}

// settled is the path that a history has to end with when nothing changes any more.
func (w *world) settled(before model.Path) model.Path {
	ways := preference(w.question, model.Evidence{Taken: before})
	carries := func(c candidate) bool {
		return w.carries(slices.IndexFunc(w.question.Ways, func(to model.WayTo) bool { return to.Path == c.Path }))
	}
	if i := slices.IndexFunc(ways, carries); i >= 0 {
		return ways[i].Path
	}
	first := ways[0]
	usable := slices.DeleteFunc(ways, func(c candidate) bool {
		return !c.Possible() || !first.Possible() && c.NeedsProof && c.Path != before
	})
	switch {
	case len(usable) == 0:
		return model.PathDown
	case len(usable) == 1:
		return usable[0].Path
	case slices.ContainsFunc(usable, func(c candidate) bool { return c.Path == before }):
		return before
	default:
		return start(usable).Path
	}
}

// Whatever happens, packets leave a path that stopped for one that works within a
// second, and in the end take the path that the last mode asks for.
func TestAnyHistoryOfPaths(t *testing.T) {
	for seed := range *seeds {
		playHistory(t, seed, newWorld(seed))
	}
}

// playHistory plays what happens to a world until it settles, and checks it all along.
func playHistory(t *testing.T, seed uint64, w *world) {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		for _, line := range w.trace {
			t.Log(line)
		}
		t.Fatalf("seed %d at %s: %v", seed, w.now.Sub(begin), err)
	}
	for range 40 {
		w.change()
		for range w.random.IntN(200) {
			w.step()
			if err := w.check(); err != nil {
				fail(err)
			}
		}
	}
	w.answering, w.settledSince = true, w.now
	w.log("nothing changes any more")
	var last model.Path
	for w.now.Sub(begin) < 2*time.Hour {
		last = w.machine.Taken
		w.step()
		if err := w.check(); err != nil {
			fail(err)
		}
		if len(w.trace) > 10000 {
			fail(fmt.Errorf("does not settle"))
		}
		if w.now.Sub(begin) > 20*time.Minute && w.machine.Taken == w.settled(last) {
			break
		}
	}
	if want := w.settled(last); w.machine.Taken != want {
		fail(fmt.Errorf("ends with %s, want %s", w.machine.Taken, want))
	}
	for i, proof := range w.machine.Evidence(w.now).Proofs {
		if !w.carries(i) {
			continue
		}
		want := w.wires[i].mtu
		if want >= w.machine.Limit(i) {
			want = 0
		}
		if proof.MTU > want && want != 0 || want-proof.MTU > precise || want == 0 && proof.MTU != 0 {
			fail(fmt.Errorf("%s has an MTU of %d, want %d", w.question.Ways[i].Path, proof.MTU, want))
		}
	}
}
