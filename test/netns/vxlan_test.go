package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// tunnelTests are the attachments, and the families of the overlay's outer packets.
func tunnelTests(t *testing.T, nodes int, test func(t *testing.T, c *cluster, device string)) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for _, is4 := range []bool{true, false} {
			families, device := onlyIPv4, model.VXLANLink4
			if !is4 {
				families, device = onlyIPv6, model.VXLANLink6
			}
			t.Run(fmt.Sprintf("%s/IPv4 %t", attachment, is4), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: nodes, attachment: attachment, mode: model.ModeOverlay, families: families})
				for _, n := range c.nodes {
					n.nodeIPs = []netip.Addr{n.Address(is4)}
				}
				test(t, c, device)
			})
		}
	}
}

// balanced gives a node an address as load balancers do, which is no endpoint.
func (n *node) balanced(t *testing.T) netip.Addr {
	t.Helper()
	held := netip.MustParsePrefix("192.168.77.200/32")
	if n.cluster.families.IPv6 {
		held = netip.MustParsePrefix("fd77::200/128")
	}
	n.Run(t, "ip", "addr", "add", held.String(), "dev", "eth0", "nodad")
	n.sync(t)
	return held.Addr()
}

// shapes are the ways in which a pod can send a forged packet.
var shapes = map[string]func(t *testing.T, from *pod, to netip.Addr, port uint16, payload []byte) error{
	"in one datagram": func(_ *testing.T, from *pod, to netip.Addr, port uint16, payload []byte) error {
		return from.SendFrom(from.Addrs[0], to, port, payload)
	},
	"in fragments": func(t *testing.T, from *pod, to netip.Addr, port uint16, payload []byte) error {
		protocol := uint16(topology.EtherIPv4)
		if to.Is6() {
			protocol = topology.EtherIPv6
		}
		// The first has the UDP header alone.
		for _, fragment := range topology.Fragments(topology.Datagram(from.Addrs[0], to, port, payload), 8) {
			from.SendFrame(t, "eth0", topology.Frame(from.gatewayMAC(t), from.PodMAC, protocol, fragment))
		}
		return nil
	},
	"behind another network's datagram": func(_ *testing.T, from *pod, to netip.Addr, port uint16, payload []byte) error {
		other := slices.Clone(payload)
		other[4]++
		return from.SendSegmentsFrom(from.Addrs[0], to, port, slices.Concat(other, payload), len(payload))
	},
}

// gatewayMAC returns the MAC of the node's end of a pod's segment.
func (p *pod) gatewayMAC(t *testing.T) model.MAC {
	t.Helper()
	if p.Attachment != model.Bridge {
		return p.HostMAC
	}
	links := p.node.want(t).State.Links
	return links[slices.IndexFunc(links, func(l model.Link) bool { return l.Name == model.BridgeLink })].MAC
}

func TestPodsForgeNoVXLANByAnyAddressOfANode(t *testing.T) {
	tunnelTests(t, 2, func(t *testing.T, c *cluster, device string) {
		n, other := c.nodes[0], c.nodes[1]
		target, local, remote := n.addPod(t), n.addPod(t), other.addPod(t)
		held := n.balanced(t)
		sink := target.NewSink(t, sinkPort)
		inner := remote.Addrs[0].Next()
		payload := n.tunnelled(target, inner, device)
		addresses := map[string]netip.Addr{
			"the endpoint": n.Address(inner.Is4()), "another address": held, "the node's address in the range": ipam.NodeAddress(target.Blocks[0]),
		}
		if c.attachment == model.Bridge {
			addresses["the gateway"] = ipam.GatewayAddress(target.Blocks[0])
		}
		for name, to := range addresses {
			for sender, from := range map[string]*pod{"a pod of the node": local, "a pod of another node": remote} {
				for shape, send := range shapes {
					what := fmt.Sprintf("%s to %s, %s", sender, name, shape)
					if err := send(t, from, to, c.network.Port, payload); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					heard(t, what, sink, netip.Addr{})
				}
			}
		}
		if err := other.SendFrom(other.Address(inner.Is4()), n.Address(inner.Is4()), c.network.Port, payload); err != nil {
			t.Fatal(err)
		}
		heard(t, "a node to the endpoint", sink, inner)
		// Masquerading makes a pod's packet one of its node.
		other.Run(t, "nft", "flush", "chain", "inet", model.FirewallTable, "filter-forward")
		for shape, send := range shapes {
			if err := send(t, remote, n.Address(inner.Is4()), c.network.Port, payload); err != nil {
				t.Fatal(err)
			}
			heard(t, "from a node that lets pods' packets out, "+shape, sink, inner)
		}
		if err := remote.SendFrom(remote.Addrs[0], held, c.network.Port, payload); err != nil {
			t.Fatal(err)
		}
		heard(t, "from such a node to another address", sink, netip.Addr{})
		reaches(t, local, target)
		reaches(t, remote, target)
	})
}

// translate makes a node lead UDP ports to another address, as kube-proxy does for
// Services: port 53 of a Service's address, and a port of all of the node's own.
func (n *node) translate(t *testing.T, service, to netip.Addr) {
	t.Helper()
	header, at := "ip", to.String()
	if to.Is6() {
		header, at = "ip6", "["+at+"]"
	}
	commands := strings.NewReplacer("HEADER", header, "SERVICE", service.String(), "AT", at, "PORT", fmt.Sprint(n.cluster.network.Port)).Replace(`
add table HEADER proxy
add chain HEADER proxy pre { type nat hook prerouting priority -100 ; }
add chain HEADER proxy out { type nat hook output priority -100 ; }
add chain HEADER proxy post { type nat hook postrouting priority 100 ; }
add rule HEADER proxy pre HEADER daddr SERVICE udp dport 53 dnat to AT:PORT
add rule HEADER proxy pre fib daddr type local udp dport 30053 meta mark set mark or 0x4000 dnat to AT:PORT
add rule HEADER proxy out HEADER daddr SERVICE udp dport 53 meta mark set mark or 0x4000 dnat to AT:PORT
add rule HEADER proxy post meta mark and 0x4000 == 0x4000 masquerade
`)
	n.Run(t, "nft", commands)
}

func TestVXLANThatAServiceLedToANodeIsNotTaken(t *testing.T) {
	tunnelTests(t, 3, func(t *testing.T, c *cluster, device string) {
		n, other, third := c.nodes[0], c.nodes[1], c.nodes[2]
		outside := c.underlay.AddHost(t, "outside", c.families)
		target, local, remote := n.addPod(t), n.addPod(t), other.addPod(t)
		sink := target.NewSink(t, sinkPort)
		inner := remote.Addrs[0].Next()
		is4 := inner.Is4()
		payload := n.tunnelled(target, inner, device)
		service := netip.MustParseAddr("10.96.0.50")
		if !is4 {
			service = netip.MustParseAddr("fd96::50")
		}
		for _, x := range c.nodes {
			x.translate(t, service, n.Address(is4))
		}
		tries := []struct {
			what       string
			from       *topology.Namespace
			source, to netip.Addr
			port       uint16
		}{
			{"a pod by a Service to its own node", local.Namespace, local.Addrs[0], service, 53},
			{"a pod by a Service to another node", remote.Namespace, remote.Addrs[0], service, 53},
			{"a pod by a port of its own node", local.Namespace, local.Addrs[0], n.Address(is4), 30053},
			{"a pod by a port of the other node", remote.Namespace, remote.Addrs[0], n.Address(is4), 30053},
			{"a pod by a port of a third node", remote.Namespace, remote.Addrs[0], third.Address(is4), 30053},
			{"outside by a port of the node", outside.Namespace, outside.Address(is4), n.Address(is4), 30053},
			{"outside by a port of another node", outside.Namespace, outside.Address(is4), third.Address(is4), 30053},
			{"the node itself by a Service", n.Namespace, n.Address(is4), service, 53},
			{"another node by a Service", other.Namespace, other.Address(is4), service, 53},
		}
		for _, x := range tries {
			for shape, size := range map[string]int{"": 0, ", behind another network's datagram": len(payload)} {
				sent := payload
				if size > 0 {
					sent = slices.Concat(payload, payload)
					sent[4]++
				}
				// The kernel tells a sender of the node itself that a rule dropped it.
				if err := x.from.SendSegmentsFrom(x.source, x.to, x.port, sent, size); err != nil && !errors.Is(err, unix.EPERM) {
					t.Fatalf("%s%s: %v", x.what, shape, err)
				}
				heard(t, x.what+shape, sink, netip.Addr{})
			}
		}
		n.withoutFirewall(t, func() {
			if err := outside.SendFrom(outside.Address(is4), n.Address(is4), 30053, payload); err != nil {
				t.Fatal(err)
			}
			// The mark stays on what was inside, which is masqueraded.
			if _, ok := sink.Heard(t, true); !ok {
				t.Error("nothing comes without the firewall")
			}
		})
	})
}
