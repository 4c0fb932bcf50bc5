package paths

import (
	"slices"
	"time"

	"github.com/podnet/podnet/internal/model"
)

// Pace says how soon the next round is due.
type Pace int

// The paces, the slowest first.
const (
	// Idle is for paths in good standing that nobody uses: how often they are
	// probed depends on how many there are.
	Idle Pace = iota
	// Waiting is for paths that have just begun to come back, and for those that were
	// just lost and nothing else is known.
	Waiting
	// Active is for the path in force to a block that pods of this node talk to.
	Active
	// Doubt is for paths of which more has to be known at once.
	Doubt
)

// Intervals between two rounds, by pace. That of Idle is up to the prober.
const (
	WaitingInterval = time.Second
	ActiveInterval  = 200 * time.Millisecond
	DoubtInterval   = 75 * time.Millisecond
)

const (
	// doubtful is how many rounds in a row a path is probed in doubt although nothing
	// comes back by any, and patient how many until it is probed as seldom as an idle
	// one: an agent that is not there is not to be met by all others at once.
	doubtful = 4
	patient  = 40
)

// Next returns at which pace the next round is due, given which ways are
// possible, whether pods of this node talk to the block, and the path that is
// waiting for a fresh proof, if any.
func (m *Machine) Next(ways []model.WayTo, active bool, wish model.Path) Pace {
	pace := Idle
	for i, t := range m.tracks {
		if !ways[i].Possible() {
			continue
		}
		pace = max(pace, t.pace())
		// The other node answers by another path: what is missed now counts.
		if t.standing == model.Suspect && t.missed > 0 && m.answers(ways, i) {
			pace = Doubt
		}
		if t.way.Path == wish && t.unheard() < doubtful {
			pace = Doubt
		}
		if active && t.way.Path == m.Taken {
			pace = max(pace, Waiting)
			if t.missed < patient {
				pace = max(pace, Active)
			}
		}
	}
	return pace
}

// answers reports whether the other node answers by another way than one.
func (m *Machine) answers(ways []model.WayTo, but int) bool {
	for i, t := range m.tracks {
		if i != but && t.run > 0 && ways[i].Possible() {
			return true
		}
	}
	return false
}

// pace returns how soon more has to be known of a path for its own sake.
func (t track) pace() Pace {
	unsettled := t.standing == model.Suspect || t.standing == model.Unproven || t.cut > 0 ||
		t.tooLarge > 0 && t.tooLarge-t.mtu > precise
	switch {
	case unsettled && t.unheard() < doubtful:
		return Doubt
	case unsettled && t.missed < patient, t.standing == model.Failed && t.run > 0:
		return Waiting
	default:
		return Idle
	}
}

// unheard counts the rounds in a row that came back by no path.
func (t track) unheard() int { return t.missed - t.alone }

// Sizes returns the sizes of the packets, in bytes, to send in a round of a pace on
// each of the paths that are possible. All paths are probed together, so that
// each can tell for the others whether the other node answers; only an active path
// in good standing is probed alone.
func (m *Machine) Sizes(pace Pace, ways []model.WayTo) [][]int {
	sizes := make([][]int, len(m.tracks))
	for i, t := range m.tracks {
		switch {
		case !ways[i].Possible():
		case pace == Active:
			if t.way.Path == m.Taken {
				sizes[i] = []int{t.needed()}
			}
		default:
			sizes[i] = t.sizes()
		}
	}
	return sizes
}

// Bare reports whether a small packet without a checksum is to be sent by an encapsulation
// besides: where it comes back and others do not, it is known why.
func (m *Machine) Bare(pace Pace, to model.WayTo, i int) bool {
	return to.Possible() && len(to.Devices) > 0 && pace != Active && m.tracks[i].missed > 0
}

// BareSize is the size of that packet in bytes.
const BareSize = smallest

func (t track) sizes() []int {
	sizes := []int{smallest, t.needed(), t.limit}
	low, high := 0, 0
	switch {
	case t.cut > 0:
		low, high = least, t.needed()
	case t.tooLarge > 0:
		low, high = t.mtu, t.tooLarge
		sizes = append(sizes, t.tooLarge)
	}
	if high-low > precise {
		for i := range rungs + 1 {
			sizes = append(sizes, low+(high-low)*i/(rungs+1))
		}
	}
	sizes = slices.DeleteFunc(sizes, func(size int) bool { return size > t.limit })
	slices.Sort(sizes)
	return slices.Compact(sizes)
}
