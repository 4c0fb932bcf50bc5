package ipam

import (
	"net/netip"
	"time"
)

// Holding is a block that a node holds, as far as it matters for what becomes of it.
type Holding struct {
	CIDR netip.Prefix
	// Leaving says that the node is to do without the block, as its range drains or is
	// not for the node any more.
	Leaving bool
	// RangeDrains says that the range drains, so that the block is kept from nobody.
	RangeDrains bool
	// Draining says that the block is asked to give no new addresses.
	Draining bool
	// InForce says that the node's agent has done what was asked of it: from a
	// Draining block it gives no address any more, and the node has its own address
	// elsewhere if it holds another block.
	InForce bool
	// Used is the number of addresses that pods have, as the agent last reported.
	Used int64
	// Empty is for how long the block is known to have had no pod.
	Empty time.Duration
}

// free is the number of addresses that new pods can get from the block.
func (h Holding) free() int64 { return max(AddressCount(h.CIDR)-h.Used, 0) }

// Need is what one node needs of one family, and what it holds.
type Need struct {
	// Held are the blocks that the node holds, the oldest first, without those
	// that were given back.
	Held []Holding
	// Waiting is the number of pods that wait for an address.
	Waiting int64
	// Next is the number of addresses of the block that the node would get next; 0
	// where no range is there for it.
	Next int64
	// Resting is the number of blocks outside draining ranges that are not free, as the node
	// had them and they rest, or are about to.
	Resting int
	// Max is the number of blocks that the node may hold beside those that it leaves. Those that
	// it leaves and those that rest included, it may keep twice as many from others.
	Max int
	// Reserve is the number of free addresses that the node shall have; more than
	// half of a block's count as half, and less than one as one.
	Reserve int64
	// Idle is how long a block that is not needed must have been empty before it is given back.
	Idle time.Duration
}

// Fate is what becomes of a block.
type Fate int

const (
	// Use lets new pods have addresses of the block.
	Use Fate = iota
	// Drain lets no new pod have one.
	Drain
	// Release gives the block back: no pod has one.
	Release
)

// Decision is what becomes of a node's blocks of one family.
type Decision struct {
	// Add is the number of blocks that the node is to get.
	Add int
	// Fates of the blocks held, index by index.
	Fates []Fate
	// Urgent says that pods wait, or the next one would.
	Urgent bool
	// Limited says that the node would get more blocks if Max allowed it.
	Limited bool
	// Kept says that it would get more if it kept fewer from others: those that it leaves, and
	// those that rest. Time gives it more, or that its pods end.
	Kept bool
	// Wait is the time after which an empty block may go, if nothing changes before; 0 where there is none.
	Wait time.Duration
}

// Decide says what becomes of the blocks that the node holds, and how many it is
// to get. What was created or changed and is not reported yet counts as what it
// will be, so that deciding again before the agent has answered changes nothing.
func (n Need) Decide() Decision {
	d := Decision{Fates: make([]Fate, len(n.Held))}
	reserve := n.reserve()
	want := Sum(n.Waiting, reserve)
	active, inForce := n.active()
	free := n.freeOf(active)
	usable := len(active)

	// A block that was to go is kept where it is needed after all.
	for i, h := range n.Held {
		if h.Leaving || !h.Draining {
			continue
		}
		switch {
		case h.Used > 0 || free < want || len(active) == 0:
			free = Sum(free, h.free())
			usable++
		case h.InForce:
			d.Fates[i] = Release
		default:
			d.Fates[i] = Drain
			usable++
		}
	}

	d.Urgent = usable == 0 || n.Waiting > free || free == 0
	if usable == 0 || free < want {
		most, unkept := max(n.Max-usable, 0), n.unkept(usable)
		d.Add = n.add(want-free, usable, min(most, unkept))
		d.Limited = most == 0
		d.Kept = most > 0 && unkept == 0 && n.Next > 0
	} else {
		d.surplus(n, active, free, Sum(want, reserve))
	}
	n.leave(&d, usable > 0, inForce)
	return d
}

// reserve is the number of free addresses below which another block is added.
func (n Need) reserve() int64 {
	if n.Reserve == 0 {
		return 0
	}
	block := n.Next
	if block == 0 && len(n.Held) > 0 {
		block = AddressCount(n.Held[0].CIDR)
	}
	return max(min(n.Reserve, block/2), 1)
}

// active returns the indices of the blocks that give addresses and are to go on
// doing so, and whether the agent knows one of them.
func (n Need) active() (active []int, inForce bool) {
	for i, h := range n.Held {
		if !h.Leaving && !h.Draining {
			active = append(active, i)
			inForce = inForce || h.InForce
		}
	}
	return active, inForce
}

func (n Need) freeOf(blocks []int) int64 {
	var free int64
	for _, i := range blocks {
		free = Sum(free, n.Held[i].free())
	}
	return free
}

// unkept is how many more blocks the node may keep from others: a node that moves between
// ranges, by labels that it can write itself, gets no block for each move. One that moves for the
// first time in a while gets one whatever it holds.
func (n Need) unkept(usable int) int {
	left := 2*n.Max - n.Resting
	for _, h := range n.Held {
		if !h.RangeDrains {
			left--
		}
	}
	if usable == 0 && n.Resting == 0 {
		left = max(left, 1)
	}
	return max(left, 0)
}

// add is the number of blocks that hold so many addresses, at most so many.
func (n Need) add(addresses int64, held, most int) int {
	if n.Next == 0 {
		return 0
	}
	addresses = max(addresses, 0)
	blocks := addresses / n.Next
	if addresses%n.Next > 0 {
		blocks++
	}
	if held == 0 {
		blocks = max(blocks, 1)
	}
	return int(min(blocks, int64(most)))
}

// surplus releases the youngest empty block that the node can do without: one at a
// time, and only if what is left is more than would make it get another.
func (d *Decision) surplus(n Need, active []int, free, enough int64) {
	if len(active) < 2 {
		return
	}
	for k := len(active) - 1; k >= 0; k-- {
		h := n.Held[active[k]]
		if h.Used > 0 || !h.InForce || free-h.free() < enough {
			continue
		}
		if h.Empty >= n.Idle {
			d.Fates[active[k]] = Drain
		} else {
			d.Wait = n.Idle - h.Empty
		}
		return
	}
}

// leave releases the blocks of draining ranges, once new pods of the node can
// have addresses elsewhere, or no range is left that would give it others. The
// node's own address moves before its block goes.
func (n Need) leave(d *Decision, elsewhere, moved bool) {
	for i, h := range n.Held {
		switch {
		case !h.Leaving:
		case !elsewhere && n.Next > 0:
			d.Fates[i] = Use
		case h.Draining && h.InForce && h.Used == 0 && (moved || !elsewhere):
			d.Fates[i] = Release
		default:
			d.Fates[i] = Drain
		}
	}
}
