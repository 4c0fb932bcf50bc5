package ipam

import (
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	// Blocks of 12 addresses each; the reserve of 4 is less than half of them.
	const size = 12
	block := func(i int, change ...func(*Holding)) Holding {
		h := Holding{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(16 * i)}), 28), InForce: true}
		for _, c := range change {
			c(&h)
		}
		return h
	}
	used := func(n int64) func(*Holding) { return func(h *Holding) { h.Used = n } }
	empty := func(d time.Duration) func(*Holding) { return func(h *Holding) { h.Empty = d } }
	leaving := func(h *Holding) { h.Leaving = true }
	draining := func(h *Holding) { h.Draining = true }
	rangeDrains := func(h *Holding) { h.Leaving, h.RangeDrains = true, true }
	unheard := func(h *Holding) { h.InForce = false }
	list := func(h ...Holding) []Holding { return h }

	for _, c := range []struct {
		name    string
		held    []Holding
		waiting int64
		resting int
		max     int
		next    int64
		add     int
		fates   []Fate
		urgent  bool
		limited bool
		kept    bool
		wait    time.Duration
	}{
		{name: "a new node gets a block", add: 1, urgent: true},
		{name: "a new node for which no range is there gets none", next: -1, urgent: true},
		{name: "enough is free", held: list(block(0, used(8))), fates: []Fate{Use}},
		{name: "fewer are free than the reserve", held: list(block(0, used(9))), add: 1, fates: []Fate{Use}},
		{name: "a block that the agent has not seen counts as free", held: list(block(0, used(size)), block(1, unheard)), fates: []Fate{Use, Use}},
		{name: "a pod that waits until an address leaves quarantine gets no block for it", held: list(block(0, used(7))), waiting: 1, fates: []Fate{Use}},
		{name: "a burst of pods gets all its blocks at once", held: list(block(0, used(size))), waiting: 40, add: 4, fates: []Fate{Use}, urgent: true},
		{
			name: "a burst is limited", held: list(block(0, used(size))), waiting: 400, max: 3, add: 2, fates: []Fate{Use}, urgent: true,
		},
		{
			name: "the limit is reached", held: list(block(0, used(size)), block(1, used(size-1))), waiting: 2, max: 2,
			fates: []Fate{Use, Use}, urgent: true, limited: true,
		},
		{
			name: "an extra block goes when it was empty long enough", held: list(block(0, used(4)), block(1, empty(time.Hour))),
			fates: []Fate{Use, Drain},
		},
		{
			name: "and not before", held: list(block(0, used(4)), block(1, empty(time.Minute))),
			fates: []Fate{Use, Use}, wait: 4 * time.Minute,
		},
		{
			name: "and not where the node would want it back soon", held: list(block(0, used(5)), block(1, empty(time.Hour))),
			fates: []Fate{Use, Use},
		},
		{name: "the last block stays", held: list(block(0, empty(time.Hour))), fates: []Fate{Use}},
		{
			name: "the youngest goes first, one at a time",
			held: list(block(0, empty(time.Hour)), block(1, empty(time.Hour)), block(2, empty(time.Hour))), fates: []Fate{Use, Use, Drain},
		},
		{name: "it is given back when the agent releases it", held: list(block(0), block(1, draining)), fates: []Fate{Use, Release}},
		{name: "and not before it does", held: list(block(0), block(1, draining, unheard)), fates: []Fate{Use, Drain}},
		{name: "a pod came meanwhile", held: list(block(0), block(1, draining, used(1))), fates: []Fate{Use, Use}},
		{name: "it is needed again", held: list(block(0, used(10)), block(1, draining)), fates: []Fate{Use, Use}},
		{
			name: "a block of a draining range serves until there is another", held: list(block(0, leaving, used(3))), add: 1,
			fates: []Fate{Use}, urgent: true,
		},
		{
			name: "it drains when there is", held: list(block(0, leaving, used(3)), block(1, unheard)),
			fates: []Fate{Drain, Use},
		},
		{
			name: "it drains at once where no other can come", held: list(block(0, leaving, used(3))), next: -1,
			fates: []Fate{Drain}, urgent: true,
		},
		{name: "it stays while pods are in it", held: list(block(0, leaving, draining, used(1)), block(1)), fates: []Fate{Drain, Use}},
		{name: "it goes with its last pod", held: list(block(0, leaving, draining), block(1)), fates: []Fate{Release, Use}},
		{
			name: "not before the agent gives no more addresses", held: list(block(0, leaving, draining, unheard), block(1)),
			fates: []Fate{Drain, Use},
		},
		{
			name: "not before the node's address is elsewhere", held: list(block(0, leaving, draining), block(1, unheard)),
			fates: []Fate{Drain, Use},
		},
		{name: "it goes where no other can come", held: list(block(0, leaving, draining)), next: -1, fates: []Fate{Release}, urgent: true},
		{
			name: "draining ranges do not count towards the limit", held: list(block(0, rangeDrains, used(1)), block(1, rangeDrains, used(1))), max: 1,
			resting: 1, add: 1, fates: []Fate{Use, Use}, urgent: true,
		},
		{
			name: "a node that moves gets as many as it may hold", held: list(block(0, leaving, used(size)), block(1, leaving, used(size))), waiting: 100,
			max: 2, add: 2, fates: []Fate{Use, Use}, urgent: true,
		},
		{
			name: "it gets them while those that it left rest", held: list(block(0, leaving, used(size)), block(1)), waiting: 100, resting: 1,
			max: 2, add: 1, fates: []Fate{Drain, Use}, urgent: true,
		},
		{
			name: "one that moves on and on waits until they have rested", held: list(block(0, leaving)), resting: 3, max: 2,
			fates: []Fate{Use}, urgent: true, kept: true,
		},
		{name: "one that holds no block waits too", resting: 4, max: 2, urgent: true, kept: true},
		{name: "a machine set up again waits for no block of its predecessor", resting: 1, max: 1, add: 1, urgent: true},
		{
			name: "one that grows and shrinks waits too", held: list(block(0, used(size))), waiting: 1, resting: 3, max: 2,
			fates: []Fate{Use}, urgent: true, kept: true,
		},
		{
			name: "one that holds more than it may, as the limit was lowered, moves all the same",
			held: list(block(0, leaving), block(1, leaving), block(2, leaving)), waiting: 20, max: 1,
			add: 1, fates: []Fate{Use, Use, Use}, urgent: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := Need{Held: c.held, Resting: c.resting, Waiting: c.waiting, Next: size, Max: 8, Reserve: 4, Idle: 5 * time.Minute}
			if c.max > 0 {
				n.Max = c.max
			}
			if c.next < 0 {
				n.Next = 0
			}
			d := n.Decide()
			want := Decision{Add: c.add, Fates: c.fates, Urgent: c.urgent, Limited: c.limited, Kept: c.kept, Wait: c.wait}
			if !slices.Equal(d.Fates, want.Fates) {
				t.Errorf("fates %v, want %v", d.Fates, want.Fates)
			}
			if d.Fates, want.Fates = nil, nil; !reflect.DeepEqual(d, want) {
				t.Errorf("Decide = %+v, want %+v", d, want)
			}
		})
	}
}

func TestBlocksAreAddedWhateverTheirSize(t *testing.T) {
	small := netip.MustParsePrefix("fd00::/120")
	for _, next := range []int64{1, 253, 1 << 40, math.MaxInt64} {
		for _, waiting := range []int64{1, 5, 1 << 50, math.MaxInt64} {
			n := Need{
				Held: []Holding{{CIDR: small, InForce: true, Used: AddressCount(small)}}, Waiting: waiting, Next: next, Max: 8, Reserve: 16,
			}
			if d := n.Decide(); d.Add < 1 || d.Add > 7 || !d.Urgent {
				t.Errorf("%d wait, blocks of %d: %+v", waiting, next, d)
			}
		}
	}
}

func TestReserveFitsTheBlock(t *testing.T) {
	for _, c := range []struct {
		cidr    string
		used    int64
		reserve int64
		add     int
	}{
		{"10.0.0.0/30", 0, 16, 0}, // Its one address is free.
		{"10.0.0.0/30", 1, 16, 1},
		{"10.0.0.0/30", 1, 0, 0},
		{"10.0.0.0/28", 6, 16, 0},
		{"10.0.0.0/28", 7, 16, 1},
		{"fd00::/64", 1000, 16, 0},
	} {
		block := netip.MustParsePrefix(c.cidr)
		n := Need{Held: []Holding{{CIDR: block, InForce: true, Used: c.used}}, Next: AddressCount(block), Max: 8, Reserve: c.reserve}
		if d := n.Decide(); d.Add != c.add {
			t.Errorf("%d of %s used, reserve %d: Add = %d, want %d", c.used, c.cidr, c.reserve, d.Add, c.add)
		}
	}
}
