package netns

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// solicited is the multicast address that whoever has an address listens to (RFC 4291,
// section 2.7.1), and its Ethernet address.
func solicited(a netip.Addr) (netip.Addr, [6]byte) {
	b := a.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 0xff, b[13], b[14], b[15]})
	return group, [6]byte{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}

// gateway is what a pod sends to.
func (p *pod) gateway(is4 bool) netip.Addr {
	if p.Attachment == model.PointToPoint {
		return ipam.LinkGateway(is4)
	}
	i := slices.IndexFunc(p.Blocks, func(b netip.Prefix) bool { return b.Addr().Is4() == is4 })
	return ipam.GatewayAddress(p.Blocks[i])
}

// asks returns frames in which a pod asks its node something, as whoever it says it is.
func (p *pod) asks(sender netip.Addr) map[string][]byte {
	frames := map[string][]byte{}
	if sender.Is4() {
		for what, target := range map[string]netip.Addr{"gateway": p.gateway(true), "node": p.node.Address(true)} {
			frames["ARP for the "+what] = topology.Frame(topology.Broadcast, p.PodMAC, topology.EtherARP, topology.ARPRequest(p.PodMAC, sender, target))
		}
		return frames
	}
	for what, target := range map[string]netip.Addr{"gateway": p.gateway(false), "node": p.node.Address(false)} {
		group, mac := solicited(target)
		frames["solicitation of the "+what] = topology.Frame(mac, p.PodMAC, topology.EtherIPv6,
			topology.Discovery(topology.NeighbourSolicitation, p.PodMAC, sender, group, target))
	}
	frames["solicitation of a router"] = topology.Frame([6]byte{0x33, 0x33, 0, 0, 0, 2}, p.PodMAC, topology.EtherIPv6,
		topology.Discovery(topology.RouterSolicitation, p.PodMAC, sender, netip.MustParseAddr("ff02::2"), netip.Addr{}))
	return frames
}

// neighbours are the entries of the node's neighbour table on the links that face pods.
func (n *node) neighbours(t *testing.T, is4 bool) []string {
	t.Helper()
	family := "-6"
	if is4 {
		family = "-4"
	}
	var found []string
	for line := range strings.Lines(n.Run(t, "ip", family, "neigh", "show", "nud", "all")) {
		if strings.Contains(line, "dev "+model.PodLinkPrefix) && !strings.Contains(line, "NOARP") {
			found = append(found, line)
		}
	}
	return found
}

// Every sender of a question is noted among the neighbours, of which the kernel can hold
// only so many, for all of the node's links.
func TestPodCannotFillTheNeighbourTable(t *testing.T) {
	t.Attr("budget", "40s")
	const invented = 100
	// A bridge takes frames to it for its ports' own.
	reserved := [6]byte{0x01, 0x80, 0xc2, 0, 0, 0x03}
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{attachment: attachment, mode: model.ModeRouted, families: dual})
			n := c.nodes[0]
			bad, other := n.addPod(t), n.addPod(t)
			for _, first := range []string{"10.77.0.1", bad.Blocks[0].Addr().Next().Next().Next().Next().String(), "fe80::aaaa:1", "fd77::aaaa:1"} {
				sender := netip.MustParseAddr(first)
				is4 := sender.Is4()
				before := n.neighbours(t, is4)
				for range invented {
					for _, frame := range bad.asks(sender) {
						bad.SendFrame(t, "eth0", frame)
						bad.SendFrame(t, "eth0", topology.To(reserved, frame))
					}
					sender = sender.Next()
				}
				// Its own link-local address alone may have come.
				if after := n.neighbours(t, is4); len(after) > len(before)+1 {
					t.Errorf("from %s on, %d senders that the pod invented made %d neighbours of %d, such as %s",
						first, invented, len(after), len(before), after[len(after)-1])
				}
			}
			fresh := c.underlay.AddHost(t, "fresh", dual)
			for _, is4 := range []bool{true, false} {
				if err := n.Try(func() error { return exec.Command("ping", "-c1", "-W2", fresh.Address(is4).String()).Run() }); err != nil {
					t.Errorf("the node does not find %s: %v", fresh.Address(is4), err)
				}
			}
			reaches(t, bad, other)
		})
	}
}

// flap sets a pod's interface down and up, and gives it back what that takes away: what
// the node's address leads to it has to ask for then.
func (p *pod) flap(t *testing.T) {
	t.Helper()
	p.Run(t, "ip", "link", "set", "eth0", "down")
	p.Run(t, "ip", "link", "set", "eth0", "up")
	p.configure(t)
}

// configure gives a pod's interface its addresses and routes, and no neighbours.
func (p *pod) configure(t *testing.T) {
	t.Helper()
	for i, addr := range p.Addrs {
		bits := addr.BitLen()
		if p.Attachment == model.Bridge {
			bits = p.Blocks[i].Bits()
		}
		gateway := p.gateway(addr.Is4()).String()
		p.Run(t, "ip", "addr", "replace", fmt.Sprintf("%s/%d", addr, bits), "dev", "eth0", "nodad")
		if addr.Is4() && p.Attachment == model.PointToPoint {
			p.Run(t, "ip", "route", "add", gateway, "dev", "eth0", "scope", "link")
		}
		p.Run(t, "ip", "route", "add", "default", "via", gateway, "dev", "eth0")
	}
}

func TestPodWhoseInterfaceGoesDownAndUpFindsItsGateway(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for what, prepare := range map[string]string{
			"a default route": "",
			// The kernel answers only for what it has a route to.
			"no default route": "ip route del default",
			"strict ARP":       "sysctl -qw net.ipv4.conf.all.arp_ignore=1",
		} {
			t.Run(fmt.Sprintf("%s/%s", attachment, what), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{attachment: attachment, mode: model.ModeRouted, families: dual})
				n := c.nodes[0]
				n.Script(t, prepare)
				n.sync(t)
				p, other := n.addPod(t), n.addPod(t)
				p.flap(t)
				reaches(t, p, other)
				reaches(t, other, p)
			})
		}
	}
}

// A virtual machine behind a bridge in its pod has the pod's addresses, its MAC included,
// and nobody tells it of its gateway.
func TestVirtualMachineInAPodFindsItsGateway(t *testing.T) {
	bothAttachments(t, func(t *testing.T, c *cluster) {
		n := c.nodes[0]
		p, other := n.addPod(t), n.addPod(t)
		p.Script(t, `
			ip link add br0 type bridge
			ip link set eth0 down
			ip addr flush dev eth0
			ip link set eth0 address 02:00:00:00:00:99 master br0 up
			ip link set br0 up
		`)
		machine := &pod{Namespace: topology.NewNamespace(t, "machine"), Pod: p.Pod, node: n}
		p.Do(t, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "tap0"
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerNamespace, veth.PeerHardwareAddr = "eth0", netlink.NsFd(machine.Fd()), p.PodMAC[:]
			return netlink.LinkAdd(veth)
		})
		p.Run(t, "ip", "link", "set", "tap0", "master", "br0", "up")
		machine.Sysctl(t, "net/ipv6/conf/eth0/accept_dad", "0")
		machine.Run(t, "ip", "link", "set", "eth0", "up")
		machine.configure(t)
		machine.Serve(t, port)
		reaches(t, machine, other)
		reaches(t, other, machine)
	})
}

// On a pod's link the node answers for the two gateway addresses, and for nothing else.
func TestNodeAnswersPodsForTheGatewayAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	n := c.nodes[0]
	p, other, remote := n.addPod(t), n.addPod(t), c.nodes[1].addPod(t)
	for _, is4 := range []bool{true, false} {
		answered := func(what string, target netip.Addr, want bool) {
			t.Helper()
			frames := p.NewFrames(t, "eth0", topology.EtherARP)
			question := topology.Frame(topology.Broadcast, p.PodMAC, topology.EtherARP, topology.ARPRequest(p.PodMAC, p.addr(true), target))
			isAnswer := func(f []byte) bool { return f[21] == 2 && netip.AddrFrom4([4]byte(f[28:32])) == target }
			if !is4 {
				frames = p.NewFrames(t, "eth0", topology.EtherIPv6)
				group, mac := solicited(target)
				question = topology.Frame(mac, p.PodMAC, topology.EtherIPv6,
					topology.Discovery(topology.NeighbourSolicitation, p.PodMAC, p.addr(false), group, target))
				isAnswer = func(f []byte) bool {
					return len(f) >= 78 && f[54] == topology.NeighbourAdvertisement && netip.AddrFrom16([16]byte(f[62:78])) == target
				}
			}
			p.SendFrame(t, "eth0", question)
			if got := frames.Heard(want, isAnswer); got != want {
				t.Errorf("%s (%s) is answered for: %t, want %t", what, target, got, want)
			}
		}
		answered("the gateway", ipam.LinkGateway(is4), true)
		answered("the node", n.Address(is4), false)
		answered("the node's own address of its block", ipam.NodeAddress(p.Blocks[model.FamilyIndex(p.addr(is4))]), false)
		answered("another pod", other.addr(is4), false)
		answered("a pod of another node", remote.addr(is4), false)
		answered("another node", c.nodes[1].Address(is4), false)
	}
}

// A pod that says that it has the address of another one gets nothing of what is for that.
func TestPodOnBridgeCannotAdvertiseAnAddressOfOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{attachment: model.Bridge, mode: model.ModeRouted, families: dual})
	n := c.nodes[0]
	bad, victim, client := n.addPod(t), n.addPod(t), n.addPod(t)
	known := func(target netip.Addr) string {
		return client.Run(t, "ip", "-6", "neigh", "show", target.String(), "dev", "eth0")
	}
	advertise := func(target netip.Addr) {
		bad.SendFrame(t, "eth0", topology.Frame(client.PodMAC, bad.PodMAC, topology.EtherIPv6,
			topology.Discovery(topology.NeighbourAdvertisement, bad.PodMAC, bad.addr(false), client.addr(false), target)))
	}
	targets := map[string]netip.Addr{"another pod": victim.addr(false), "the gateway": client.gateway(false)}
	for what, target := range targets {
		if err := client.Ping(target); err != nil {
			t.Fatal(err)
		}
		advertise(target)
		if got := known(target); strings.Contains(got, bad.PodMAC.String()) {
			t.Errorf("the address of %s is taken over: %s", what, got)
		}
	}
	// Its own it may.
	if err := client.Ping(bad.addr(false)); err != nil {
		t.Errorf("a pod whose own advertisements are dropped: %v", err)
	}
	n.withoutFirewall(t, func() {
		advertise(victim.addr(false))
		if got := known(victim.addr(false)); !strings.Contains(got, bad.PodMAC.String()) {
			t.Errorf("without the firewall the address is not taken over: %s", got)
		}
	})
}
