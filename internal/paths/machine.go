package paths

import (
	"slices"
	"time"

	"github.com/podnet/podnet/internal/model"
)

const (
	// proofs is how many rounds in a row have to come back before a path is proven.
	proofs = 3
	// missesToFail is how many rounds in a row a path has to miss, while the other
	// path's probes of the same moment come back, before it has failed. What keeps the
	// other node from answering at all is no failure of a path.
	missesToFail = 3
	// lull is how long no round has come back before that is counted: an agent that
	// is restarted is back by then. silence is how long before it is said of a node, and youth
	// how long it is no news that a path is not proven yet.
	lull    = 10 * time.Second
	silence = time.Minute
	youth   = time.Minute
	// freshness is how long after an answer a path may take over.
	freshness = 2 * time.Second
	// firstHold is how long a path that failed has to be steady before it is proven
	// again. That doubles with every failure up to lastHold, and starts again after
	// forgiven without one.
	firstHold = 10 * time.Second
	lastHold  = 5 * time.Minute
	forgiven  = 10 * time.Minute
	// smallest is the size of the small probe, an IP packet, in bytes. A path that
	// carries less than least, which is IPv6's least MTU (RFC 8200, section 5), is none.
	smallest = 128
	least    = 1280
	// rungs is how many sizes between two are tried at once to find a path's MTU, and
	// precise the distance at which the search ends.
	rungs   = 12
	precise = 8
	// raises is how many rounds in a row packets that were too large have to come back
	// before a path's MTU grows.
	raises = 3
	// cuts is how many rounds in a row packets of the needed size have to be lost, while
	// smaller ones come back, before a path's MTU falls: what is lost by chance is not
	// lost so often.
	cuts = 3
)

// Result is what came of the probes of one round on one path: the sizes of the
// packets that were sent, in bytes, and of those that came back.
type Result struct {
	Sent, Back []int
	// Bare says that a packet without a checksum came back besides.
	Bare bool
}

// Round is what came of probes that were sent at one time, for each of the ways.
type Round struct {
	At      time.Time
	Results []Result
}

// Machine is what is known of the paths from one block to another.
type Machine struct {
	// Taken is the path in force; empty for none yet.
	Taken  model.Path
	tracks []track
}

// track is what is known of one path.
type track struct {
	way      *model.Way
	standing model.Standing
	// since is when the path was first probed.
	since time.Time
	// proved says that it was proven once.
	proved bool
	// limit is the size of the largest packet that the path's interface carries.
	limit int
	// answered is when the last round was sent that came back, and steady when the
	// first of an unbroken run of such rounds was.
	answered, steady time.Time
	run              int
	// missed counts the rounds since that did not come back, and alone those of them
	// that did by the other path.
	missed, alone int
	// failed is when the path last failed, and hold how long it has to be steady then.
	failed time.Time
	hold   time.Duration
	// mtu is the largest size that comes back, and tooLarge the least that does not;
	// tooLarge is 0 where the limit comes back.
	mtu, tooLarge int
	// cut counts rounds of which only smaller packets came back, and whole those
	// of which larger ones did than tooLarge says.
	cut, whole int
	// bare counts the rounds in a row of which only a packet without a checksum came back.
	bare int
}

// NewMachine returns a machine of paths by some ways, whose interfaces carry packets of the
// limits that these give. The path that is taken is one that was found in force: it is trusted as
// long as nothing speaks against it.
func NewMachine(taken model.Path, ways []model.WayTo) Machine {
	m := Machine{Taken: taken, tracks: make([]track, len(ways))}
	for i, w := range ways {
		m.tracks[i] = track{way: w.Way, standing: model.Unproven, limit: w.Limit}
		if w.Path == taken {
			m.tracks[i].standing = model.Suspect
		}
	}
	return m
}

// Adopted returns what is known of a path that was found in force, and of which nothing else is.
func Adopted(taken model.Path) model.Evidence {
	ways := make([]model.WayTo, len(model.Ways))
	for i := range ways {
		ways[i].Way = &model.Ways[i]
	}
	m := NewMachine(taken, ways)
	return m.Evidence(time.Time{})
}

// Moved takes note that a path got another way: what was proven of it holds no longer, but is
// trusted until the contrary is seen.
func (m *Machine) Moved(i, limit int) {
	t := &m.tracks[i]
	standing := model.Unproven
	if t.standing == model.Proven || t.standing == model.Suspect {
		standing = model.Suspect
	}
	*t = track{way: t.way, standing: standing, limit: limit}
}

// Forget takes note that a path became impossible.
func (m *Machine) Forget(i int) {
	t := &m.tracks[i]
	*t = track{way: t.way, standing: model.Unproven, limit: t.limit}
}

// Unheard reports whether the last few rounds on the path in force did not come back.
func (m *Machine) Unheard() bool {
	return slices.ContainsFunc(m.tracks, func(t track) bool { return t.way.Path == m.Taken && t.missed >= doubtful })
}

// Limit returns the size of the largest packet that a path's interface carries.
func (m *Machine) Limit(i int) int { return m.tracks[i].limit }

// Evaluate takes what came of a round.
func (m *Machine) Evaluate(r Round) {
	for i, result := range r.Results {
		if len(result.Sent) == 0 {
			continue
		}
		witness := false
		for j, other := range r.Results {
			witness = witness || j != i && len(other.Back) > 0
		}
		m.tracks[i] = m.tracks[i].evaluate(r.At, result, witness)
	}
}

// evaluate takes the result of a round, given whether those of another path did.
func (t track) evaluate(at time.Time, r Result, witness bool) track {
	if t.since.IsZero() {
		t.since = at
	}
	if len(r.Back) == 0 {
		t.bare++
		if !r.Bare {
			t.bare = 0
		}
		return t.miss(at, witness)
	}
	t.bare = 0
	best, lost := slices.Max(r.Back), 0
	for _, size := range r.Sent {
		if size > best && (lost == 0 || size < lost) {
			lost = size
		}
	}
	if best < t.needed() {
		t = t.cutShort(best, lost)
		if t.tooLarge == 0 || best < t.needed() {
			// It carries something, and not what it should: more has to be seen.
			if best < least && t.cut >= proofs {
				return t.miss(at, witness)
			}
			t.run = 0
			t.standing = suspected(t.standing)
			return t
		}
	} else {
		t = t.fitted(best, lost)
	}
	return t.cameBack(at)
}

// needed is the size that has to come back.
func (t track) needed() int {
	if t.tooLarge > 0 {
		return t.mtu
	}
	return t.limit
}

// cutShort takes a round of which only packets of up to best came back.
func (t track) cutShort(best, lost int) track {
	t.cut++
	t.whole = 0
	if t.cut+min(t.missed, 1) >= cuts && best >= least {
		t.mtu, t.tooLarge, t.cut = best, lost, 0
	}
	return t
}

// fitted takes a round of which packets of the needed size came back.
func (t track) fitted(best, lost int) track {
	t.cut = 0
	switch {
	case t.tooLarge == 0:
		t.mtu = best
	case best >= t.tooLarge:
		if t.whole++; t.whole >= raises {
			t.mtu, t.tooLarge, t.whole = best, lost, 0
		}
	default:
		t.mtu = best
		if lost >= t.tooLarge {
			t.whole = 0
		}
		if lost > 0 && lost < t.tooLarge {
			t.tooLarge = lost
		}
	}
	return t
}

func suspected(s model.Standing) model.Standing {
	if s == model.Proven {
		return model.Suspect
	}
	return s
}

// miss takes a round that did not come back.
func (t track) miss(at time.Time, witness bool) track {
	t.run, t.whole = 0, 0
	t.missed++
	if witness {
		t.alone++
	}
	t.standing = suspected(t.standing)
	if t.alone >= missesToFail && t.standing != model.Failed {
		t.standing = model.Failed
		switch {
		case t.hold == 0 || at.Sub(t.failed) > forgiven+t.hold:
			t.hold = firstHold
		default:
			t.hold = min(2*t.hold, lastHold)
		}
		t.failed = at
	}
	return t
}

// cameBack takes a round that came back.
func (t track) cameBack(at time.Time) track {
	if t.run == 0 {
		t.steady = at
	}
	t.run++
	t.answered, t.missed, t.alone = at, 0, 0
	switch t.standing {
	case model.Suspect:
		t.standing = model.Proven
	case model.Failed:
		if t.run >= proofs && at.Sub(t.steady) >= t.hold {
			t.standing = model.Proven
		}
	case model.Unproven:
		if t.run >= proofs {
			t.standing = model.Proven
		}
	}
	t.proved = t.proved || t.standing == model.Proven
	return t
}

// Evidence returns what is known at a time.
func (m *Machine) Evidence(now time.Time) model.Evidence {
	e := model.Evidence{Taken: m.Taken, Proofs: make([]model.Proof, len(m.tracks))}
	for i, t := range m.tracks {
		p := &e.Proofs[i]
		p.Standing = t.standing
		p.Fresh = !t.answered.IsZero() && now.Sub(t.answered) <= freshness
		p.Answers = t.run >= proofs
		heard := t.since
		if t.answered.After(heard) {
			heard = t.answered
		}
		p.Unheard = t.missed >= doubtful && now.Sub(heard) >= lull
		p.Silent = t.missed > 0 && now.Sub(heard) >= silence
		p.New = !t.proved && (t.since.IsZero() || now.Sub(t.since) < youth)
		p.Corrupted = t.bare >= missesToFail
		if t.tooLarge > 0 {
			p.MTU = t.mtu
		}
	}
	return e
}

// Weakest returns what is known of paths that lead to one block from several: of
// each path the least that is known. It changes the first one.
func Weakest(all []model.Evidence) model.Evidence {
	order := []model.Standing{model.Failed, model.Unproven, model.Suspect, model.Proven}
	e := all[0]
	for _, other := range all[1:] {
		for i, p := range other.Proofs {
			w := &e.Proofs[i]
			if slices.Index(order, p.Standing) < slices.Index(order, w.Standing) {
				w.Standing = p.Standing
			}
			w.Fresh, w.Answers = w.Fresh && p.Fresh, w.Answers && p.Answers
			w.Unheard, w.Silent = w.Unheard || p.Unheard, w.Silent || p.Silent
			w.New, w.Corrupted = w.New || p.New, w.Corrupted || p.Corrupted
			if w.MTU == 0 || p.MTU > 0 && p.MTU < w.MTU {
				w.MTU = p.MTU
			}
		}
	}
	return e
}
