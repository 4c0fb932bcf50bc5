package netns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// addSecond gives a node a second address of each family that it has, as an operator
// does before the first one goes. IPv4's is of a larger network: one of the same would
// be missing for a moment when the first goes and it is promoted (net/ipv4/devinet.c,
// __inet_del_ifa).
func (n *node) addSecond(t *testing.T) (second []netip.Addr) {
	t.Helper()
	for _, first := range []netip.Prefix{n.IPv4, n.IPv6} {
		if !first.IsValid() {
			continue
		}
		bytes := first.Addr().AsSlice()
		bytes[len(bytes)-1] += 100
		a, _ := netip.AddrFromSlice(bytes)
		n.Run(t, "ip", "addr", "add", netip.PrefixFrom(a, first.Bits()-1).String(), "dev", "eth0", "nodad")
		second = append(second, a)
	}
	return second
}

// removeFirst takes the addresses that a node was born with.
func (n *node) removeFirst(t *testing.T) {
	t.Helper()
	for _, first := range []netip.Prefix{n.IPv4, n.IPv6} {
		if first.IsValid() {
			n.Run(t, "ip", "addr", "del", first.String(), "dev", "eth0")
		}
	}
}

// withEndpoints returns the blocks as they are when the manager has published another
// endpoint of a node.
func withEndpoints(blocks []model.Block, node string, endpoints []netip.Addr) []model.Block {
	out := slices.Clone(blocks)
	for i := range out {
		if out[i].Node == node {
			out[i].Endpoints = endpoints
		}
	}
	return out
}

var outerSource = regexp.MustCompile(`(\d+): vxpodnet[46]:.*\n.*\n.* local (\S+) dev`)

// tunnels returns the numbers of the VXLAN devices, and the sources of their outer packets.
func (n *node) tunnels(t *testing.T) (indices, sources []string) {
	t.Helper()
	for _, link := range []string{model.VXLANLink4, model.VXLANLink6} {
		for _, m := range outerSource.FindAllStringSubmatch(n.Run(t, "ip", "-details", "link", "show", "type", "vxlan"), -1) {
			if strings.Contains(m[0], link+":") {
				indices, sources = append(indices, m[1]), append(sources, m[2])
			}
		}
	}
	return indices, sources
}

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// countFrom counts the packets that come in from addresses, by a firewall that is none
// of podnet's, and returns what prints the counts.
func (n *node) countFrom(t *testing.T, addrs []netip.Addr) func() string {
	t.Helper()
	n.Script(t, "nft add table inet count\nnft add chain inet count in { type filter hook prerouting priority -310 ; }")
	for _, a := range addrs {
		header := "ip"
		if a.Is6() {
			header = "ip6"
		}
		n.Script(t, fmt.Sprintf("nft add rule inet count in %s saddr %s udp dport 4789 counter", header, a))
	}
	return func() string { return n.Run(t, "nft", "list", "chain", "inet", "count", "in") }
}

// One node after the other hears of the new address: its own, then the others. The old
// one goes last.
func TestEndpointThatMovesLosesNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
		for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6, "dual": dual} {
			attachment := model.PointToPoint
			if families == dual {
				attachment = model.Bridge
			}
			// One at a time: a neighbour solicitation that an overloaded machine loses is
			// tried again after a second only.
			t.Run(fmt.Sprintf("%s/%s/%s", attachment, mode, name), func(t *testing.T) {
				moveEndpoint(t, options{nodes: 2, attachment: attachment, mode: mode, families: families})
			})
		}
	}
}

func moveEndpoint(t *testing.T, o options) {
	c := newCluster(t, o)
	mover, other := c.nodes[0], c.nodes[1]
	a, b := mover.addPod(t), other.addPod(t)
	reaches(t, a, b)
	reaches(t, b, a)
	flows := flows{}
	for i, addr := range b.Addrs {
		flows["to "+addr.String()] = a.StartFlow(t, addr, port, time.Millisecond)
		flows["from "+addr.String()] = b.StartFlow(t, a.Addrs[i], port, time.Millisecond)
		flows["node to "+addr.String()] = mover.StartFlow(t, addr, port, time.Millisecond)
	}
	step := func() { t.Helper(); flows.await(t, 50) }
	step()
	first := other.heardEndpoints(mover.Name)
	mover.nodeIPs = first
	devices, _ := mover.tunnels(t)

	second := mover.addSecond(t)
	// Host ports are for all addresses of the node.
	ops := slices.DeleteFunc(mover.pass(t), func(op diff.Op) bool {
		e, is := op.Object.(diff.Elements)
		return is && strings.HasPrefix(e.Set, "nodeaddresses")
	})
	if len(ops) > 0 {
		t.Errorf("with an address that Kubernetes does not know a pass does %s", printOps(ops))
	}
	step()
	mover.nodeIPs = second
	mover.pass(t)
	if _, from := mover.tunnels(t); !slices.Equal(from, texts(first)) {
		t.Errorf("before others know its new address the node sends from %v", from)
	}
	step()
	moved := withEndpoints(c.blocks, mover.Name, second)
	mover.heard = moved
	for _, f := range first {
		mover.former = append(mover.former, model.FormerEndpoint{Node: mover.Name, Addr: f, Fresh: time.Second})
	}
	mover.pass(t)
	if _, from := mover.tunnels(t); !slices.Equal(from, texts(first)) {
		t.Errorf("before others have heard the node sends from %v", from)
	}
	step()
	other.heard, other.former = moved, mover.former
	other.pass(t)
	step()
	for i := range mover.former {
		mover.former[i].Fresh = 0
	}
	mover.pass(t)
	now, from := mover.tunnels(t)
	if !slices.Equal(from, texts(second)) || !slices.Equal(now, devices) {
		t.Errorf("the devices %v send from %v, and were %v", now, from, devices)
	}
	came := other.countFrom(t, first)
	before := came()
	step()
	if after := came(); after != before {
		t.Errorf("packets come from the address that was left: %s", after)
	}
	mover.removeFirst(t)
	mover.pass(t)
	step()
	other.former = nil
	other.pass(t)
	step()
	flows.expectAll(t)
	mover.sync(t)
	other.sync(t)
}

// heardEndpoints are a node's endpoints as this node has heard of them.
func (n *node) heardEndpoints(name string) []netip.Addr {
	blocks := n.cluster.blocks
	return blocks[slices.IndexFunc(blocks, func(b model.Block) bool { return b.Node == name })].Endpoints
}

// Where nothing but the old address was there, the new one is used at once.
func TestEndpointThatIsReplacedIsUsedAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: model.ModeOverlay, families: dual})
	mover, other := c.nodes[0], c.nodes[1]
	a, b := mover.addPod(t), other.addPod(t)
	second := mover.addSecond(t)
	mover.removeFirst(t)
	mover.pass(t)
	if _, from := mover.tunnels(t); !slices.Equal(from, texts(second)) {
		t.Errorf("the node sends from %v", from)
	}
	c.blocks = withEndpoints(c.blocks, mover.Name, second)
	c.sync(t)
	reaches(t, a, b)
	reaches(t, b, a)
}

func TestPacketsFromFormerEndpointsAreTakenAsLongAsTheyAreRemembered(t *testing.T) {
	for name, tc := range map[string]struct {
		families topology.Families
		device   string
	}{"IPv4": {onlyIPv4, model.VXLANLink4}, "IPv6": {onlyIPv6, model.VXLANLink6}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: model.ModeOverlay, families: tc.families})
			n, mover := c.nodes[0], c.nodes[1]
			target, remote := n.addPod(t), mover.addPod(t)
			sink := target.NewSink(t, sinkPort)
			inner := remote.Addrs[0].Next()
			payload := n.tunnelled(target, inner, tc.device)
			first, second := mover.heardEndpoints(mover.Name)[0], mover.addSecond(t)[0]
			send := func(what string, from, want netip.Addr) {
				t.Helper()
				if err := mover.SendFrom(from, n.Address(tc.families.IPv4), c.network.Port, payload); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				heard(t, what, sink, want)
			}
			// A neighbour that is found late would be taken for a packet that was dropped.
			if err := mover.Ping(n.Address(tc.families.IPv4)); err != nil {
				t.Fatal(err)
			}
			send("from an address that nobody knows", second, netip.Addr{})
			c.blocks = withEndpoints(c.blocks, mover.Name, []netip.Addr{second})
			n.former = []model.FormerEndpoint{{Node: mover.Name, Addr: first}}
			n.sync(t)
			send("from the present endpoint", second, inner)
			send("from the former endpoint", first, inner)
			n.former = nil
			n.sync(t)
			send("from the former endpoint that is forgotten", first, netip.Addr{})
			send("from the present endpoint later", second, inner)
		})
	}
}

// change is a change of a node that is not podnet's.
type change struct{ name, script string }

// passesWithin checks that a change leads to a pass within about a second, and to none after it.
func (l *loop) passesWithin(t *testing.T, c change) {
	t.Helper()
	l.settled(t)
	before, start := l.passed(), time.Now()
	l.Script(t, c.script)
	g := gomega.NewWithT(t)
	// Without the change there would be none for an hour.
	g.Eventually(l.passed, time.Minute, 10*time.Millisecond).Should(gomega.BeNumerically(">", before), c.name)
	t.Logf("%s: a pass after %s", c.name, time.Since(start).Round(time.Millisecond))
	l.settled(t)
	if extra := l.passed() - before; extra > 3 {
		t.Errorf("%s: %d passes", c.name, extra)
	}
}

func TestChangedUplinkLeadsToAPass(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 3, mode: model.ModeOverlay, attachment: model.PointToPoint, families: dual})
	n := newLoop(t, c.nodes[0])
	n.Script(t, "sysctl -qw net.ipv4.conf.all.promote_secondaries=1\nip link add other0 type bridge\nip link set other0 up")
	for _, x := range []change{
		{"an address comes", "ip addr add 192.168.77.211/24 dev eth0"},
		{"an IPv6 address comes", "ip addr add fd77::211/64 dev eth0 nodad"},
		{"an address goes", "ip addr del 192.168.77.211/24 dev eth0"},
		{"an IPv6 address goes", "ip addr del fd77::211/64 dev eth0"},
		{"an address comes on another link", "ip addr add 192.0.2.1/24 dev other0"},
		{"a link with addresses goes", "ip link set other0 down"},
		{"the MTU changes", "ip link set eth0 mtu 1400"},
		{"a route to a peer comes", "ip route add 192.168.77.12/32 via 192.168.77.1 dev eth0"},
		{"a route to a peer changes", "ip route replace 192.168.77.12/32 via 192.168.77.13 dev eth0"},
		{"a route to a peer goes", "ip route del 192.168.77.12/32"},
		{"the IPv6 default route goes", "ip -6 route del default"},
		{"the uplink is set down", "ip link set eth0 down"},
		{"the uplink is set up", "ip link set eth0 up"},
		{"the address is another one", "ip addr del 192.168.77.11/24 dev eth0\nip addr add 192.168.77.212/24 dev eth0"},
	} {
		n.passesWithin(t, x)
	}
	g := gomega.NewWithT(t)
	g.Expect(n.Run(t, "ip", "-details", "link", "show", "vxpodnet4")).To(gomega.And(
		gomega.ContainSubstring("local 192.168.77.212"), gomega.ContainSubstring("mtu 1350")))
	if told := n.told(); len(told) > 0 {
		t.Errorf("somebody was blamed: %v", told)
	}
}

func TestWhatDoesNotChangeTheWayToOthersLeadsToNoPass(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 2, mode: model.ModeRouted, attachment: model.PointToPoint, families: dual})
	n := newLoop(t, c.nodes[0])
	n.settled(t)
	before := n.passed()
	var batch strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&batch, "route add 198.18.%d.%d/32 via 192.168.77.1 proto bird\n", i/256, i%256)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run(t, "ip", "-batch", file)
	n.Script(t, `ip route flush proto bird
ip link add theirs0 type veth peer name theirs1
ip link set theirs0 up
ip link set theirs1 up
ip link del theirs0
ip addr change 192.168.77.11/24 dev eth0 valid_lft 3600 preferred_lft 3600
ip addr change fd77::11/64 dev eth0 valid_lft 3600 preferred_lft 3600
ip addr add fd99::1/64 dev eth0 nodad mngtmpaddr preferred_lft 0
`)
	n.settled(t)
	// The last address alone counts.
	if extra := n.passed() - before; extra > 1 {
		t.Errorf("%d passes", extra)
	}

	// Of those that count there is a pass a second at most.
	before, start := n.passed(), time.Now()
	for time.Since(start) < 3*time.Second {
		n.Script(t, "ip route replace 192.168.77.12/32 via 192.168.77.1 dev eth0\nip route del 192.168.77.12/32")
	}
	n.settled(t)
	if extra := n.passed() - before; extra > 5 {
		t.Errorf("%d passes in 3 seconds", extra)
	}
}

// What a NodeSubnet says of one node's endpoint, no other may come to harm by.
func TestEndpointsThatAreNoNodesDoNoHarm(t *testing.T) {
	for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: mode, families: dual})
			a, b := c.nodes[0].addPod(t), c.nodes[1].addPod(t)
			honest := c.blocks
			for _, endpoint := range []string{
				"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.168.77.255", "192.168.77.0", "10.244.1.2", "192.168.77.1", "169.254.1.1",
				"192.168.77.11", "192.168.77.12", "8.8.8.8", "240.0.0.1", "::", "::1", "ff02::1", "fe80::1", "fd77::1", "fd77::11", "fd77::12", "2001:db8::1",
			} {
				c.blocks = slices.Clone(honest)
				for _, cidr := range []string{"10.244.66.0/24", "fd44:0:0:66::/64"} {
					c.blocks = append(c.blocks, model.Block{
						Name: cidr, CIDR: netip.MustParsePrefix(cidr), Node: "evil", State: model.BlockActive,
						Endpoints: []netip.Addr{netip.MustParseAddr(endpoint)}, Created: time.Unix(99, 0),
					})
				}
				c.nodes[0].sync(t)
				t.Log(endpoint)
			}
			c.nodes[1].sync(t)
			reaches(t, a, b)
			reaches(t, b, a)
		})
	}
}
