package state

import (
	"net/netip"
	"testing"
	"time"

	"github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/podnet/podnet/internal/model"
)

func TestVanishedBlocksAreServedForAWhile(t *testing.T) {
	g := gomega.NewWithT(t)
	clock := clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	l := newLost(clock)
	block := func(name, cidr string, state model.BlockState) model.Block {
		return model.Block{Name: name, CIDR: netip.MustParsePrefix(cidr), Node: "n", State: state}
	}
	a := block("a", "10.0.1.0/24", model.BlockActive)
	b := block("b", "10.0.2.0/24", model.BlockReleased)
	c := block("c", "10.0.3.0/24", model.BlockActive)
	vanished := func(b model.Block) model.Block {
		b.State, b.Vanished = model.BlockDraining, true
		return b
	}

	g.Expect(l.blocks([]model.Block{a, b, c})).To(gomega.BeEmpty(), "all are there")
	g.Expect(l.blocks([]model.Block{c})).To(gomega.HaveExactElements(vanished(a)), "b was released")
	g.Expect(l.blocks(nil)).To(gomega.HaveExactElements(vanished(a), vanished(c)))
	g.Expect(l.blocks([]model.Block{a})).To(gomega.HaveExactElements(vanished(c)), "a is there again")
	other := block("d", "10.0.3.128/25", model.BlockActive)
	g.Expect(l.blocks([]model.Block{a, other})).To(gomega.BeEmpty(), "another block overlaps c")
	g.Expect(l.blocks([]model.Block{other})).To(gomega.HaveExactElements(vanished(a)))
	clock.SetTime(clock.Now().Add(lostGrace))
	g.Expect(l.blocks([]model.Block{other})).To(gomega.HaveExactElements(vanished(a)))
	clock.SetTime(clock.Now().Add(time.Second))
	g.Expect(l.blocks([]model.Block{other})).To(gomega.BeEmpty(), "the grace is over")
}
