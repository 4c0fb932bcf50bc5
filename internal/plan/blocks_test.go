package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

func TestOlderBlockIsServedAndTheYoungerReported(t *testing.T) {
	c := cluster()
	foreign := block("c", true)
	foreign.Name, foreign.CIDR, foreign.Created = "10.244.1.0-25", prefix("10.244.1.0/25"), born.Add(time.Hour)
	c.Blocks = append(c.Blocks, foreign)
	p := Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "10.244.1.0-25", "10.244.1.0-24", "node c", "node b")
	if hasRoute(p.State, "10.244.1.0/25") || !hasRoute(p.State, "10.244.1.0/24") {
		t.Errorf("routes: %+v", p.State.Routes)
	}
}

func TestOwnRefusedBlockIsReportedAndNotServed(t *testing.T) {
	c := cluster()
	c.Blocks[0].CIDR, c.Blocks[0].Created = prefix("10.244.1.0/25"), born.Add(time.Hour)
	p := Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "node a", "node b")
	if len(p.Blocks) != 1 || p.Blocks[0].CIDR.Addr().Is4() {
		t.Errorf("blocks: %+v", p.Blocks)
	}
}

func TestBlockOutsideTheRangesIsRefusedAndItsNodeNotTrusted(t *testing.T) {
	c := cluster()
	foreign := block("d", true)
	foreign.Name, foreign.CIDR = "192.168.0.0-16", prefix("192.168.0.0/16")
	c.Blocks = append(c.Blocks, foreign)
	p := Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "192.168.0.0-16", "node d")
	if hasRoute(p.State, "192.168.0.0/16") {
		t.Error("it is routed")
	}
	for _, e := range elementsOf(t, p.State, "inet", "endpoints4") {
		if e == foreign.Endpoints[0].String() {
			t.Error("its endpoint may send VXLAN packets")
		}
	}
}

func TestManyRefusedBlocksAreCounted(t *testing.T) {
	c := cluster()
	for i := range 20 {
		b := block("d", true)
		b.Name, b.CIDR = fmt.Sprintf("%02d", i), prefix(fmt.Sprintf("192.168.%d.0/24", i))
		c.Blocks = append(c.Blocks, b)
	}
	p := Build(c)
	if len(p.Problems) != namedConflicts+1 {
		t.Errorf("problems: %+v", p.Problems)
	}
	expectProblem(t, p.Problems, model.ReasonDegraded, "17 more")
}

func TestNodeWhoseObjectsDifferHasTheEndpointOfTheOldest(t *testing.T) {
	c := cluster()
	second := block("b", true)
	second.Name, second.CIDR, second.Created = "second", prefix("10.244.77.0/24"), born.Add(time.Hour)
	second.Endpoints = append(second.Endpoints[:0:0], addr("192.0.2.99"))
	c.Blocks = append(c.Blocks, second)
	s := Build(c).State
	found := 0
	for _, e := range s.FDB {
		if e.MAC == linkMAC("b", "vxpodnet4") {
			found++
			if e.Endpoint != addr("192.0.2.2") {
				t.Errorf("entry: %+v", e)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d entries for node b", found)
	}
}
