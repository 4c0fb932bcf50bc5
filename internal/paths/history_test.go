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
	wires     [2]wire
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

func newWorld(seed uint64) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 7)), now: begin, answering: true, active: true}
	w.question.Want = model.ModeAuto
	for i := range w.wires {
		w.wires[i] = wire{up: true, mtu: 1500 - 50*i, since: begin}
	}
	w.machine = NewMachine("", [2]int{1500, 1450})
	w.decide()
	return w
}

func (w *world) possible() [2]bool {
	return [2]bool{w.question.Obstacles[0] == "", w.question.Obstacles[1] == ""}
}

func (w *world) decide() Decision {
	for i, ok := range w.possible() {
		if !ok {
			w.machine = w.machine.Forgotten(i)
		}
	}
	d := Choose(w.question, w.machine.Evidence(w.now))
	if d.Path != w.machine.Taken {
		w.log("takes %s: %s", d.Path, d.Why)
		w.machine.Taken = d.Path
	}
	return d
}

// step plays one moment: what is due is sent, and what was sent long enough ago is judged.
func (w *world) step() {
	w.now = w.now.Add(tick)
	for len(w.sent) > 0 && w.now.Sub(w.sent[0].At) >= timeout {
		w.machine = w.machine.Judge(w.sent[0])
		w.sent = w.sent[1:]
	}
	d := w.decide()
	pace := w.machine.Next(w.possible(), w.active, d.Wish)
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
	round := Round{At: w.now}
	for i, sizes := range w.machine.Sizes(pace, w.possible()) {
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

// carries says whether a path really carries pods' packets.
func (w *world) carries(i int) bool {
	return w.possible()[i] && w.wires[i].up && w.wires[i].mtu >= least
}

// change changes something.
func (w *world) change() {
	i := w.random.IntN(2)
	set := func(up bool, mtu int) {
		w.wires[i] = wire{up: up, mtu: mtu, since: w.now}
		w.log("%s: up %t, MTU %d", model.Ways[i], up, mtu)
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
		w.question.Want = []model.Mode{model.ModeAuto, model.ModeRouted, model.ModeOverlay}[w.random.IntN(3)]
		w.log("asks for %s", w.question.Want)
	case 5:
		w.answering, w.settledSince = !w.answering, w.now
		w.log("the other node answers: %t", w.answering)
	case 6:
		w.machine = NewMachine(w.machine.Taken, [2]int{1500, 1450})
		w.sent, w.settledSince = nil, w.now
		w.log("starts again")
	case 7:
		w.settledSince = w.now
		w.question.Obstacles[i] = map[string]string{"": "of chance"}[w.question.Obstacles[i]]
		w.log("%s: obstacle %q", model.Ways[i], w.question.Obstacles[i])
	}
}

// check checks that packets do not stay on a path that has stopped while there is
// one that works.
func (w *world) check() error {
	taken := slices.Index(model.Ways[:], w.machine.Taken)
	stays := false
	if taken >= 0 && w.answering {
		known := w.now.Sub(w.wires[1-taken].since) > notice && w.now.Sub(w.settledSince) > notice
		stays = !w.carries(taken) && w.carries(1-taken) && w.possible()[taken] && known
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
	first, second := preference(w.question.Want)
	possible := w.possible()
	switch {
	case w.carries(first):
		return model.Ways[first]
	case w.carries(second):
		return model.Ways[second]
	case !possible[first] && !possible[second], !possible[first] && second == model.RoutedWay && before != model.PathRouted:
		return model.PathDown
	case !possible[first]:
		return model.Ways[second]
	case !possible[second]:
		return model.Ways[first]
	default:
		return before
	}
}

// Whatever happens, packets leave a path that stopped for one that works within a
// second, and in the end take the path that the last mode asks for.
func TestAnyHistoryOfPaths(t *testing.T) {
	for seed := range *seeds {
		w := newWorld(seed)
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
				fail(fmt.Errorf("%s has an MTU of %d, want %d", model.Ways[i], proof.MTU, want))
			}
		}
	}
}
