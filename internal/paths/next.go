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

// Next returns at which pace the next round is due, given which paths are
// possible, whether pods of this node talk to the block, and the path that is
// waiting for a fresh proof, if any.
func (m Machine) Next(possible [2]bool, active bool, wish model.Path) Pace {
	pace := Idle
	for i, t := range m.tracks {
		if !possible[i] {
			continue
		}
		pace = max(pace, t.pace())
		// The other node answers by the other path: what is missed now counts.
		if other := m.tracks[1-i]; t.standing == model.Suspect && t.missed > 0 && other.run > 0 && possible[1-i] {
			pace = Doubt
		}
		if model.Ways[i] == wish && t.unheard() < doubtful {
			pace = Doubt
		}
		if active && model.Ways[i] == m.Taken {
			pace = max(pace, Waiting)
			if t.missed < patient {
				pace = max(pace, Active)
			}
		}
	}
	return pace
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
// each of the paths that are possible. Both paths are probed together, so that
// each can tell for the other whether the other node answers; only an active path
// in good standing is probed alone.
func (m Machine) Sizes(pace Pace, possible [2]bool) [2][]int {
	var sizes [2][]int
	for i, t := range m.tracks {
		switch {
		case !possible[i]:
		case pace == Active:
			if model.Ways[i] == m.Taken {
				sizes[i] = []int{t.needed()}
			}
		default:
			sizes[i] = t.sizes()
		}
	}
	return sizes
}

// Bare returns whether a small packet without a checksum is to be sent by the overlay
// besides: where it comes back and others do not, it is known why.
func (m Machine) Bare(pace Pace, possible [2]bool) bool {
	return possible[model.OverlayWay] && pace != Active && m.tracks[model.OverlayWay].missed > 0
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
