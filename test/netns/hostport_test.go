package netns

import (
	"net/netip"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

func TestHostPorts(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		n := c.nodes[0]
		outside := c.underlay.AddHost(t, "outside", o.families)
		other, remote := n.addPod(t), c.nodes[1].addPod(t)
		ports := []model.HostPort{
			{Host: 9080, Pod: port, Protocol: "tcp"},
			{Host: 9080, Pod: port, Protocol: "udp"},
		}
		families := []bool{}
		for _, addr := range other.Addrs {
			families = append(families, addr.Is4())
			ports = append(ports, model.HostPort{HostIP: n.Address(addr.Is4()), Host: 9081, Pod: port, Protocol: "tcp"})
		}
		p := n.addPod(t, ports...)
		for _, is4 := range families {
			node := n.Address(is4)
			clients := map[string]interface {
				TCP(netip.Addr, uint16, int) (netip.Addr, error)
				UDP(netip.Addr, uint16, int) error
			}{
				"outside": outside, "the node": n, "the pod itself": p, "another pod": other, "a pod of another node": remote, "another node": c.nodes[1],
			}
			for name, client := range clients {
				for _, port := range []uint16{9080, 9081} {
					if _, err := client.TCP(node, port, 100); err != nil {
						t.Errorf("%s does not reach port %d of %s: %v", name, port, node, err)
					}
				}
				if err := client.UDP(node, 9080, 100); err != nil {
					t.Errorf("%s does not reach UDP port 9080 of %s: %v", name, node, err)
				}
			}
			if seen, err := outside.TCP(node, 9080, 100); err != nil || seen != outside.Address(is4) {
				t.Errorf("the pod saw %s (%v), want the client's %s", seen, err, outside.Address(is4))
			}
			if !is4 {
				continue
			}
			loopback := netip.MustParseAddr("127.0.0.1")
			if _, err := n.TCP(loopback, 9080, 100); err != nil {
				t.Errorf("the node does not reach port 9080 of 127.0.0.1: %v", err)
			}
			if _, err := n.TCP(loopback, 9081, 100); err == nil {
				t.Errorf("port 9081, which is %s's alone, answers on 127.0.0.1", node)
			}
		}
	})
}
