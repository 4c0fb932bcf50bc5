package netns

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// foreignObjects are what others have on a node, beside podnet's. The link has no address of its own making, as such
// an address is tentative for a while.
const foreignObjects = `ip link add foreign0 type bridge
ip link set foreign0 addrgenmode none
ip link set foreign0 up
ip addr add 172.31.0.1/24 dev foreign0
ip neigh add 172.31.0.9 lladdr 02:00:00:00:00:09 dev foreign0 nud permanent
ip route add 198.51.100.0/24 via 192.168.77.1
ip route add 198.51.100.0/24 via 192.168.77.1 table 999
ip route add 203.0.113.0/24 via 192.168.77.1 proto 117
ip -6 route add 2001:db8:7::/64 via fd77::1 table 999
ip rule add priority 600 table 999
nft add table inet foreign
nft add chain inet foreign podnet
nft add rule inet foreign podnet counter accept
`

// foreign prints them.
func (l *loop) foreign(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(`ip -br link show foreign0
ip addr show dev foreign0
ip neigh show dev foreign0
ip route show table main
ip route show table 999
ip -6 route show table 999
ip rule show priority 600
nft list table inet foreign
`) {
		out.WriteString(l.Run(t, strings.Fields(line)...))
	}
	return out.String()
}

// drift is a way in which others spoil what is podnet's.
type drift struct {
	name string
	// script is run on the node.
	script string
	// told are parts of what is to be told, each in one of its clauses.
	told []string
}

// driftsOf returns the ways for a node of three with a pod.
func driftsOf(n *node, p *pod) []drift {
	link := p.HostLink
	if p.Attachment == model.Bridge {
		link = model.BridgeLink
	}
	pod4, pod6 := p.addr(true).String(), p.addr(false).String()
	all := []drift{
		{"route of a peer deleted", "ip route del 10.244.2.0/24 table 7466", []string{"route: route to 10.244.2.0/24 via", "was missing"}},
		{"IPv6 route of a peer deleted", "ip -6 route del fd44:0:0:2::/64 table 7466", []string{"route: route to fd44:0:0:2::/64 via", "was missing"}},
		{
			"route of a peer replaced", "ip route replace 10.244.2.0/24 via 192.168.77.1 dev eth0 table 7466",
			[]string{"route: route to 10.244.2.0/24 via", "was missing"},
		},
		{
			"route of a peer replaced with podnet's mark", "ip route replace 10.244.2.0/24 via 192.168.77.1 dev eth0 table 7466 proto 117",
			[]string{"had been changed to route to 10.244.2.0/24 via 192.168.77.1 on eth0"},
		},
		{
			"IPv6 route of a peer replaced", "ip -6 route replace fd44:0:0:2::/64 via fd77::1 dev eth0 table 7466 proto 117",
			[]string{"had been changed to route to fd44:0:0:2::/64 via fd77::1 on eth0"},
		},
		{
			"route added with podnet's mark", "ip route add 10.99.0.0/16 via 192.168.77.1 dev eth0 table 7466 proto 117",
			[]string{"route: route to 10.99.0.0/16 via 192.168.77.1 on eth0 had been added"},
		},
		{"unreachable route deleted", "ip route del unreachable 10.244.1.0/24 table 7466", []string{"route: unreachable route to 10.244.1.0/24 was missing"}},
		{
			"IPv6 unreachable route deleted", "ip -6 route del unreachable fd44:0:0:1::/64 table 7466",
			[]string{"route: unreachable route to fd44:0:0:1::/64 was missing"},
		},
		{"whole table flushed", "ip route flush table 7466", []string{"unreachable route to 10.244.1.0/24 was missing", "route to 10.244.3.0/24"}},
		{"pod's route deleted", fmt.Sprintf("ip route del %s table 7466", pod4), []string{fmt.Sprintf("route: route to %s/32 on %s was missing", pod4, link)}},
		{"pod's neighbour deleted", fmt.Sprintf("ip neigh del %s dev %s", pod4, link), []string{fmt.Sprintf("neighbour: neighbour %s on %s was missing", pod4, link)}},
		{
			"pod's IPv6 neighbour changed", fmt.Sprintf("ip neigh replace %s dev %s lladdr 02:00:00:00:00:01 nud permanent", pod6, link),
			[]string{fmt.Sprintf("neighbour: neighbour %s on %s had been changed to 02:00:00:00:00:01", pod6, link)},
		},
		{"rule deleted", "ip rule del priority 512", []string{"rule: IPv4 rule of priority 512 to table 7466 was missing"}},
		{"IPv6 rule deleted", "ip -6 rule del priority 512", []string{"rule: IPv6 rule of priority 512 to table 7466 was missing"}},
		{"address deleted", "ip addr flush dev vxpodnet4", []string{"address: address 10.244.1.0/32 on vxpodnet4 was missing"}},
		{"address added", "ip addr add 10.9.9.9/32 dev vxpodnet4", []string{"address: address 10.9.9.9/32 on vxpodnet4 had been added"}},
		{
			"forwarding entry deleted", fmt.Sprintf("bridge fdb del %s dev vxpodnet4 dst %s self", peerMAC(n), n.cluster.nodes[1].IPv4.Addr()),
			[]string{fmt.Sprintf("fdb: forwarding entry of %s to %s on vxpodnet4 was missing", peerMAC(n), n.cluster.nodes[1].IPv4.Addr())},
		},
		{
			"forwarding entry changed", fmt.Sprintf("bridge fdb replace %s dev vxpodnet4 dst 192.168.77.250 self permanent", peerMAC(n)),
			[]string{"had been changed to 192.168.77.250"},
		},
		{"tunnel's MAC changed", "ip link set vxpodnet4 address 02:00:00:00:00:07", []string{"link: vxlan link vxpodnet4 had the MAC 02:00:00:00:00:07"}},
		{"tunnel's MTU changed", "ip link set vxpodnet6 mtu 1300", []string{"link: vxlan link vxpodnet6 had an MTU of 1300"}},
		{
			"tunnel's source changed", "ip link set vxpodnet4 type vxlan id 7466 local 192.168.77.250",
			[]string{"link: vxlan link vxpodnet4 sent from 192.168.77.250 on eth0 in place of 192.168.77.11 on eth0"},
		},
		{"tunnel set down", "ip link set vxpodnet4 down", []string{"link: vxlan link vxpodnet4 was down"}},
		{"tunnel deleted", "ip link del vxpodnet4", []string{"link: vxlan link vxpodnet4 was missing"}},
		{"IPv6 tunnel deleted", "ip link del vxpodnet6", []string{"link: vxlan link vxpodnet6 was missing"}},
		{
			"tunnel replaced", "ip link del vxpodnet4\nip link add vxpodnet4 type vxlan id 9 dstport 4789 dev eth0\nip link set vxpodnet4 alias podnet up",
			[]string{"link: vxlan link vxpodnet4 "},
		},
		{"chain flushed", "nft flush chain inet podnet raw-prerouting", []string{"firewall: nft table inet podnet had other chains, rules or sets"}},
		{"chain added", "nft add chain inet podnet mine", []string{"firewall: nft table inet podnet had other chains, rules or sets"}},
		{
			"element deleted", fmt.Sprintf("nft delete element inet podnet endpoints4 {%s}", n.cluster.nodes[1].IPv4.Addr()),
			[]string{fmt.Sprintf("firewall: %s in set endpoints4 of nft table inet podnet was missing", n.cluster.nodes[1].IPv4.Addr())},
		},
		{"element added", "nft add element inet podnet endpoints6 {2001:db8::1}", []string{"firewall: 2001:db8::1 in set endpoints6 of nft table inet podnet had been added"}},
		{"range deleted", "nft delete element inet podnet ranges4 {10.244.0.0/16}", []string{"firewall: 10.244.0.0/16 in set ranges4 of nft table inet podnet was missing"}},
		{"map flushed", "nft flush map inet podnet hostports4", []string{"firewall: tcp . 9080 in set hostports4 of nft table inet podnet was missing"}},
		{"table deleted", "nft delete table inet podnet", []string{"firewall: nft table inet podnet was missing"}},
		{"ruleset's table flushed", "nft flush table inet podnet", []string{"firewall: nft table inet podnet had other chains, rules or sets"}},
	}
	if p.Attachment == model.Bridge {
		all = append(all, []drift{
			{"bridge's MAC changed", "ip link set podnet0 address 02:00:00:00:00:08", []string{"link: bridge link podnet0 had the MAC 02:00:00:00:00:08"}},
			{"bridge deleted", "ip link del podnet0", []string{"link: bridge link podnet0 was missing"}},
			{
				"pod taken off the bridge", fmt.Sprintf("ip link set %s nomaster", p.HostLink),
				[]string{fmt.Sprintf("port: port %s of bridge podnet0 was missing", p.HostLink)},
			},
			{
				"pod put on another bridge", fmt.Sprintf("ip link add foreign1 type bridge\nip link set %s master foreign1", p.HostLink),
				[]string{fmt.Sprintf("port: port %s of bridge podnet0 had been changed to port %s of bridge foreign1", p.HostLink, p.HostLink)},
			},
			{"bridge set down", "ip link set podnet0 down", []string{"link: bridge link podnet0 was down"}},
			{"gateway deleted", "ip addr del 10.244.1.1/24 dev podnet0", []string{"address: address 10.244.1.1/24 on podnet0 was missing"}},
			{"bridge table deleted", "nft delete table bridge podnet", []string{"firewall: nft table bridge podnet was missing"}},
			{
				"pod's target deleted", fmt.Sprintf("nft delete element bridge podnet podtargets6 { %s . %s . %#x }", p.HostLink, p.PodMAC, p.addr(false).AsSlice()),
				[]string{fmt.Sprintf("firewall: %s . %s . %#x in set podtargets6 of nft table bridge podnet was missing", p.HostLink, p.PodMAC, p.addr(false).AsSlice())},
			},
			{
				"pod's MAC deleted", fmt.Sprintf("nft delete element bridge podnet podmacs { %s . %s }", p.HostLink, p.PodMAC),
				[]string{fmt.Sprintf("firewall: %s . %s in set podmacs of nft table bridge podnet was missing", p.HostLink, p.PodMAC)},
			},
		}...)
	} else {
		all = append(all, drift{
			"gateway's address deleted", fmt.Sprintf("ip addr del fe80::1/128 dev %s", p.HostLink),
			[]string{fmt.Sprintf("address: address fe80::1/128 on %s was missing", p.HostLink)},
		}, drift{
			"pod's ARP source deleted", fmt.Sprintf("nft delete element arp podnet podsources4 { %s . %s }", p.HostLink, pod4),
			[]string{fmt.Sprintf("firewall: %s . %s in set podsources4 of nft table arp podnet was missing", p.HostLink, pod4)},
		}, drift{
			"ARP table deleted", "nft delete table arp podnet", []string{"firewall: nft table arp podnet was missing"},
		}, drift{
			"pod's source deleted", fmt.Sprintf("nft delete element inet podnet podsources4 { %s . %s }", p.HostLink, pod4),
			[]string{fmt.Sprintf("firewall: %s . %s in set podsources4 of nft table inet podnet was missing", p.HostLink, pod4)},
		})
	}
	return all
}

// peerMAC is that of the second node's VXLAN device.
func peerMAC(n *node) model.MAC { return model.DeriveMAC(n.cluster.nodes[1].Name + "/vxpodnet4") }

func TestDriftIsRepaired(t *testing.T) {
	for _, o := range []options{
		{attachment: model.PointToPoint, mode: model.ModeOverlay},
		{attachment: model.Bridge, mode: model.ModeRouted},
	} {
		t.Run(fmt.Sprintf("%s/%s", o.attachment, o.mode), func(t *testing.T) {
			t.Parallel()
			o.nodes, o.families = 3, dual
			c := newCluster(t, o)
			n := newLoop(t, c.nodes[0])
			n.Script(t, foreignObjects)
			foreign := n.foreign(t)
			p := n.newPod(t, model.HostPort{Host: 9080, Pod: port, Protocol: "tcp"})
			n.attach(t, p)
			p.Serve(t, port)
			remote := c.nodes[1].addPod(t)
			// A foreign address is one of the node's too, and host ports are for it.
			n.settled(t)
			if left := n.left(t); left != "" {
				t.Fatalf("at the beginning a pass would do%s", left)
			}
			drifts := driftsOf(n.node, p)
			for _, s := range n.want(t).State.Sysctls {
				other := "0"
				if s.Value == other {
					other = "1"
				}
				drifts = append(drifts, drift{
					s.Key, "sysctl -qw " + s.Key + "=" + other,
					[]string{"sysctl: sysctl " + s.Key + "=" + s.Value + " had been changed to " + other},
				})
			}
			for _, d := range drifts {
				t.Run(d.name, func(t *testing.T) { n.isRepaired(t, d) })
			}
			if now := n.foreign(t); now != foreign {
				t.Errorf("what others have was\n%s\nand is\n%s", foreign, now)
			}
			reaches(t, p, remote)
			reaches(t, remote, p)
		})
	}
}

func TestDriftIsToldInOneSentence(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 3, mode: model.ModeRouted, attachment: model.PointToPoint, families: onlyIPv4})
	n := newLoop(t, c.nodes[0])
	n.Script(t, "ip route del 10.244.2.0/24 table 7466")
	g := gomega.NewWithT(t)
	g.Eventually(n.events, 10*time.Second).Should(gomega.Receive(gomega.Equal(
		"Put back what something other than podnet had changed: route to 10.244.2.0/24 via 192.168.77.12 on eth0 was missing.")))
	// What comes soon after is put back at once, and told together.
	n.Script(t, "ip rule del priority 512\nip link del vxpodnet4")
	g.Eventually(func() string { return n.left(t) }, 10*time.Second, 50*time.Millisecond).Should(gomega.BeEmpty())
	g.Expect(n.events).To(gomega.BeEmpty())
	g.Eventually(n.events, 20*time.Second).Should(gomega.Receive(gomega.And(
		gomega.ContainSubstring("link vxpodnet4 was missing"), gomega.ContainSubstring("rule of priority 512 to table 7466 was missing"))))
}

// Where more changes than a subscription holds, anything may have changed.
func TestOverrunSubscriptionSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{mode: model.ModeRouted, attachment: model.PointToPoint, families: onlyIPv4})
	n := c.nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	seen, hold := make(chan diff.Sighting), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		//nolint:errcheck // It ends with an error when it is told to.
		n.Try(func() error {
			return n.kernel.Watch(ctx, func() []model.Sysctl { return nil }, func(s diff.Sighting) {
				if s.Object == nil {
					select {
					case seen <- s:
					case <-ctx.Done():
					}
					return
				}
				<-hold
			})
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-seen
	var batch strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&batch, "route add unreachable 10.%d.%d.0/24 table 7466 proto 117\n", 64+i/256, i%256)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run(t, "ip", "-batch", file)
	close(hold)
	select {
	case <-seen:
	case <-time.After(20 * time.Second):
		t.Error("it was not told that notifications were lost")
	}
}

// Pods that come and go are as they are wanted all the time, also with the
// notifications of what was made for them.
func TestBurstOfPodsAsksForNoPasses(t *testing.T) {
	const pods = 50
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: dual})
			var made []*pod
			for i := range pods {
				made = append(made, c.nodes[0].newPod(t, model.HostPort{Host: uint16(9000 + i), Pod: port, Protocol: "udp"}))
			}
			n := newLoop(t, c.nodes[0])
			n.settled(t)
			before := n.passed()
			for _, p := range made {
				n.attach(t, p)
			}
			n.settled(t)
			t.Logf("%d passes while %d pods came", n.passed()-before, pods)
			if extra := n.passed() - before; extra > 2 {
				t.Errorf("%d passes while %d pods came", extra, pods)
			}
			for _, p := range made {
				n.detach(t, p)
			}
			n.settled(t)
			before = n.passed()
			if told := n.told(); len(told) > 0 {
				t.Errorf("what nobody did was told: %v", told)
			}
			if left := n.left(t); left != "" {
				t.Errorf("a pass would do%s", left)
			}
			// Nothing is left that asks for passes on and on.
			g := gomega.NewWithT(t)
			g.Consistently(n.passed, 3*time.Second, 100*time.Millisecond).Should(gomega.Equal(before))
		})
	}
}

// A link that goes down takes routes along, which is nobody's doing: they are put
// back when it comes up.
func TestUplinkThatComesUpHasItsRoutesAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 2, mode: model.ModeRouted, attachment: model.PointToPoint, families: onlyIPv4})
	n := newLoop(t, c.nodes[0])
	n.settled(t)
	n.Script(t, "ip link set eth0 down\nip link set eth0 up\nip route replace default via 192.168.77.1")
	g := gomega.NewWithT(t)
	route := func() string { return n.Run(t, "ip", "route", "show", "table", "7466") }
	g.Eventually(route, 10*time.Second, 50*time.Millisecond).Should(gomega.ContainSubstring("10.244.2.0/24 via"))
	n.settled(t)
	if told := n.told(); len(told) > 0 {
		t.Errorf("somebody was blamed: %v", told)
	}
}

// A pod whose namespace went without a word takes its link along.
func TestVanishedPodIsNobodysDoing(t *testing.T) {
	t.Parallel()
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		c := newCluster(t, options{attachment: attachment, mode: model.ModeOverlay, families: dual})
		n := newLoop(t, c.nodes[0])
		p := n.newPod(t)
		n.attach(t, p)
		n.settled(t)
		p.Run(t, "ip", "link", "del", "eth0")
		g := gomega.NewWithT(t)
		g.Eventually(func() string { return n.Run(t, "nft", "list", "ruleset") }, 10*time.Second, 50*time.Millisecond).ShouldNot(gomega.ContainSubstring(p.HostLink))
		n.settled(t)
		if told := n.told(); len(told) > 0 {
			t.Errorf("somebody was blamed: %v", told)
		}
	}
}

// isRepaired spoils one thing and waits for its repair.
func (l *loop) isRepaired(t *testing.T, d drift) {
	l.forget()
	l.Script(t, d.script)
	start := time.Now()
	g := gomega.NewWithT(t)
	told := func() string { return strings.Join(l.told(), "\n") }
	for _, part := range d.told {
		g.Eventually(told, 10*time.Second, 20*time.Millisecond).Should(gomega.ContainSubstring(part))
	}
	t.Logf("told after %s: %s", time.Since(start).Round(time.Millisecond), told())
	g.Eventually(func() string { return l.left(t) }, 10*time.Second, 50*time.Millisecond).Should(gomega.BeEmpty())
}
