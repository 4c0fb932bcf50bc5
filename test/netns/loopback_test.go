package netns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// linkLocal returns the address that the kernel gave a node's interface.
func (n *node) linkLocal(t *testing.T) string {
	t.Helper()
	fields := strings.Fields(n.Run(t, "ip", "-6", "-oneline", "addr", "show", "dev", "eth0", "scope", "link"))
	for i, f := range fields {
		if f == "inet6" && i+1 < len(fields) {
			return netip.MustParsePrefix(fields[i+1]).Addr().String()
		}
	}
	t.Fatalf("%s has no link-local address: %v", n.Name, fields)
	return ""
}

// Nodes that speak BGP have their address on the loopback, and none of IPv4 on their
// interfaces: routes to others have IPv6 next hops (RFC 5549).
func TestNodesWithTheirAddressOnTheLoopback(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
			t.Run(fmt.Sprintf("%s/%s", attachment, mode), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 2, attachment: attachment, mode: mode, families: onlyIPv4})
				for i, n := range c.nodes {
					other := c.nodes[1-i]
					n.Script(t, fmt.Sprintf(`
						ip addr del %[1]s/24 dev eth0
						ip addr add %[1]s/32 dev lo
						ip route add %[2]s/32 nexthop via inet6 %[3]s dev eth0 nexthop via inet6 %[3]s dev eth0 weight 2
					`, n.IPv4.Addr(), other.IPv4.Addr(), other.linkLocal(t)))
					n.nodeIPs = []netip.Addr{n.IPv4.Addr()}
				}
				c.sync(t)
				n := c.nodes[0]
				if got, want := n.want(t).MTU, 1500; got != want {
					t.Errorf("pods have an MTU of %d, want the uplink's %d", got, want)
				}
				n.checkState(t)
				reaches(t, n.addPod(t), n.addPod(t), c.nodes[1].addPod(t))
			})
		}
	}
}

// The agent hears of an address that comes to the loopback, and of the next hop of a
// route of its own.
func TestWatchTellsOfTheLoopbackAndOfIPv6NextHops(t *testing.T) {
	n := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeRouted, families: onlyIPv4}).nodes[0]
	seen := make(chan diff.Sighting, 1000)
	n.watch(t, seen)
	n.Script(t, fmt.Sprintf(`
		ip addr add 198.51.100.7/32 dev lo
		ip route add 10.244.9.0/24 via inet6 fe80::9 dev eth0 onlink table %d proto %d
	`, model.RouteTable, model.RouteProtocol))
	waitFor(t, seen, diff.Sighting{Object: model.HostAddress{Link: "lo", Addr: netip.MustParseAddr("198.51.100.7")}})
	route := model.Route{Dst: netip.MustParsePrefix("10.244.9.0/24"), Link: "eth0", Via: netip.MustParseAddr("fe80::9"), OnLink: true}
	waitFor(t, seen, diff.Sighting{Object: route})
}

// watch returns what the kernel reports of the node until the test ends.
func (n *node) watch(t *testing.T, seen chan<- diff.Sighting) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	began := make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	go func() {
		defer close(done)
		err := n.Try(func() error {
			return n.kernel.Watch(ctx, func() []model.Sysctl { return nil }, func(s diff.Sighting) {
				begin()
				seen <- s
			})
		})
		// How it ends when it is told to is nobody's affair.
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	<-began
}

// waitFor waits until something is seen.
func waitFor(t *testing.T, seen <-chan diff.Sighting, want diff.Sighting) {
	t.Helper()
	for {
		select {
		case s := <-seen:
			if s == want {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%+v was not seen", want)
		}
	}
}
