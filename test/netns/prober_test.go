package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// proving is a cluster whose nodes' agents prove their paths.
type proving struct {
	*cluster
	agents []*loop
}

func newProving(t *testing.T, o options) *proving {
	t.Helper()
	nodes := o.nodes
	o.nodes = 1
	c := &proving{cluster: newCluster(t, o)}
	for len(c.nodes) < nodes {
		c.addNode(t)
	}
	for _, n := range c.nodes {
		c.agents = append(c.agents, startLoop(t, n, true))
	}
	return c
}

// eachAttachment runs a test on a cluster of each attachment.
func eachAttachment(t *testing.T, test func(t *testing.T, c *proving)) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			test(t, newProving(t, options{nodes: 2, attachment: attachment, mode: model.ModeAuto, families: dual}))
		})
	}
}

// pair attaches a pod to each of the first two nodes, of which the second one serves.
func (c *proving) pair(t *testing.T) (a, b *pod) {
	t.Helper()
	a, b = c.nodes[0].newPod(t), c.nodes[1].newPod(t)
	c.agents[0].attach(t, a)
	c.agents[1].attach(t, b)
	b.Serve(t, port)
	return a, b
}

// report returns what an agent found last.
func (l *loop) report() status.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reported
}

// expectPaths waits until all paths of all nodes are of a kind and proven.
func (c *proving) expectPaths(t *testing.T, want model.Path, timeout time.Duration) {
	t.Helper()
	gomega.NewWithT(t).Eventually(func() string {
		var wrong []string
		for _, l := range c.agents {
			paths := l.report().Plan.Paths
			if len(paths) == 0 {
				wrong = append(wrong, l.Name+" has none")
			}
			for _, p := range paths {
				if p.Path != want || !p.Proof.Holds() || p.Proof.Silent {
					wrong = append(wrong, fmt.Sprintf("%s to %s: %s, %+v: %s", l.Name, p.Block, p.Path, p.Proof, p.Message))
				}
			}
		}
		return strings.Join(wrong, "\n")
	}, timeout, 20*time.Millisecond).Should(gomega.BeEmpty())
}

// strict makes the underlay drop packets whose source is a pod's, as clouds do.
func (c *proving) strict(t *testing.T) {
	t.Helper()
	c.underlay.Script(t, `
		nft add table bridge fabric
		nft add chain bridge fabric forward { type filter hook forward priority 0 ; }
		nft add rule bridge fabric forward ip saddr 10.244.0.0/16 drop
		nft add rule bridge fabric forward ip6 saddr fd44::/48 drop
	`)
}

// narrow makes the underlay drop larger packets, and say nothing.
func (c *proving) narrow(t *testing.T, mtu int) {
	t.Helper()
	for _, n := range c.nodes {
		// Segments are packets of their own, as on a wire.
		n.Run(t, "ip", "link", "set", "eth0", "gso_max_segs", "1")
	}
	c.underlay.Script(t, fmt.Sprintf(`
		nft add table bridge fabric
		nft add chain bridge fabric forward { type filter hook forward priority 0 ; }
		nft add rule bridge fabric forward meta protocol { ip, ip6 } meta length > %d drop
	`, mtu))
}

// open ends what strict or narrow began.
func (c *proving) open(t *testing.T) {
	t.Helper()
	c.underlay.Run(t, "nft", "delete", "table", "bridge", "fabric")
}

func TestAutoIsRoutedWhereThatIsProven(t *testing.T) {
	eachAttachment(t, func(t *testing.T, c *proving) {
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		for _, l := range c.agents {
			for _, choice := range l.report().Plan.Paths {
				if choice.Message != "" || choice.Proof.MTU != 0 {
					t.Errorf("%s to %s: %q, MTU %d", l.Name, choice.Block, choice.Message, choice.Proof.MTU)
				}
			}
		}
	})
}

// A fabric begins to drop packets of pods, and ceases to.
func TestFabricTurnsStrictUnderTraffic(t *testing.T) {
	eachAttachment(t, func(t *testing.T, c *proving) {
		a, b := c.pair(t)
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		flows, control := flows{}, topology.StartControl(t, time.Millisecond)
		for _, addr := range b.Addrs {
			flows["to "+addr.String()] = a.StartFlow(t, addr, port, time.Millisecond)
		}
		flows.await(t, 100)
		c.strict(t)
		c.expectPaths(t, model.PathOverlay, 10*time.Second)
		for _, choice := range c.agents[0].report().Plan.Paths {
			if !strings.Contains(choice.Message, "routed path is not proven") {
				t.Errorf("nothing says why the overlay is taken to %s: %q", choice.Block, choice.Message)
			}
		}
		flows.await(t, 100)
		for name, flow := range flows {
			from, to := flow.LongestGap(t)
			gap, stalled := to.Sub(from), control.Stalled(from, to)
			t.Logf("%s: longest gap %s, of which the machine stalled for %s", name, gap, stalled)
			if gap-stalled > time.Second {
				t.Errorf("%s: nothing came back for %s, of which the machine stalled for %s", name, gap, stalled)
			}
			flow.Close()
			delete(flows, name)
		}
		for _, addr := range b.Addrs {
			flows["to "+addr.String()+" on the return to routed paths"] = a.StartFlow(t, addr, port, time.Millisecond)
		}
		c.open(t)
		c.expectPaths(t, model.PathRouted, time.Minute)
		flows.await(t, 100)
		flows.expectAll(t)
	})
}

// The underlay carries less than its interfaces say, without saying so.
func TestBlackHoleForLargePackets(t *testing.T) {
	eachAttachment(t, func(t *testing.T, c *proving) {
		a, b := c.pair(t)
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		c.narrow(t, 1400)
		gomega.NewWithT(t).Eventually(func() bool {
			return !slices.ContainsFunc(slices.Concat(c.agents[0].report().Plan.Paths, c.agents[1].report().Plan.Paths), func(p model.PathChoice) bool {
				return p.Proof.MTU < 1380 || p.Proof.MTU > 1400 || p.Path != model.PathRouted
			})
		}, 10*time.Second, 20*time.Millisecond).Should(gomega.BeTrue(), "%+v", c.agents[0].report().Plan.Paths)
		for _, addr := range b.Addrs {
			if _, err := a.TCP(addr, port, 1<<20); err != nil {
				t.Error(err)
			}
		}
		c.open(t)
		gomega.NewWithT(t).Eventually(func() bool {
			return !slices.ContainsFunc(c.agents[0].report().Plan.Paths, func(p model.PathChoice) bool { return p.Proof.MTU != 0 })
		}, 20*time.Second, 20*time.Millisecond).Should(gomega.BeTrue())
	})
}

// An agent that is gone answers no probe. Nothing is wrong with the paths to its node.
func TestAgentThatIsGoneChangesNoPath(t *testing.T) {
	eachAttachment(t, func(t *testing.T, c *proving) {
		a, b := c.pair(t)
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		flow := a.StartFlow(t, b.Addrs[0], port, time.Millisecond)
		c.agents[1].stop()
		gomega.NewWithT(t).Consistently(func() bool {
			return slices.ContainsFunc(c.agents[0].report().Plan.Paths, func(p model.PathChoice) bool { return p.Path != model.PathRouted })
		}, 3*time.Second, 20*time.Millisecond).Should(gomega.BeFalse())
		c.agents[1] = startLoop(t, c.nodes[1], true, b.Pod)
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		if sent, back := flow.Stop(); sent != back {
			t.Errorf("of %d datagrams %d came back", sent, back)
		}
	})
}

// Agents that know nothing of probes answer none. While they are replaced, one after
// the other, every path stays as it is.
func TestAgentsThatProveNothingAreReplacedUnderTraffic(t *testing.T) {
	for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			c := &proving{cluster: newCluster(t, options{nodes: 2, mode: mode, attachment: model.PointToPoint, families: dual})}
			var pods []*pod
			for _, n := range c.nodes {
				pods = append(pods, n.addPod(t))
			}
			want := map[model.Mode]model.Path{model.ModeRouted: model.PathRouted, model.ModeOverlay: model.PathOverlay}[mode]
			flow := pods[0].StartFlow(t, pods[1].Addrs[0], port, time.Millisecond)
			for i, n := range c.nodes {
				c.agents = append(c.agents, startLoop(t, n, true, pods[i].Pod))
				gomega.NewWithT(t).Consistently(func() string {
					var out []string
					for _, l := range c.agents {
						for _, p := range l.report().Plan.Paths {
							if p.Path != want {
								out = append(out, fmt.Sprintf("%s to %s: %s: %s", l.Name, p.Block, p.Path, p.Message))
							}
						}
					}
					return strings.Join(out, "\n")
				}, 2*time.Second, 20*time.Millisecond).Should(gomega.BeEmpty())
			}
			c.expectPaths(t, want, 10*time.Second)
			if sent, back := flow.Stop(); sent != back || sent < 1000 {
				t.Errorf("of %d datagrams %d came back", sent, back)
			}
		})
	}
}

// Drivers that compute wrong checksums for packets in a tunnel are told from paths
// that carry nothing. What they do is played by dropping packets with a checksum.
func TestWrongChecksumsInTheTunnelAreFound(t *testing.T) {
	eachAttachment(t, func(t *testing.T, c *proving) {
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		c.nodes[1].Script(t, `
			nft add table inet driver
			nft add chain inet driver in { type filter hook prerouting priority -400 ; }
			nft add rule inet driver in iifname "vxpodnet*" udp dport { 7467, 7469 } udp checksum != 0 drop
		`)
		gomega.NewWithT(t).Eventually(func() bool {
			return !slices.ContainsFunc(c.agents[0].report().Plan.Paths, func(p model.PathChoice) bool { return p.Corrupter != "vxpodnet4" })
		}, 10*time.Second, 200*time.Millisecond).Should(gomega.BeTrue())
		findings := status.Build(c.agents[0].report(), nil, 1, "v").Findings
		if len(findings) == 0 || findings[0].Type != "ChecksumOffload" || !strings.Contains(findings[0].Message, "ethtool -K vxpodnet4 tx off") {
			t.Errorf("findings: %+v", findings)
		}
	})
}

// A second block is probed from, too, as soon as the node has it; what the attachment
// of the probes loses when it is made anew is nobody's doing.
func TestSecondBlockIsProbedFrom(t *testing.T) {
	eachAttachment(t, func(t *testing.T, c *proving) {
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		second := c.blocks[0]
		second.CIDR = netip.MustParsePrefix("10.244.101.0/24")
		second.Name, second.Created = second.CIDR.String(), second.Created.Add(time.Hour)
		c.lock(func() { c.blocks = append(c.blocks, second) })
		for _, l := range c.agents {
			l.applier.Trigger()
		}
		gomega.NewWithT(t).Eventually(func() int {
			return len(c.agents[1].report().Plan.Paths)
		}, 10*time.Second, 20*time.Millisecond).Should(gomega.Equal(3))
		c.expectPaths(t, model.PathRouted, 10*time.Second)
		for _, l := range c.agents {
			if told := l.told(); len(told) > 0 {
				t.Errorf("%s takes for drift: %q", l.Name, told)
			}
		}
	})
}

// A pod that fills the sockets of another node's probes would make one path look worse
// than the other.
func TestPodsDoNotReachProbers(t *testing.T) {
	for way, port := range []int{model.ProbeRoutedPort, model.ProbeOverlayPort} {
		t.Run(string(model.Ways[way].Path), func(t *testing.T) {
			t.Parallel()
			mode := []model.Mode{model.ModeAuto, model.ModeOverlay}[way]
			c := newProving(t, options{nodes: 3, attachment: model.PointToPoint, mode: mode, families: dual})
			a := c.nodes[2].newPod(t)
			c.agents[2].attach(t, a)
			c.expectPaths(t, model.Ways[way].Path, 10*time.Second)
			var stop atomic.Bool
			var flood sync.WaitGroup
			for range 2 {
				conn, err := a.Dial("udp", ipam.ProbeAddress(c.nodes[1].want(t).Blocks[0].CIDR), uint16(port))
				if err != nil {
					t.Fatal(err)
				}
				flood.Go(func() {
					defer conn.Close()
					for junk := make([]byte, 64); !stop.Load(); {
						//nolint:errcheck // It is refused, now and then.
						conn.Write(junk)
					}
				})
			}
			gomega.NewWithT(t).Consistently(func() bool {
				return slices.ContainsFunc(c.agents, func(l *loop) bool {
					return slices.ContainsFunc(l.report().Plan.Paths, func(p model.PathChoice) bool {
						return p.Path != model.Ways[way].Path || p.Proof.MTU != 0
					})
				})
			}, 5*time.Second, 20*time.Millisecond).Should(gomega.BeFalse())
			stop.Store(true)
			flood.Wait()
		})
	}
}

// lock changes what the agents' API holds.
func (c *proving) lock(change func()) {
	for _, l := range c.agents {
		l.mu.Lock()
	}
	change()
	for _, l := range c.agents {
		l.mu.Unlock()
	}
}
