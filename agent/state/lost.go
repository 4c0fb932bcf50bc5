package state

import (
	"slices"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/podnet/podnet/internal/model"
)

// lostGrace is how long a block is served after its object vanished. The manager
// recreates the object within seconds where pods use the block.
const lostGrace = 5 * time.Minute

// lost are the blocks whose NodeSubnets disappeared without having been released.
// The manager always releases a block before its object goes, so something else
// took it away: a restore of etcd from an older backup, or a deletion by force. The
// pods in the block run on, and so do the routes to them.
type lost struct {
	clock clock.PassiveClock

	// last are the blocks that were there last time, by name.
	last     map[string]model.Block
	vanished map[string]lostBlock
}

func newLost(c clock.PassiveClock) *lost {
	return &lost{clock: c, vanished: map[string]lostBlock{}}
}

type lostBlock struct {
	model.Block
	since time.Time
}

// blocks takes note of the blocks that are there now and returns those that
// vanished and are still served, sorted by name: not those that overlap a block
// that is there. New pods get no address of them before their object is there again.
func (l *lost) blocks(present []model.Block) []model.Block {
	now := l.clock.Now()
	there := make(map[string]model.Block, len(present))
	for _, b := range present {
		there[b.Name] = b
	}
	for name, b := range l.last {
		if _, still := there[name]; !still && b.State != model.BlockReleased {
			b.State, b.Vanished = model.BlockDraining, true
			l.vanished[name] = lostBlock{Block: b, since: now}
		}
	}
	l.last = there
	var out []model.Block
	for name, b := range l.vanished {
		taken := slices.ContainsFunc(present, func(p model.Block) bool { return p.CIDR.Overlaps(b.CIDR) })
		if taken || now.Sub(b.since) > lostGrace {
			delete(l.vanished, name)
			continue
		}
		out = append(out, b.Block)
	}
	slices.SortFunc(out, func(a, b model.Block) int { return strings.Compare(a.Name, b.Name) })
	return out
}
