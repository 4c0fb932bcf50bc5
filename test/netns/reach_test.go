package netns

import (
	"errors"
	"testing"

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

func TestBridgeWithoutBridgeNetfilter(t *testing.T) {
	for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 0, attachment: model.Bridge, mode: mode, families: dual, noBridgeNetfilter: true})
			c.addNode(t)
			for _, n := range c.nodes {
				n.Sysctl(t, "net/bridge/bridge-nf-call-iptables", "0")
				n.Sysctl(t, "net/bridge/bridge-nf-call-ip6tables", "0")
			}
			c.sync(t)
			reaches(t, c.nodes[0].addPod(t), c.nodes[0].addPod(t), c.nodes[1].addPod(t))
			c.nodes[0].checkState(t)
			if got := c.nodes[0].ReadSysctl(t, "net/bridge/bridge-nf-call-iptables"); got != "0" {
				t.Errorf("bridge-nf-call-iptables is %s", got)
			}
		})
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
