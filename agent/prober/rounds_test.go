package prober

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/path"
)

// When an agent starts, or a network is back, thousands of pairs settle in a short time.
func TestPairsThatSettledTogetherAreNotProbedTogether(t *testing.T) {
	const number = 1000
	now := time.Unix(0, 0)
	p := &Prober{}
	for range number {
		r := &pair{target: &target{}, pace: path.Doubt, machine: path.NewMachine(model.PathOverlay, [2]int{1500, 1450})}
		for i := range 10 {
			back := path.Result{Sent: []int{1450}, Back: []int{1500}}
			r.machine = r.machine.Judge(path.Round{At: now.Add(time.Duration(i) * time.Second), Results: [2]path.Result{back, back}})
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
