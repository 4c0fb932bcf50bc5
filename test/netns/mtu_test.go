package netns

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// A pod is born with the MTU of the underlay, and its packets take a path that
// carries less.
func TestPathSmallerThanPods(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
			for _, underlay := range []int{1500, 1450} {
				t.Run(fmt.Sprintf("%s/%s/underlay %d", attachment, name, underlay), func(t *testing.T) {
					t.Parallel()
					c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: families, mtu: underlay})
					a, b := c.nodes[0].addPod(t), c.nodes[1].addPod(t)
					to := b.Addrs[0]
					if a.MTU != underlay {
						t.Fatalf("pods have an MTU of %d, want %d", a.MTU, underlay)
					}
					if _, err := a.TCP(to, port, 4<<20); err != nil {
						t.Errorf("TCP: %v", err)
					}
					ip, outer := 20, 20
					if to.Is6() {
						ip, outer = 40, 40
					}
					// Outer IP, UDP, VXLAN and inner Ethernet header.
					carried := underlay - outer - 8 - 8 - 14
					full := underlay - ip - 8
					if err := a.UDP(to, port, full); err == nil {
						t.Error("a datagram that the path cannot carry whole came back")
					}
					if err := a.UDP(to, port, full); !errors.Is(err, unix.EMSGSIZE) {
						t.Errorf("the second such datagram: %v, want EMSGSIZE, since the node told the path's MTU", err)
					}
					if to.Is6() {
						// A collection of garbage, of which there is one every 30 seconds.
						a.Sysctl(t, "net/ipv6/route/flush", "0")
						if got, want := a.Run(t, "ip", "-6", "route", "get", to.String()), fmt.Sprintf(" mtu %d ", carried); !strings.Contains(got, want) {
							t.Errorf("the pod has forgotten the path's MTU, want%sin: %s", want, got)
						}
					}
					if err := a.UDP(to, port, carried-ip-8); err != nil {
						t.Errorf("a datagram of the path's %d bytes: %v", carried, err)
					}
					if err := a.UDP(to, port, carried-ip-8+1); !errors.Is(err, unix.EMSGSIZE) {
						t.Errorf("a datagram of one byte more: %v, want EMSGSIZE", err)
					}
				})
			}
		}
	}
}
