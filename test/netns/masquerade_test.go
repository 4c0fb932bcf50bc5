package netns

import (
	"net/netip"
	"testing"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

func TestPacketsOfTheNodesOwnPodsAloneAreMasqueraded(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for name, families := range map[string]topology.Families{"IPv4": onlyIPv4, "IPv6": onlyIPv6} {
			t.Run(string(attachment)+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, options{nodes: 2, attachment: attachment, mode: model.ModeRouted, families: families})
				n := c.nodes[0]
				p, remote := n.addPod(t), c.nodes[1].addPod(t)
				sender, receiver := c.underlay.AddHost(t, "sender", families), c.underlay.AddHost(t, "receiver", families)
				is4 := families.IPv4
				to := receiver.Address(is4)
				sink := receiver.NewSink(t, sinkPort)
				sender.Run(t, "ip", "route", "replace", netip.PrefixFrom(to, to.BitLen()).String(), "via", n.Address(is4).String(), "dev", "eth0")
				// A neighbour that is found late would be taken for a packet that was dropped.
				for _, neighbours := range [][2]*topology.Host{{sender, n.Host}, {n.Host, receiver}} {
					if err := neighbours[0].Ping(neighbours[1].Address(is4)); err != nil {
						t.Fatal(err)
					}
				}
				for what, x := range map[string]struct {
					from         *topology.Namespace
					source, want netip.Addr
				}{
					"a pod of the node":               {p.Namespace, p.Addrs[0], n.Address(is4)},
					"the node in its range":           {n.Namespace, ipam.NodeAddress(p.Blocks[0]), n.Address(is4)},
					"outside as a pod of another one": {sender.Namespace, remote.Addrs[0], remote.Addrs[0]},
				} {
					if err := x.from.SendFrom(x.source, to, sinkPort, []byte("hello")); err != nil {
						t.Fatal(err)
					}
					heard(t, what, sink, x.want)
				}
			})
		}
	}
}
