package netns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/plan"
)

// observe returns what the node's kernel is, in the terms of its plan.
func (n *node) observe(t *testing.T, want model.State) model.State {
	t.Helper()
	var have model.State
	n.Do(t, func() error {
		var err error
		have, err = n.kernel.Observe(context.Background(), want)
		return err
	})
	have.Sort()
	return have
}

// same checks that two lists are equal.
func same[T comparable](t *testing.T, what string, want, have []T) {
	t.Helper()
	if !slices.Equal(want, have) {
		t.Errorf("%s:\nwant %+v\nhave %+v", what, want, have)
	}
}

// checkState checks that the kernel is what the plan says, list by list.
func (n *node) checkState(t *testing.T) {
	t.Helper()
	want := n.want(t).State
	have := n.observe(t, want)
	same(t, "links", want.Links, have.Links)
	same(t, "addresses", want.Addresses, have.Addresses)
	same(t, "routes", want.Routes, have.Routes)
	same(t, "rules", want.Rules, have.Rules)
	same(t, "neighbours", want.Neighbours, have.Neighbours)
	same(t, "forwarding entries", want.FDB, have.FDB)
	same(t, "ports", want.Ports, have.Ports)
	same(t, "sysctls", want.Sysctls, have.Sysctls)
	if len(want.Firewall) != len(have.Firewall) {
		t.Fatalf("%d tables, want %d", len(have.Firewall), len(want.Firewall))
	}
	for i, w := range want.Firewall {
		h := have.Firewall[i]
		for j, set := range w.Sets {
			if j >= len(h.Sets) || !slices.EqualFunc(set.Elements, h.Sets[j].Elements, func(a, b nft.Element) bool {
				return slices.Equal(a.Key, b.Key) && slices.Equal(a.Value, b.Value)
			}) || set.Key != h.Sets[j].Key || set.Value != h.Sets[j].Value || set.Interval != h.Sets[j].Interval {
				t.Errorf("set %s of table %s:\nwant %+v\nhave %+v", set.Name, w.Family, w.Sets, h.Sets)
				break
			}
		}
	}
	if ops := diff.Diff(want, have); len(ops) > 0 {
		t.Errorf("the difference is not empty: %s", printOps(ops))
	}
}

func TestKernelIsWhatWasPlanned(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 3
		o.masqueradeExclude = []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("192.0.2.1/32"),
			netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("2001:db8::1/128"),
		}
		c := newCluster(t, o)
		n := c.nodes[0]
		n.addPod(t, model.HostPort{Host: 9080, Pod: port, Protocol: "tcp"}, model.HostPort{HostIP: n.IPv4.Addr(), Host: 53, Pod: 53, Protocol: "udp"})
		n.addPod(t)
		n.checkState(t)

		// Nodes come and go, and with them all that leads to them.
		c.addNode(t)
		c.sync(t)
		n.checkState(t)
		c.blocks = slices.DeleteFunc(c.blocks, func(b model.Block) bool { return b.Node == "node3" })
		c.nodes = slices.Delete(c.nodes, 2, 3)
		c.sync(t)
		n.checkState(t)
		for _, attachment := range []model.Attachment{model.Bridge, model.PointToPoint} {
			c.network.Attachment = attachment
			n.sync(t)
			n.checkState(t)
		}
		c.network.Port, c.network.VNI = 4790, 7
		c.sync(t)
		n.checkState(t)
	})
}

// Wherever the agent is killed, its successor finds what is podnet's and completes it.
func TestAgentKilledHalfway(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(7466, 1))
			c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: dual})
			n := c.nodes[0]
			p, remote := n.addPod(t), c.nodes[1].addPod(t)
			for i := range 12 {
				c.network.Mode = []model.Mode{model.ModeRouted, model.ModeOverlay}[i%2]
				c.network.Port = uint16(4789 + i/4)
				want := n.want(t).State
				ops := diff.Diff(want, n.observe(t, want))
				n.Do(t, func() error {
					return n.kernel.Execute(context.Background(), ops[:random.IntN(len(ops))])
				})
				n.restart(t)
				c.sync(t)
				n.checkState(t)
				for _, addr := range remote.Addrs {
					if err := p.Reaches(addr, port); err != nil {
						t.Fatalf("after kill %d: %v", i, err)
					}
				}
			}
		})
	}
}

// restart replaces the node's agent by a new one, with nothing in memory.
func (n *node) restart(t *testing.T) {
	t.Helper()
	var err error
	if n.nft, n.kernel, n.host, err = rooms(n.stateDir); err != nil {
		t.Fatal(err)
	}
}

func TestRestartChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		n := c.nodes[0]
		n.addPod(t, model.HostPort{Host: 9080, Pod: port, Protocol: "tcp"})
		before := n.everything(t)
		n.restart(t)
		if ops := n.pass(t); len(ops) > 0 {
			t.Errorf("a new agent does %d operations: %s", len(ops), printOps(ops))
		}
		compare(t, before, n.everything(t))
	})
}

// everything is the whole configuration of the namespace's network, as the usual
// commands print it.
func (n *node) everything(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, command := range []string{
		"ip -d link", "ip addr", "ip route show table all", "ip -6 route show table all", "ip rule", "ip -6 rule",
		"ip neigh show nud permanent", "ip -6 neigh show nud permanent", "nft list ruleset", "sysctl -a --pattern ^net\\.",
	} {
		out[command] = n.Run(t, strings.Fields(command)...)
	}
	// What counts or changes by itself.
	out["sysctl -a --pattern ^net\\."] = without(out["sysctl -a --pattern ^net\\."],
		"nf_conntrack_count", "stable_secret", "net.ipv4.tcp_", "net.core.", "mtu_expires", "flush")
	for _, command := range []string{"ip addr", "ip route show table all", "ip -6 route show table all"} {
		// The kernel gives links link-local networks in its own time.
		out[command] = without(out[command], "fe80::", "ff00::/8", "valid_lft")
	}
	out["ip -d link"] = timers.ReplaceAllString(out["ip -d link"], "")
	return out
}

// timers are what bridges and their ports count down.
var timers = regexp.MustCompile(`\w+_timer +[0-9.]+`)

// without leaves out the lines that hold one of the words.
func without(text string, words ...string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func compare(t *testing.T, before, after map[string]string) {
	t.Helper()
	for command, was := range before {
		if is := after[command]; is != was {
			t.Errorf("%s differs:\n%s", command, lineDiff(was, is))
		}
	}
}

// lineDiff names the lines that only one of two texts has.
func lineDiff(was, is string) string {
	var out strings.Builder
	old, now := strings.Split(was, "\n"), strings.Split(is, "\n")
	for _, line := range old {
		if !slices.Contains(now, line) {
			fmt.Fprintln(&out, "-", line)
		}
	}
	for _, line := range now {
		if !slices.Contains(old, line) {
			fmt.Fprintln(&out, "+", line)
		}
	}
	return out.String()
}

// addForeign gives a node what others might have there, also where it looks like
// podnet's, and returns commands that show it.
func (n *node) addForeign(t *testing.T, random *rand.Rand) []string {
	t.Helper()
	n.Script(t, `
		ip link add podfoo type veth peer name podbar
		ip link set podfoo alias podnetwork up
		ip link set podbar up
		ip link add br-foreign type bridge
		ip link set br-foreign up
		ip addr add 172.17.0.1/16 dev br-foreign
		ip addr add 198.51.100.7/32 dev lo
		ip route add 10.244.2.0/24 via 192.168.77.200
		ip route add 10.244.0.0/16 via 192.168.77.201 metric 50
		ip route add unreachable 10.245.0.0/16
		ip route add 10.244.2.0/24 via 192.168.77.200 table 100
		ip route add 10.244.2.0/24 via 192.168.77.200 table 7469 proto 117
		ip -6 route add fd44:0:0:2::/64 via fd77::c8
		ip -6 route add fd44::/48 via fd77::c9 metric 50
		ip rule add from 172.17.0.0/16 lookup 100 priority 512
		ip rule add fwmark 0x1 lookup 7469 priority 600
		ip -6 rule add from fd17::/64 lookup 100 priority 512
		ip neigh add 172.17.0.9 lladdr 02:00:00:00:00:09 dev br-foreign nud permanent
		nft add table ip podnet
		nft add chain ip podnet forward { type filter hook forward priority 0 ; }
		nft add rule ip podnet forward ip daddr 10.244.2.0/24 accept
		nft add table inet podnet2
		nft add set inet podnet2 endpoints4 { type ipv4_addr ; elements = { 192.0.2.1 } ; }
	`)
	for range 50 {
		a, b := random.IntN(256), random.IntN(256)
		n.Run(t, "ip", "route", "replace", fmt.Sprintf("10.%d.%d.0/24", 243+a%3, b), "via", "192.168.77.202",
			"proto", fmt.Sprint(random.IntN(200)+1), "metric", fmt.Sprint(random.IntN(3)), "table", []string{"main", "100", "7465"}[a%3])
	}
	return []string{
		"ip -d link show podfoo", "ip -d link show podbar", "ip -d link show br-foreign", "ip -d link show eth0",
		"ip addr show br-foreign", "ip addr show lo", "ip addr show eth0", "ip route show table main", "ip -6 route show table main",
		"ip route show table 100", "ip route show table 7465", "ip route show table 7469",
		"ip neigh show dev br-foreign nud permanent", "nft list table ip podnet", "nft list table inet podnet2", "rules",
	}
}

func (n *node) show(t *testing.T, commands []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, command := range commands {
		if command == "rules" {
			out[command] = without(n.Run(t, "ip", "rule")+n.Run(t, "ip", "-6", "rule"), "from all lookup 7466", "lookup 7467", "lookup 7468")
			continue
		}
		out[command] = timers.ReplaceAllString(n.Run(t, strings.Fields(command)...), "")
		// The kernel gives every link that is up a link-local network.
		out[command] = without(out[command], "fe80::/64 dev "+model.BridgeLink)
	}
	return out
}

func TestForeignThingsAreLeftAlone(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeOverlay, families: dual})
			n := c.nodes[0]
			commands := n.addForeign(t, rand.New(rand.NewPCG(seed, 0)))
			before := n.show(t, commands)
			// Addresses of others on the node are the node's.
			n.sync(t)
			p, remote := n.addPod(t), c.nodes[1].addPod(t)
			check := func() {
				t.Helper()
				for _, addr := range remote.Addrs {
					if err := p.Reaches(addr, port); err != nil {
						t.Error(err)
					}
				}
				compare(t, before, n.show(t, commands))
			}
			check()
			c.network.Mode = model.ModeRouted
			c.sync(t)
			check()
			n.detach(t, p)
			c.blocks = slices.DeleteFunc(c.blocks, func(b model.Block) bool { return b.Node == "node2" })
			n.sync(t)
			n.Do(t, func() error { return n.kernel.Remove(context.Background()) })
			compare(t, before, n.show(t, commands))
		})
	}
}

// detach does what a CNI DEL does.
func (n *node) detach(t *testing.T, p *pod) {
	t.Helper()
	n.Do(t, func() error {
		m, err := n.model()
		if err != nil {
			return err
		}
		ctx := context.Background()
		return errors.Join(n.kernel.Execute(ctx, diff.Removals(plan.PodParts(m, p.Pod))), n.kernel.Detach(ctx, p.Pod))
	})
	n.pods = slices.DeleteFunc(n.pods, func(other model.Pod) bool { return other.ContainerID == p.ContainerID })
	if ops := n.pass(t); len(ops) > 0 {
		t.Errorf("a pass after a pod was detached does %d operations: %s", len(ops), printOps(ops))
	}
}

func TestRemoveLeavesTheNodeAsItWas(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for _, vxlan := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/VXLAN %t", attachment, vxlan), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 1, attachment: attachment, mode: model.ModeOverlay, families: dual})
				n := c.addNode(t)
				c.noVXLAN = !vxlan
				n.addForeign(t, rand.New(rand.NewPCG(1, 2)))
				n.Sysctl(t, "net/ipv4/conf/eth0/rp_filter", "1")
				before := n.everything(t)
				n.sync(t)
				p := n.newPod(t, model.HostPort{Host: 9080, Pod: port, Protocol: "tcp"})
				n.attach(t, p)
				n.restart(t)
				n.Do(t, func() error { return n.kernel.Remove(context.Background()) })
				compare(t, before, n.everything(t))
				if _, err := os.Stat(n.stateDir + "/sysctls.json"); !os.IsNotExist(err) {
					t.Errorf("the previous values of sysctls are still noted: %v", err)
				}
				n.Do(t, func() error { return n.kernel.Remove(context.Background()) })
			})
		}
	}
}
