package state

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/podnet/podnet/internal/model"
)

// held is a block of a node with these endpoints.
func held(node string, endpoints ...string) model.Block {
	b := model.Block{Node: node}
	for _, e := range endpoints {
		b.Endpoints = append(b.Endpoints, netip.MustParseAddr(e))
	}
	return b
}

func formerOf(node, addr string, fresh time.Duration) model.FormerEndpoint {
	return model.FormerEndpoint{Node: node, Addr: netip.MustParseAddr(addr), Fresh: fresh}
}

func TestFormerEndpointsAreRememberedForAWhile(t *testing.T) {
	g := gomega.NewWithT(t)
	clock := clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	f := newFormer(clock)
	after := func(d time.Duration) { clock.SetTime(clock.Now().Add(d)) }
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.1", "2001:db8::1"), held("b", "192.0.2.2")})).To(gomega.BeEmpty())

	now := []model.Block{held("a", "192.0.2.11", "2001:db8::1"), held("b", "192.0.2.2")}
	g.Expect(f.endpoints(now)).To(gomega.HaveExactElements(formerOf("a", "192.0.2.1", freshGrace)))
	after(freshGrace / 2)
	g.Expect(f.endpoints(now)).To(gomega.HaveExactElements(formerOf("a", "192.0.2.1", freshGrace/2)))
	after(freshGrace / 2)
	g.Expect(f.endpoints(now)).To(gomega.HaveExactElements(formerOf("a", "192.0.2.1", 0)))
	after(formerGrace - freshGrace)
	g.Expect(f.endpoints(now)).To(gomega.HaveLen(1))
	after(time.Second)
	g.Expect(f.endpoints(now)).To(gomega.BeEmpty())
}

func TestFormerEndpointThatIsOneAgainIsNoFormerOne(t *testing.T) {
	g := gomega.NewWithT(t)
	f := newFormer(clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0)))
	f.endpoints([]model.Block{held("a", "192.0.2.1"), held("b", "192.0.2.2")})
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.11"), held("b", "192.0.2.2")})).To(gomega.HaveLen(1))
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.11"), held("b", "192.0.2.1")})).To(
		gomega.HaveExactElements(formerOf("b", "192.0.2.2", freshGrace)), "it is another node's now")
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.1"), held("b", "192.0.2.1")})).To(gomega.HaveExactElements(
		formerOf("a", "192.0.2.11", freshGrace), formerOf("b", "192.0.2.2", freshGrace)))
}

// While its blocks are being updated a node has both.
func TestEndpointOfAnyBlockIsNoFormerOne(t *testing.T) {
	g := gomega.NewWithT(t)
	f := newFormer(clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0)))
	f.endpoints([]model.Block{held("a", "192.0.2.1"), held("a", "192.0.2.1")})
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.11"), held("a", "192.0.2.1")})).To(gomega.BeEmpty())
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.11"), held("a", "192.0.2.11")})).To(gomega.HaveLen(1))
}

func TestNodeThatHasGoneLeavesNoFormerEndpoints(t *testing.T) {
	g := gomega.NewWithT(t)
	f := newFormer(clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0)))
	f.endpoints([]model.Block{held("a", "192.0.2.1"), held("b", "192.0.2.2")})
	g.Expect(f.endpoints([]model.Block{held("a", "192.0.2.11"), held("b", "192.0.2.2")})).To(gomega.HaveLen(1))
	g.Expect(f.endpoints([]model.Block{held("b", "192.0.2.2")})).To(gomega.BeEmpty())
	g.Expect(f.since).To(gomega.BeEmpty())
}

func TestFormerEndpointsOfANodeAreBounded(t *testing.T) {
	g := gomega.NewWithT(t)
	clock := clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	f := newFormer(clock)
	for i := range 100 {
		f.endpoints([]model.Block{held("a", fmt.Sprintf("192.0.2.%d", i)), held("b", fmt.Sprintf("2001:db8::%d", i/50))})
		clock.SetTime(clock.Now().Add(time.Second))
	}
	got := f.endpoints([]model.Block{held("a", "192.0.2.99"), held("b", "2001:db8::1")})
	g.Expect(got).To(gomega.HaveLen(maxFormer + 1))
	g.Expect(got[0].Addr).To(gomega.Equal(netip.MustParseAddr("192.0.2.98")), "the latest are kept")
	g.Expect(got[maxFormer].Node).To(gomega.Equal("b"))
	g.Expect(f.since).To(gomega.HaveLen(maxFormer + 1))
}
