package netns

import (
	"fmt"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// Each node switches in a pass of its own, so that for a while the two directions
// take different paths.
func TestSwitchLosesNothing(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: dual})
			a, b := c.nodes[0].addPod(t), c.nodes[1].addPod(t)
			flows := flows{}
			for _, addr := range b.Addrs {
				flows["pod to "+addr.String()] = a.StartFlow(t, addr, port, time.Millisecond)
				flows["node to "+addr.String()] = c.nodes[0].StartFlow(t, addr, port, time.Millisecond)
			}
			for i := range 8 {
				flows.await(t, 70)
				c.network.Mode = model.ModeRouted
				if i%2 == 1 {
					c.network.Mode = model.ModeOverlay
				}
				c.nodes[i/2%2].pass(t)
				flows.await(t, 30)
				c.nodes[1-i/2%2].pass(t)
			}
			flows.expectAll(t)
		})
	}
}

// flows are steady flows by what they are.
type flows map[string]*topology.Flow

// await waits until each flow has gone on for so many datagrams.
func (f flows) await(t *testing.T, datagrams int) {
	t.Helper()
	for _, flow := range f {
		flow.Await(t, datagrams)
	}
}

// expectAll ends the flows, of which nothing may be missing.
func (f flows) expectAll(t *testing.T) {
	t.Helper()
	for name, flow := range f {
		if sent, back := flow.Stop(); sent != back {
			t.Errorf("%s: of %d datagrams %d came back", name, sent, back)
		}
	}
}

// Distributions that set rp_filter to strict would drop what comes in by a path
// that the replies do not take.
func TestDirectionsOnDifferentPathsUnderStrictReversePathFilter(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 0, attachment: attachment, mode: model.ModeOverlay, families: onlyIPv4})
			second := c.addNode(t)
			for _, n := range c.nodes {
				for _, link := range []string{"all", "default", "eth0"} {
					n.Sysctl(t, fmt.Sprintf("net/ipv4/conf/%s/rp_filter", link), "1")
				}
			}
			c.sync(t)
			a, b := c.nodes[0].addPod(t), second.addPod(t)
			c.network.Mode = model.ModeRouted
			c.nodes[0].sync(t)
			if err := a.Reaches(b.Addrs[0], port); err != nil {
				t.Error(err)
			}
			if err := b.Reaches(a.Addrs[0], port); err != nil {
				t.Error(err)
			}
		})
	}
}
