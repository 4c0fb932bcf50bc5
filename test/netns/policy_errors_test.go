package netns

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// sendDatagram sends a datagram of a pod to another, so that conntrack knows the connection
// of topology.Datagram.
func (p *pod) sendDatagram(t *testing.T, to netip.Addr, payload string) {
	t.Helper()
	p.SendFrame(t, "eth0", p.frame(t, topology.Datagram(p.addr(to.Is4()), to, sinkPort, []byte(payload))))
}

// frame puts a packet into a frame to the node.
func (p *pod) frame(t *testing.T, packet []byte) []byte {
	t.Helper()
	protocol := uint16(topology.EtherIPv4)
	if packet[0]>>4 == 6 {
		protocol = topology.EtherIPv6
	}
	return topology.Frame(p.gatewayMAC(t), p.PodMAC, protocol, packet)
}

// An ICMP error holds most of the packet that it is about, or whatever its sender puts there.
func TestPodsSendErrorsAboutTheirOwnConnectionsAlone(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
			t.Run(string(attachment)+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newPoliced(t, options{nodes: 2, attachment: attachment, mode: model.ModeRouted, families: families})
				label := func(app string) map[string]string { return map[string]string{"app": app} }
				client := c.addPod(t, c.nodes[0], "blue", label("client"))
				beside := c.addPod(t, c.nodes[0], "red", label("beside"))
				server := c.addPod(t, c.nodes[1], "blue", label("server"))
				neighbour := c.addPod(t, c.nodes[1], "red", label("neighbour"))
				for _, p := range []*pod{client, beside, neighbour} {
					// The tests' own errors are to come, and not the kernel's about a closed port.
					p.NewSink(t, 40000)
				}
				server.NewSink(t, sinkPort)
				is4 := families.IPv4
				try := func(what string, from *pod, about [2]*pod, to *pod, want bool) {
					t.Helper()
					packet := topology.Datagram(about[0].addr(is4), about[1].addr(is4), sinkPort, []byte(what))
					frames := to.NewFrames(t, "eth0", packetProtocol(is4))
					from.SendFrame(t, "eth0", from.frame(t, topology.PortUnreachable(from.addr(is4), to.addr(is4), packet)))
					if got := frames.Heard(want, func(frame []byte) bool { return bytes.Contains(frame, []byte(what)) }); got != want {
						t.Errorf("%s: the error arrives: %t, want %t", what, got, want)
					}
				}
				client.sendDatagram(t, server.addr(is4), "hello")
				connection := [2]*pod{client, server}
				try("the server about its client's connection", server, connection, client, true)
				try("a pod beside the client about the connection", beside, connection, client, false)
				try("a pod beside the server about the connection", neighbour, connection, client, false)
				try("a pod that nobody talks to about no connection", beside, [2]*pod{server, beside}, server, false)

				nobody := func(app string) model.NetworkPolicy {
					return model.NetworkPolicy{
						Namespace: "blue", Name: app, Pods: model.Selector{{Key: "app", Operator: model.In, Values: []string{app}}},
						Types: []model.PolicyType{model.PolicyEgress, model.PolicyIngress},
					}
				}
				c.objects.NetworkPolicies = []model.NetworkPolicy{nobody("server")}
				c.enforce(t)
				try("the server that may no longer talk", server, connection, client, false)
				c.objects.NetworkPolicies = nil
				c.enforce(t)
				try("the server that may again", server, connection, client, true)
				c.nodes[1].withoutFirewall(t, func() {
					try("a pod beside the server without the firewall", neighbour, connection, client, true)
				})
			})
		}
	}
}

// A node learns from errors how much its paths carry, the overlay's among them.
func TestPodsTellTheirNodeOfTheirOwnConnectionsAlone(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
			t.Run(string(attachment)+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeRouted, families: families})
				is4 := families.IPv4
				n, p := c.nodes[0], c.nodes[0].addPod(t)
				peer := c.nodes[1].Address(is4)
				// The kernel learns of the path for who has the port from which the packet came.
				client := n.NewSink(t, 40000)
				p.NewSink(t, sinkPort)
				learns := func(to netip.Addr) bool {
					t.Helper()
					// On a bridge the node speaks to pods from its address there.
					conn, err := n.Dial("udp", to, sinkPort)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					node := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr()
					p.SendFrame(t, "eth0", p.frame(t, topology.TooBig(p.addr(is4), node, 1300, topology.Datagram(node, to, sinkPort, []byte("hello")))))
					return strings.Contains(n.Run(t, "ip", "route", "get", to.String()), " mtu 1300")
				}
				for _, known := range []bool{false, true} {
					if known {
						client.Send(t, peer, sinkPort)
					}
					if learns(peer) {
						t.Errorf("a pod lowers the MTU of the path to another node (to conntrack a connection: %t)", known)
					}
				}
				client.Send(t, p.addr(is4), sinkPort)
				if !learns(p.addr(is4)) {
					t.Error("the node does not hear what a pod says of the node's connection with it")
				}
				n.withoutFirewall(t, func() {
					if !learns(peer) {
						t.Error("without the firewall the pod does not lower the MTU, so this shows nothing")
					}
				})
			})
		}
	}
}

func packetProtocol(is4 bool) uint16 {
	if is4 {
		return topology.EtherIPv4
	}
	return topology.EtherIPv6
}
