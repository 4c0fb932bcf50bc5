package netns

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// service is the address of a service, and the table that leads it to a pod as
// kube-proxy does. The node port is marked for masquerading, and so is a pod that
// reaches itself.
func service(is4 bool) netip.Addr {
	if is4 {
		return netip.MustParseAddr("10.96.0.10")
	}
	return netip.MustParseAddr("fd96::10")
}

const nodePort = 30080

func (n *node) addService(t *testing.T, to netip.Addr) {
	t.Helper()
	family, header := "ip", "ip"
	backend := to.String()
	if to.Is6() {
		family, header = "ip6", "ip6"
		backend = "[" + backend + "]"
	}
	vip := service(to.Is4())
	table := "add table " + family + " services\n"
	for _, chain := range []struct{ name, hook string }{{"pre", "prerouting"}, {"out", "output"}} {
		table += fmt.Sprintf("add chain %s services %s { type nat hook %s priority -100 ; }\n", family, chain.name, chain.hook)
		table += fmt.Sprintf("add rule %s services %s %s daddr %s %s saddr %s meta mark set mark or 0x4000\n", family, chain.name, header, vip, header, to)
		table += fmt.Sprintf("add rule %s services %s %s daddr %s tcp dport 80 dnat to %s:%d\n", family, chain.name, header, vip, backend, port)
		table += fmt.Sprintf("add rule %s services %s %s daddr %s udp dport 80 dnat to %s:%d\n", family, chain.name, header, vip, backend, port)
		table += fmt.Sprintf("add rule %s services %s fib daddr type local tcp dport %d meta mark set mark or 0x4000 dnat to %s:%d\n",
			family, chain.name, nodePort, backend, port)
	}
	table += "add chain " + family + " services post { type nat hook postrouting priority 100 ; }\n"
	table += "add rule " + family + " services post mark and 0x4000 == 0 return\n"
	table += "add rule " + family + " services post meta mark set mark xor 0x4000 masquerade fully-random\n"
	n.Run(t, "nft", table)
}

// seen checks which address a server sees.
func seen(t *testing.T, from *topology.Namespace, to netip.Addr, port uint16, want netip.Addr) {
	t.Helper()
	got, err := from.TCP(to, port, 100)
	if err != nil {
		t.Errorf("%s to %s port %d: %v", from.Name, to, port, err)
		return
	}
	if got != want {
		t.Errorf("%s to %s port %d: the server saw %s, want %s", from.Name, to, port, got, want)
	}
}

func TestSourcesThatServersSee(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		n := c.nodes[0]
		outside := c.underlay.AddHost(t, "outside", o.families)
		outside.Serve(t, port)
		a, local, remote := n.addPod(t), n.addPod(t), c.nodes[1].addPod(t)
		for i, to := range remote.Addrs {
			own := ipam.NodeAddress(a.Blocks[i])
			is4 := to.Is4()
			seen(t, a.Namespace, to, port, a.addr(is4))
			seen(t, a.Namespace, local.addr(is4), port, a.addr(is4))
			seen(t, n.Namespace, to, port, own)
			seen(t, a.Namespace, outside.Address(is4), port, n.Address(is4))

			n.addService(t, to)
			seen(t, n.Namespace, service(is4), 80, own)
			seen(t, a.Namespace, service(is4), 80, a.addr(is4))
			seen(t, outside.Namespace, n.Address(is4), nodePort, own)
		}
	})
}

func TestServiceOfTheSameNode(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		c := newCluster(t, o)
		n := c.nodes[0]
		a, b := n.addPod(t), n.addPod(t)
		for _, to := range b.Addrs {
			n.addService(t, to)
			vip := service(to.Is4())
			seen(t, a.Namespace, vip, 80, a.addr(to.Is4()))
			if err := a.UDP(vip, 80, 1000); err != nil {
				t.Errorf("UDP to the service: %v", err)
			}
			if _, err := b.TCP(vip, 80, 100); err != nil {
				t.Errorf("a pod does not reach itself through its service: %v", err)
			}
			if err := b.UDP(vip, 80, 100); err != nil {
				t.Errorf("a pod does not reach itself through its service by UDP: %v", err)
			}
			if _, err := n.TCP(vip, 80, 100); err != nil {
				t.Errorf("the node does not reach the service: %v", err)
			}
		}
	})
}

func TestMasqueradeExclude(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{
				attachment: attachment, mode: model.ModeRouted, families: dual,
				masqueradeExclude: []netip.Prefix{netip.MustParsePrefix("192.168.77.0/24"), netip.MustParsePrefix("fd77::/64")},
			})
			n := c.nodes[0]
			outside := c.underlay.AddHost(t, "outside", dual)
			outside.Serve(t, port)
			a := n.addPod(t)
			for i, addr := range a.Addrs {
				outside.Run(t, "ip", "route", "add", a.Blocks[i].String(), "via", n.Address(addr.Is4()).String())
				seen(t, a.Namespace, outside.Address(addr.Is4()), port, addr)
			}
		})
	}
}
