package netns

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// reaches checks that a pod reaches all addresses of others by all protocols.
func reaches(t *testing.T, from *pod, others ...*pod) {
	t.Helper()
	for _, to := range others {
		for _, addr := range to.Addrs {
			if err := from.Reaches(addr, port); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPodsReachEachOther(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 3
		c := newCluster(t, o)
		a, b := c.nodes[0].addPod(t), c.nodes[0].addPod(t)
		reaches(t, a, b, c.nodes[1].addPod(t), c.nodes[2].addPod(t))
		// A node reaches its own pods, as the kubelet's probes do.
		for _, addr := range a.Addrs {
			if err := c.nodes[0].Reaches(addr, port); err != nil {
				t.Error(err)
			}
		}
	})
}

// Pods that were attached before the network was recreated with the other attachment keep theirs,
// and other nodes' pods reach both kinds. Pods on the bridge look for all others of their block there.
func TestPodsOfBothAttachmentsReachOtherNodes(t *testing.T) {
	for former, present := range map[model.Attachment]model.Attachment{model.Bridge: model.PointToPoint, model.PointToPoint: model.Bridge} {
		t.Run("from "+string(former)+" to "+string(present), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{attachment: former, mode: model.ModeRouted, families: dual, nodes: 2})
			n := c.nodes[0]
			old := n.newPod(t)
			n.attach(t, old)
			c.network.Attachment = present
			for _, n := range c.nodes {
				n.sync(t)
			}
			remote := c.nodes[1].addPod(t)
			old.Serve(t, port)
			later := n.addPod(t)
			reaches(t, old, remote)
			reaches(t, later, remote)
			reaches(t, remote, old, later)
		})
	}
}

// Packets to unused addresses of a node's blocks end on that node, and whoever
// sent them is told.
func TestUnusedAddressesAreUnreachable(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		used, remote := c.nodes[0].addPod(t), c.nodes[1].addPod(t)
		reaches(t, remote, used)
		for _, addr := range used.Addrs {
			unused := addr.Next().Next()
			for name, from := range map[string]*topology.Namespace{"a pod": remote.Namespace, "the node": c.nodes[0].Namespace} {
				_, err := from.TCP(unused, port, 1)
				if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
					t.Errorf("%s to the unused address %s: %v, want that it is unreachable", name, unused, err)
				}
			}
		}
	})
}

// Where only the bridge sees its frames, policies and Services hold for none of its pods:
// those that are there go on, and no other comes until the module is there.
func TestPodsOfABridgeWaitForBridgeNetfilter(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{nodes: 2, attachment: model.Bridge, mode: model.ModeRouted, families: dual})
	l := newLoop(t, c.nodes[0])
	a, b, remote := l.newPod(t), l.newPod(t), c.nodes[1].addPod(t)
	for _, p := range []*pod{a, b} {
		l.attach(t, p)
		p.Serve(t, port)
	}
	g := gomega.NewWithT(t)
	offered := func() error {
		l.applier.Trigger()
		_, err := l.offers.Current()
		return err
	}
	load := func(there bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.noBridgeNetfilter = !there
	}
	load(false)
	g.Eventually(offered, 10*time.Second, 50*time.Millisecond).Should(gomega.MatchError(gomega.ContainSubstring("modprobe br_netfilter")))
	late := l.newPod(t)
	if err := l.Try(func() error { return l.attacher.Attach(t.Context(), late.Pod) }); err == nil {
		t.Error("a pod is attached whose policies would not hold")
	}
	reaches(t, a, b, remote)
	load(true)
	g.Eventually(offered, 10*time.Second, 50*time.Millisecond).Should(gomega.Succeed())
	l.attach(t, late)
	late.Serve(t, port)
	reaches(t, late, a, remote)
}

// Whatever new links begin with, those of podnet have what pods' packets need, and have it
// back where somebody takes it away.
func TestLinksForwardWhateverTheDefaultsAre(t *testing.T) {
	for name, script := range map[string]string{
		"no IPv6 on new links":        "sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
		"new links do not forward":    "sysctl -qw net.ipv4.ip_forward=1\nsysctl -qw net.ipv4.conf.default.forwarding=0",
		"the uplink does not forward": "sysctl -qw net.ipv4.ip_forward=1\nsysctl -qw net.ipv4.conf.eth0.forwarding=0",
	} {
		for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
			for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, attachment, mode), func(t *testing.T) {
					t.Parallel()
					c := newCluster(t, options{attachment: attachment, mode: mode, families: dual})
					n := c.addNode(t)
					n.Script(t, script)
					c.sync(t)
					p, local, remote := n.newPod(t), n.addPod(t), c.nodes[0].addPod(t)
					// As where new namespaces have what the first one has (net.core.devconf_inherit_init_net).
					p.Sysctl(t, "net/ipv6/conf/default/disable_ipv6", "1")
					n.attach(t, p)
					p.Serve(t, port)
					reaches(t, p, local, remote)
					reaches(t, remote, p)
					for _, s := range n.want(t).State.Sysctls {
						if strings.HasSuffix(s.Key, "/disable_ipv6") {
							n.Sysctl(t, s.Key, "1")
						} else if strings.HasSuffix(s.Key, "/forwarding") && s.Key != "net/ipv6/conf/all/forwarding" {
							n.Sysctl(t, s.Key, "0")
						}
					}
					n.sync(t)
					reaches(t, p, local, remote)
					reaches(t, remote, p)
				})
			}
		}
	}
}

// A kernel without the VXLAN module still routes.
func TestRoutedWithoutVXLAN(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeRouted, families: dual, noVXLAN: true})
			reaches(t, c.nodes[0].addPod(t), c.nodes[0].addPod(t), c.nodes[1].addPod(t))
			n := c.nodes[0]
			n.checkState(t)
			for _, l := range n.observe(t, n.want(t).State).Links {
				if l.Kind == model.LinkVXLAN {
					t.Errorf("there is a VXLAN device: %+v", l)
				}
			}
			// It comes back with the module.
			c.noVXLAN = false
			c.network.Mode = model.ModeOverlay
			c.sync(t)
			n.checkState(t)
			reaches(t, c.nodes[0].addPod(t), c.nodes[1].addPod(t))
		})
	}
}

// The overlay's outer packets are of one family, the pods' packets of both.
func TestPodsOfTwoFamiliesOverAnUnderlayOfOne(t *testing.T) {
	for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, attachment: model.PointToPoint, mode: model.ModeOverlay, families: families, ranges: dual})
			reaches(t, c.nodes[0].addPod(t), c.nodes[0].addPod(t), c.nodes[1].addPod(t))
			c.nodes[0].checkState(t)
		})
	}
}

// A server of the node that is bound to no address, such as a DNS cache, answers
// with the address that was asked. On a bridge with an IPv4 address the kernel
// prefers that one for what goes out by it, as on every bridge of containers, and
// datagrams need a server that minds the address.
func TestPodsReachServersOfNodes(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		a := c.nodes[0].addPod(t)
		for i, n := range c.nodes {
			n.Serve(t, port)
			for _, addr := range a.Addrs {
				to := n.Address(addr.Is4())
				if i == 0 && addr.Is4() && o.attachment == model.Bridge {
					if _, err := a.TCP(to, port, 100); err != nil {
						t.Error(err)
					}
					continue
				}
				if err := a.Reaches(to, port); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
