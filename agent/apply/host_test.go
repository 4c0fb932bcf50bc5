package apply

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

func TestWhatChangesTheNodeAsksForAPass(t *testing.T) {
	for name, s := range map[string]diff.Sighting{
		"address came":               {Object: model.HostAddress{Link: "eth3", Addr: netip.MustParseAddr("192.0.2.9")}},
		"address went":               {Object: model.HostAddress{Link: "eth3", Addr: netip.MustParseAddr("192.0.2.9")}, Gone: true},
		"uplink is down":             {Object: model.HostLink{Name: "eth0"}},
		"uplink went":                {Object: model.HostLink{Name: "eth0"}, Gone: true},
		"uplink has another MTU":     {Object: model.HostLink{Name: "eth0", Up: true, MTU: 1400}},
		"link with addresses is up":  {Object: model.HostLink{Name: "eth3", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}}},
		"route to a peer came":       {Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("192.0.2.2/32")}},
		"route to a peer went":       {Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("192.0.0.0/16")}, Gone: true},
		"default route came or went": {Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("0.0.0.0/0")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gomega.NewWithT(t)
				w, seen := watch(t, newNode())
				seen(s)
				g.Eventually(w.passes, 1500*time.Millisecond).Should(gomega.Receive())
				g.Consistently(w.passes, 1500*time.Millisecond).ShouldNot(gomega.Receive())
			})
		})
	}
}

func TestWhatDoesNotConcernTheNetworkAsksForNoPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		w, seen := watch(t, newNode())
		for _, s := range []diff.Sighting{
			{Object: model.HostLink{Name: "eth7", Up: true}},
			{Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("198.51.100.0/24")}},
			{Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("192.0.2.3/32")}, Gone: true},
			{Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("::/0")}},
		} {
			seen(s)
		}
		g.Consistently(w.passes, time.Second).ShouldNot(gomega.Receive())
	})
}

// What goes may come back: an address that is replaced is looked at once.
func TestWhatGoesAndComesBackIsLookedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		w, seen := watch(t, newNode())
		address := model.HostAddress{Link: "eth0", Addr: netip.MustParseAddr("192.0.2.1")}
		seen(diff.Sighting{Object: address, Gone: true})
		g.Consistently(w.passes, 300*time.Millisecond).ShouldNot(gomega.Receive())
		seen(diff.Sighting{Object: address})
		g.Eventually(w.passes).Should(gomega.Receive())
		g.Consistently(w.passes, 1500*time.Millisecond).ShouldNot(gomega.Receive())
	})
}

func TestManyRoutesLeadToOnePassASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		w, seen := watch(t, newNode())
		for range 150 {
			for range 100 {
				seen(diff.Sighting{Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("192.0.2.2/32")}})
			}
			time.Sleep(10 * time.Millisecond)
		}
		g.Expect(len(w.passes)).To(gomega.BeNumerically("<=", 3))
	})
}

// A pass that failed is tried again seldom, and at once on a node that is another one.
func TestChangedNodeIsTriedAtOnceAlsoAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n := newNode()
		w, seen := watch(t, n)
		w.applier.outcome.Store(&outcome{failed: errors.New("the kernel refuses")})
		seen(diff.Sighting{})
		g.Consistently(w.passes, 300*time.Millisecond).ShouldNot(gomega.Receive())
		seen(diff.Sighting{Object: model.HostAddress{Link: "eth0", Addr: netip.MustParseAddr("192.0.2.9")}})
		g.Eventually(w.passes).Should(gomega.Receive())
	})
}

func TestNodeLeavesItsFormerEndpointWhenOthersHaveHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		n := newNode()
		n.snapshot.Former = []model.FormerEndpoint{
			{Node: "a", Addr: netip.MustParseAddr("192.0.2.8"), Fresh: 500 * time.Millisecond},
			{Node: "b", Addr: netip.MustParseAddr("192.0.2.9"), Fresh: time.Millisecond},
		}
		start := time.Now()
		w, _ := watch(t, n)
		g.Eventually(w.passes, 5*time.Second).Should(gomega.Receive())
		g.Expect(time.Since(start)).To(gomega.BeNumerically(">=", 500*time.Millisecond))
	})
}

func BenchmarkRouteThatLeadsToNoPeer(b *testing.B) {
	var peers []netip.Addr
	for i := range 5000 {
		peers = append(peers, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}))
	}
	n := newNotes()
	n.want(model.State{}, peers)
	b.ReportAllocs()
	for b.Loop() {
		n.see(diff.Sighting{Object: model.UnderlayRoute{Dst: netip.MustParsePrefix("198.51.100.0/24")}})
	}
}
