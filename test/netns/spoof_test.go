package netns

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// sinkPort is where datagrams are only counted.
const sinkPort = 9999

// withoutFirewall runs a check with podnet's tables gone, to prove that it is they
// that keep from it what is dropped otherwise, and brings them back.
func (n *node) withoutFirewall(t *testing.T, check func()) {
	t.Helper()
	for _, table := range n.want(t).State.Firewall {
		n.Run(t, "nft", "delete", "table", string(table.Family), table.Name)
	}
	check()
	n.sync(t)
}

// heard checks whether a datagram with a source reaches a sink.
func heard(t *testing.T, what string, sink *topology.Sink, want netip.Addr) {
	t.Helper()
	from, ok := sink.Heard(t, want.IsValid())
	switch {
	case !ok && want.IsValid():
		t.Errorf("%s: nothing comes, want a datagram from %s", what, want)
	case ok && from != want:
		t.Errorf("%s: a datagram comes from %s, want %v", what, from, want)
	}
}

func TestPodCannotSendWithAnotherSource(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		n := c.nodes[0]
		bad, neighbour, remote := n.addPod(t), n.addPod(t), c.nodes[1].addPod(t)
		for _, target := range []*pod{neighbour, remote, {Namespace: n.Namespace}} {
			sink := target.NewSink(t, sinkPort)
			for i, own := range bad.Addrs {
				to := n.Address(own.Is4())
				if len(target.Addrs) > 0 {
					to = target.Addrs[i]
				}
				sources := map[string]netip.Addr{
					"an unused address of the block": own.Next().Next().Next(),
					"another pod's address":          neighbour.Addrs[i],
					"the node's own address":         ipam.NodeAddress(bad.Blocks[i]),
					"the node's endpoint":            n.Address(own.Is4()),
				}
				send := func(from netip.Addr) {
					t.Helper()
					if err := bad.SendFrom(from, to, sinkPort, []byte("hello")); err != nil {
						t.Fatal(err)
					}
				}
				if err := bad.Ping(to); err != nil {
					t.Fatal(err)
				}
				for name, from := range sources {
					send(from)
					heard(t, name+" to "+target.Namespace.Name, sink, netip.Addr{})
				}
				send(own)
				heard(t, "the pod's address to "+target.Namespace.Name, sink, own)
				if target == neighbour {
					n.withoutFirewall(t, func() {
						send(sources["an unused address of the block"])
						heard(t, "without the firewall", sink, sources["an unused address of the block"])
					})
				}
			}
		}
	})
}

func TestPodOnBridgeCannotSendFramesOfOthers(t *testing.T) {
	c := newCluster(t, options{attachment: model.Bridge, mode: model.ModeRouted, families: dual})
	n := c.nodes[0]
	bad, victim, target := n.addPod(t), n.addPod(t), n.addPod(t)
	for _, addr := range target.Addrs {
		if err := bad.Reaches(addr, port); err != nil {
			t.Fatal(err)
		}
	}
	foreign := model.DeriveMAC("foreign")
	cases := []struct {
		name    string
		frame   []byte
		arrives bool
	}{
		{"honest ARP", topology.Frame(topology.Broadcast, bad.PodMAC, topology.EtherARP, topology.ARP(bad.PodMAC, bad.addr(true))), true},
		{"ARP with the victim's address", topology.Frame(topology.Broadcast, bad.PodMAC, topology.EtherARP, topology.ARP(bad.PodMAC, victim.addr(true))), false},
		{"ARP with the gateway's address", topology.Frame(topology.Broadcast, bad.PodMAC, topology.EtherARP,
			topology.ARP(bad.PodMAC, ipam.GatewayAddress(bad.Blocks[0]))), false},
		{"ARP from the victim's MAC", topology.Frame(topology.Broadcast, victim.PodMAC, topology.EtherARP, topology.ARP(victim.PodMAC, victim.addr(true))), false},
		{"ARP that names another MAC inside", topology.Frame(topology.Broadcast, bad.PodMAC, topology.EtherARP, topology.ARP(foreign, bad.addr(true))), false},
		{"an honest datagram", topology.Frame(target.PodMAC, bad.PodMAC, topology.EtherIPv4,
			topology.Datagram(bad.addr(true), target.addr(true), sinkPort, []byte("hello"))), true},
		{"a datagram from another MAC", topology.Frame(target.PodMAC, foreign, topology.EtherIPv4,
			topology.Datagram(bad.addr(true), target.addr(true), sinkPort, []byte("hello"))), false},
		{"an honest IPv6 datagram", topology.Frame(target.PodMAC, bad.PodMAC, topology.EtherIPv6,
			topology.Datagram(bad.addr(false), target.addr(false), sinkPort, []byte("hello"))), true},
		{"an IPv6 datagram from another MAC", topology.Frame(target.PodMAC, foreign, topology.EtherIPv6,
			topology.Datagram(bad.addr(false), target.addr(false), sinkPort, []byte("hello"))), false},
		{"an IPv6 datagram of the victim", topology.Frame(target.PodMAC, bad.PodMAC, topology.EtherIPv6,
			topology.Datagram(victim.addr(false), target.addr(false), sinkPort, []byte("hello"))), false},
		{"a frame that is not IP", topology.Frame(target.PodMAC, bad.PodMAC, 0x88b5, []byte("hello, how are you")), false},
	}
	check := func(what string, firewall bool) {
		for _, tc := range cases {
			frames := target.NewFrames(t, "eth0", unix.ETH_P_ALL)
			bad.SendFrame(t, "eth0", tc.frame)
			want := tc.arrives || !firewall
			arrives := frames.Heard(want, func(got []byte) bool { return bytes.HasPrefix(got, tc.frame) })
			if arrives != want {
				t.Errorf("%s%s arrives: %t, want %t", tc.name, what, arrives, want)
			}
		}
	}
	check("", true)
	n.withoutFirewall(t, func() { check(" without the firewall", false) })
}

func TestNobodyElseSpeaksAsPodsOfThisNode(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
			t.Run(string(attachment)+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: families})
				n, other := c.nodes[0], c.nodes[1]
				outside := c.underlay.AddHost(t, "outside", families)
				target, local, remote := n.addPod(t), n.addPod(t), other.addPod(t)
				is4 := families.IPv4
				outside.Run(t, "ip", "route", "add", target.Blocks[0].String(), "via", n.Address(is4).String())
				sink := target.NewSink(t, sinkPort)
				bare := func(what string, source, want netip.Addr) {
					t.Helper()
					if err := outside.SendFrom(source, target.Addrs[0], sinkPort, []byte("hello")); err != nil {
						t.Fatal(err)
					}
					heard(t, what, sink, want)
				}
				device := model.VXLANLink4
				if !is4 {
					device = model.VXLANLink6
				}
				bare("outside as itself", outside.Address(is4), outside.Address(is4))
				for what, source := range map[string]netip.Addr{
					"a pod of the node": local.Addrs[0], "the node in the range": ipam.NodeAddress(target.Blocks[0]),
					"the node's probes": ipam.ProbeAddress(target.Blocks[0]), "an unused address": local.Addrs[0].Next().Next(),
				} {
					bare(what, source, netip.Addr{})
					if err := other.SendFrom(other.Address(is4), n.Address(is4), c.network.Port, n.tunnelled(target, source, device)); err != nil {
						t.Fatal(err)
					}
					heard(t, what+", by another node", sink, netip.Addr{})
				}
				n.withoutFirewall(t, func() {
					bare("a pod of the node without the firewall", local.Addrs[0], local.Addrs[0])
				})
				for _, p := range []*pod{local, remote} {
					reaches(t, p, target)
					reaches(t, target, p)
				}
				for _, x := range c.nodes {
					if err := x.Reaches(target.Addrs[0], port); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// tunnelled is a VXLAN packet's payload that leads to a pod's sink.
func (n *node) tunnelled(p *pod, from netip.Addr, device string) []byte {
	protocol := uint16(topology.EtherIPv4)
	if from.Is6() {
		protocol = topology.EtherIPv6
	}
	return topology.VXLAN(n.cluster.network.VNI, topology.Frame(
		model.DeriveMAC(n.Name+"/"+device), model.DeriveMAC("foreign"), protocol,
		topology.Datagram(from, p.addr(from.Is4()), sinkPort, []byte("hello"))))
}

func TestVXLANPacketsOfNodesOnly(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, tc := range map[string]struct {
			families topology.Families
			device   string
		}{"IPv4": {onlyIPv4, model.VXLANLink4}, "IPv6": {onlyIPv6, model.VXLANLink6}} {
			t.Run(string(attachment)+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: tc.families})
				n, other := c.nodes[0], c.nodes[1]
				outside := c.underlay.AddHost(t, "outside", tc.families)
				target, remote := n.addPod(t), other.addPod(t)
				local := n.addPod(t)
				is4 := tc.families.IPv4
				sink := target.NewSink(t, sinkPort)
				inner := remote.Addrs[0].Next()
				payload := n.tunnelled(target, inner, tc.device)

				send := func(what string, from *topology.Namespace, source netip.Addr, want netip.Addr) {
					t.Helper()
					if err := from.SendFrom(source, n.Address(is4), c.network.Port, payload); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					heard(t, what, sink, want)
				}
				send("from a node", other.Namespace, other.Address(is4), inner)
				send("from outside", outside.Namespace, outside.Address(is4), netip.Addr{})
				send("from a pod of the same node", local.Namespace, local.Addrs[0], netip.Addr{})
				send("from a pod of another node", remote.Namespace, remote.Addrs[0], netip.Addr{})
				// Masquerading makes it a packet of that node, unless it is dropped before.
				other.Run(t, "nft", "flush", "chain", "inet", model.FirewallTable, "filter-forward")
				send("from a pod of another node that lets it out", remote.Namespace, remote.Addrs[0], inner)
				other.sync(t)
				send("from a pod of another node that was mended", remote.Namespace, remote.Addrs[0], netip.Addr{})
				n.withoutFirewall(t, func() {
					send("from outside without the firewall", outside.Namespace, outside.Address(is4), inner)
				})
			})
		}
	}
}

func TestOuterPacketsAreNotTracked(t *testing.T) {
	for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: model.ModeOverlay, families: families})
			a, b := c.nodes[0].addPod(t), c.nodes[1].addPod(t)
			for range 20 {
				if _, err := a.TCP(b.Addrs[0], port, 100); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range c.nodes {
				var flows []*netlink.ConntrackFlow
				n.Do(t, func() error {
					family := netlink.InetFamily(unix.AF_INET)
					if families.IPv6 {
						family = unix.AF_INET6
					}
					var err error
					flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, family)
					return err
				})
				outer := slices.DeleteFunc(slices.Clone(flows), func(f *netlink.ConntrackFlow) bool {
					return f.Forward.DstPort != c.network.Port
				})
				if len(flows) < 20 || len(outer) > 0 {
					t.Errorf("%s tracks %d connections, %d of them of outer packets, want at least 20 and 0", n.Name, len(flows), len(outer))
				}
			}
		})
	}
}
