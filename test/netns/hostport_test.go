package netns

import (
	"net/netip"
	"testing"
	"time"

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

// TestFlowToAUDPHostPortFollowsThePod: a sender that never pauses keeps the entry
// that conntrack made for its first packet, which came before the pod did.
func TestFlowToAUDPHostPortFollowsThePod(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 1
		c := newCluster(t, o)
		n := c.nodes[0]
		outside := c.underlay.AddHost(t, "outside", o.families)
		is4 := o.families.IPv4
		sender, err := outside.Dial("udp", n.Address(is4), 9080)
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		answered := func() bool {
			// An ICMP error of an earlier packet is reported by the next call.
			_, _ = sender.Write([]byte("x"))
			if err := sender.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, err := sender.Read(make([]byte, 16))
			return err == nil
		}
		if answered() {
			t.Fatal("somebody answers before there is a pod")
		}
		p := n.addPod(t, model.HostPort{Host: 9080, Pod: port, Protocol: "udp"})
		if answered() {
			t.Error("the flow finds the pod without Forget, so this test shows nothing")
		}
		n.Do(t, func() error { return n.kernel.Forget(t.Context(), p.Pod) })
		for range 2 {
			if answered() {
				return
			}
		}
		t.Error("the flow does not find the pod")
	})
}
