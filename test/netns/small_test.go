package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// overlayMTU is what VXLAN over IPv4 leaves of an underlay's MTU.
func overlayMTU(underlay int) int { return underlay - 50 }

// What an underlay carries limits IPv6, whose packets have a least size. It never costs
// a node its IPv4.
func TestUnderlayOfAnyMTU(t *testing.T) {
	for _, mtu := range []int{1500, 1400, 1329, 1300, 1280, 1250, 700} {
		for name, families := range map[string][2]topology.Families{
			"IPv4": {onlyIPv4, onlyIPv4}, "dual over IPv4": {onlyIPv4, dual}, "dual": {dual, dual}, "IPv6": {onlyIPv6, onlyIPv6},
		} {
			if families[0].IPv6 && mtu < model.MinIPv6MTU {
				continue
			}
			for i, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
				mode := []model.Mode{model.ModeOverlay, model.ModeRouted}[(i+mtu/10)%2]
				t.Run(fmt.Sprintf("%d/%s/%s/%s", mtu, name, attachment, mode), func(t *testing.T) {
					t.Parallel()
					c := newCluster(t, options{nodes: 2, attachment: attachment, mode: mode, families: families[0], ranges: families[1], mtu: mtu})
					n := c.nodes[0]
					a, b, remote := n.addPod(t), n.addPod(t), c.nodes[1].addPod(t)
					for _, to := range slices.Concat(b.Addrs, remote.Addrs) {
						switch {
						case to.Is4(), families[0].IPv6, slices.Contains(b.Addrs, to), overlayMTU(mtu) >= model.MinIPv6MTU:
							if err := a.Reaches(to, port); err != nil {
								t.Error(err)
							}
						default:
							if err := a.Ping(to); err == nil {
								t.Errorf("%s is reached although the overlay is too small for IPv6, and there is no other path", to)
							}
						}
					}
					n.checkState(t)
					n.saysWhyIPv6IsLess(t, mtu, families)
				})
			}
		}
	}
}

// saysWhyIPv6IsLess checks that the plan says what the underlay costs IPv6, and nothing
// where it costs nothing.
func (n *node) saysWhyIPv6IsLess(t *testing.T, mtu int, families [2]topology.Families) {
	t.Helper()
	word := ""
	switch {
	case !families[1].IPv6:
	case mtu < model.MinIPv6MTU:
		word = fmt.Sprintf("this node's pods have %d", mtu)
	case families[0].IPv4 && overlayMTU(mtu) < model.MinIPv6MTU, !families[0].IPv4 && overlayMTU(mtu)-20 < model.MinIPv6MTU:
		word = "by routed paths alone"
	}
	problems := n.want(t).Problems
	said := slices.IndexFunc(problems, func(p model.Problem) bool { return strings.Contains(p.Message, "IPv6 needs an MTU of 1280") })
	switch {
	case word == "" && said >= 0:
		t.Errorf("the plan says %q", problems[said].Message)
	case word != "" && (said < 0 || problems[said].Fatal || !strings.Contains(problems[said].Message, word)):
		t.Errorf("problems %+v, want one that says %q", problems, word)
	}
}

// The MTU of a node's interface falls and rises while pods run.
func TestUplinkWhoseMTUChanges(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, families := range map[string]topology.Families{"dual": dual, "dual over IPv4": onlyIPv4} {
			t.Run(fmt.Sprintf("%s/%s", attachment, name), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: families, ranges: dual})
				n := c.nodes[0]
				a, b, remote := n.addPod(t), n.addPod(t), c.nodes[1].addPod(t)
				for _, mtu := range []int{1300, 1250, 1310, 700, 1500} {
					for _, n := range c.nodes {
						c.underlay.SetMTU(t, n.Host, mtu)
						if n.IPv6.IsValid() && mtu >= model.MinIPv6MTU {
							// The kernel took them off with IPv6, as it does where podnet is not.
							n.Run(t, "ip", "addr", "replace", n.IPv6.String(), "dev", "eth0", "nodad")
						}
					}
					c.sync(t)
					for _, to := range slices.Concat(b.Addrs, remote.Addrs) {
						if to.Is6() && mtu < model.MinIPv6MTU || to == remote.addr(false) && !families.IPv6 && overlayMTU(mtu) < model.MinIPv6MTU {
							continue
						}
						if err := a.Reaches(to, port); err != nil {
							t.Errorf("with an MTU of %d: %v", mtu, err)
						}
					}
					n.checkState(t)
					n.hasNoLinkLocal(t, mtu)
				}
			})
		}
	}
}

// hasNoLinkLocal checks that the kernel gave the tunnels no address of its own.
func (n *node) hasNoLinkLocal(t *testing.T, mtu int) {
	t.Helper()
	for _, device := range []string{model.VXLANLink4, model.VXLANLink6} {
		if shown := n.Run(t, "ip", "-6", "addr", "show"); strings.Contains(shown, device) {
			if on := n.Run(t, "ip", "-6", "-oneline", "addr", "show", "dev", device); strings.Contains(on, "fe80:") {
				t.Errorf("with an MTU of %d the kernel gave %s a link-local address:\n%s", mtu, device, on)
			}
		}
	}
}

// The node's own address is there for the source of what it sends to pods, whatever the
// overlay carries.
func TestNodeKeepsItsAddressesOnASmallUnderlay(t *testing.T) {
	c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual, mtu: 1300})
	n, remote := c.nodes[0], c.nodes[1].addPod(t)
	for _, want := range []netip.Addr{netip.MustParseAddr("10.244.1.0"), netip.MustParseAddr("fd44:0:0:1::")} {
		if seen, err := n.TCP(remote.addr(want.Is4()), port, 1); err != nil || seen != want {
			t.Errorf("the pod sees the node as %s (%v), want %s", seen, err, want)
		}
	}
}
