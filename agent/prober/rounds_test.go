package prober

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
)

// When an agent starts, or a network is back, thousands of pairs settle in a short time.
func TestPairsThatSettledTogetherAreNotProbedTogether(t *testing.T) {
	const number = 1000
	now := time.Unix(0, 0)
	p, settled := &Prober{}, &target{PathChoice: model.PathChoice{PathQuestion: model.PathQuestion{Ways: ways()}}}
	for range number {
		r := &pair{target: settled, pace: paths.Doubt, machine: paths.NewMachine(model.PathOverlay, ways())}
		for i := range 10 {
			back := paths.Result{Sent: []int{1450}, Back: []int{1500}}
			r.machine.Evaluate(paths.Round{At: now.Add(time.Duration(i) * time.Second), Results: []paths.Result{back, back}})
		}
		p.pairs = append(p.pairs, r)
	}
	p.targets = map[netip.Prefix]*target{}
	interval := number * time.Second / idleRate
	for _, r := range p.pairs {
		p.fly(r, now)
	}
	var tenths [12]int
	for _, r := range p.pairs {
		tenths[min(int(10*r.due.Sub(now)/interval), 11)]++
	}
	for i, count := range tenths[:9] {
		if count < number/20 || count > number/5 {
			t.Errorf("%d of %d rounds are due in the tenth %d of the first interval", count, number, i)
		}
	}
	for _, r := range p.pairs {
		was := r.due
		if p.fly(r, was); r.due.Sub(was) < interval*8/10 || r.due.Sub(was) > interval*12/10 {
			t.Fatalf("the next round is due after %s, want about %s", r.due.Sub(was), interval)
		}
	}
}

// fleet is a prober of paths to many blocks, of which nothing is known.
func fleet(number int) *Prober {
	p := newProber(Config{Changed: func() {}})
	p.adopted = map[netip.Prefix]model.Path{}
	p.probe = model.Pod{Addrs: []netip.Addr{netip.MustParseAddr("10.244.0.254")}}
	var choices []model.PathChoice
	for i := 1; i <= number; i++ {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 256), byte(i), 0}), 24)
		choices = append(choices, model.PathChoice{
			Node: block.String(), Block: block, Cell: block, Path: model.PathOverlay, PathQuestion: model.PathQuestion{Ways: ways()},
		})
	}
	p.Aim(choices)
	return p
}

// A path that nobody used has its turn among thousands. When pods begin to use it that
// is too late.
func TestPathThatIsUsedDoesNotWaitAmongThoseThatAreNot(t *testing.T) {
	const number = 4000
	p := fleet(number)
	now := time.Now()
	p.turn(now)
	var last *pair
	for _, r := range p.pairs {
		if last == nil || r.due.After(last.due) {
			last = r
		}
	}
	if wait := last.due.Sub(now); wait < number*time.Second/doubtRate/2 || !last.reserved {
		t.Fatalf("the last of %d waits for %s", number, wait)
	}
	p.talk([]netip.Addr{last.target.Block.Addr()}, now)
	if p.turn(now); !last.due.After(now) || last.due.Sub(now) > time.Second || last.reserved {
		t.Errorf("the path that is used now waits for %s", last.due.Sub(now))
	}
}

// However many paths there are in doubt, their rounds do not come faster than the rate.
func TestRoundsInDoubtAreBounded(t *testing.T) {
	p := fleet(2000)
	now := time.Now()
	rounds := map[*pair]time.Time{}
	sent := 0
	for end := now.Add(3 * time.Second); now.Before(end); now = now.Add(10 * time.Millisecond) {
		p.turn(now)
		for _, r := range p.pairs {
			if !r.reserved && r.due.After(now) && !rounds[r].Equal(r.due) {
				rounds[r] = r.due
				sent++
			}
		}
	}
	if most := 3*doubtRate + doubtRate/10 + 1; sent > most || sent < doubtRate {
		t.Errorf("%d rounds in three seconds, want at most %d", sent, most)
	}
}

func TestCellsFindBlocksOfAnyLength(t *testing.T) {
	targets := map[netip.Prefix]*target{}
	for block, cell := range map[string]string{
		"10.244.1.0/24": "10.244.1.0/24", "10.244.4.0/25": "10.244.4.0/24", "10.244.4.128/25": "10.244.4.0/24", "10.245.0.0/20": "10.245.0.0/20",
		"fd00:1::/64": "fd00:1::/64",
	} {
		b := netip.MustParsePrefix(block)
		targets[b] = &target{PathChoice: model.PathChoice{Block: b, Cell: netip.MustParsePrefix(cell)}}
	}
	c := newCells(targets)
	for noted, want := range map[string]int{"10.244.1.0": 1, "10.244.4.0": 2, "10.245.7.0": 1, "10.246.0.0": 0, "fd00:1::": 1, "fd00:2::": 0} {
		if found := c.of(netip.MustParseAddr(noted)); len(found) != want {
			t.Errorf("%s stands for %d blocks, want %d", noted, len(found), want)
		}
	}
}

// ways are all ways, without obstacles.
func ways() []model.WayTo {
	return []model.WayTo{{Way: &model.Ways[0], Limit: 1500}, {Way: &model.Ways[1], Limit: 1450}}
}
