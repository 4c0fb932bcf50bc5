package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
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

// A hostPort is for the node's own addresses, and a Service wins on its own: also on one that
// a load balancer keeps on the node, and where the Service is a port of all addresses.
func TestServicesWinOverHostPorts(t *testing.T) {
	for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeRouted, families: families})
			n := c.nodes[0]
			n.addPod(t, model.HostPort{Host: 443, Pod: port, Protocol: "tcp"}, model.HostPort{Host: 30443, Pod: port, Protocol: "tcp"})
			backend := n.addPod(t)
			const backendPort = 8443
			backend.Serve(t, backendPort)
			held := n.balanced(t)
			header, at := "ip", backend.Addrs[0].String()
			if held.Is6() {
				header, at = "ip6", "["+at+"]"
			}
			commands := "add table HEADER proxy\nadd counter HEADER proxy led\n"
			for _, hook := range []string{"prerouting", "output"} {
				commands += "add chain HEADER proxy " + hook + " { type nat hook " + hook + " priority -100 ; }\n" +
					"add rule HEADER proxy " + hook + " HEADER daddr " + held.String() + " tcp dport 443 counter name led dnat to " + at + ":8443\n" +
					"add rule HEADER proxy " + hook + " fib daddr type local tcp dport 30443 counter name led dnat to " + at + ":8443\n"
			}
			n.Run(t, "nft", strings.ReplaceAll(commands, "HEADER", header))
			outside := c.underlay.AddHost(t, "outside", families)
			led := 0
			for what, x := range map[string]struct {
				from    *topology.Namespace
				to      netip.Addr
				port    uint16
				service bool
			}{
				"outside to the Service's address":     {outside.Namespace, held, 443, true},
				"the node to the Service's address":    {n.Namespace, held, 443, true},
				"a pod to the Service's address":       {backend.Namespace, held, 443, true},
				"outside to the port of all addresses": {outside.Namespace, n.Address(held.Is4()), 30443, true},
				"outside to the node's address":        {outside.Namespace, n.Address(held.Is4()), 443, false},
				"the node to its own address":          {n.Namespace, n.Address(held.Is4()), 443, false},
			} {
				if _, err := x.from.TCP(x.to, x.port, 10); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if x.service {
					led++
				}
			}
			if counted := n.Run(t, "nft", "list", "counter", header, "proxy", "led"); !strings.Contains(counted, fmt.Sprintf("packets %d ", led)) {
				t.Errorf("the Service was to lead %d connections: %s", led, counted)
			}
		})
	}
}

// Whoever is on the node's segment can send to 127.0.0.1, where a port is for the node alone.
func TestHostPortsOfTheLoopbackAreForTheNodeAlone(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{attachment: attachment, mode: model.ModeRouted, families: onlyIPv4})
			n := c.nodes[0]
			loopback := netip.MustParseAddr("127.0.0.1")
			p := n.addPod(t,
				model.HostPort{HostIP: loopback, Host: 9080, Pod: sinkPort, Protocol: "udp"},
				model.HostPort{Host: 9081, Pod: sinkPort, Protocol: "udp"})
			sink := p.NewSink(t, sinkPort)
			outside := c.underlay.AddHost(t, "outside", onlyIPv4)
			send := func(to netip.Addr, port uint16) {
				t.Helper()
				packet := topology.Datagram(outside.Address(true), to, port, []byte("hello"))
				outside.SendFrame(t, "eth0", topology.Frame(n.MAC(t, "eth0"), outside.MAC(t, "eth0"), topology.EtherIPv4, packet))
			}
			for _, port := range []uint16{9080, 9081} {
				send(loopback, port)
				heard(t, "from outside to a port of 127.0.0.1", sink, netip.Addr{})
			}
			send(n.Address(true), 9081)
			heard(t, "from outside to a port of all", sink, outside.Address(true))
		})
	}
}

// Addresses of Services that ipvs keeps on a link which is down are local to the kernel.
func TestHostPortsAreNotForAddressesThatAreNoNodes(t *testing.T) {
	c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	n := c.nodes[0]
	n.addPod(t, model.HostPort{Host: 443, Pod: port, Protocol: "tcp"})
	n.Script(t, "ip link add kube-ipvs0 type bridge\nip addr add 10.96.0.1/32 dev kube-ipvs0\nip addr add fd96::1/128 dev kube-ipvs0 nodad")
	n.sync(t)
	for _, service := range []string{"10.96.0.1", "fd96::1"} {
		if _, err := n.TCP(netip.MustParseAddr(service), 443, 10); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s is answered (%v), want that nobody of the node does", service, err)
		}
	}
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
		n.Do(t, func() error { return netfilter.Conntrack{}.Forget(t.Context(), p.Pod) })
		for range 2 {
			if answered() {
				return
			}
		}
		t.Error("the flow does not find the pod")
	})
}
