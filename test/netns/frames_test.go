package netns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// tags are the ways to put tags into a frame.
var tags = map[string]func(frame []byte) []byte{
	"a tag of VLAN 0":         func(f []byte) []byte { return topology.Tagged(f, unix.ETH_P_8021Q, 0) },
	"a tag of VLAN 5":         func(f []byte) []byte { return topology.Tagged(f, unix.ETH_P_8021Q, 5) },
	"a service tag of VLAN 0": func(f []byte) []byte { return topology.Tagged(f, unix.ETH_P_8021AD, 0) },
	"a service tag of VLAN 5": func(f []byte) []byte { return topology.Tagged(f, unix.ETH_P_8021AD, 5) },
	"two tags": func(f []byte) []byte {
		return topology.Tagged(topology.Tagged(f, unix.ETH_P_8021Q, 0), unix.ETH_P_8021Q, 0)
	},
	"a tag behind a service tag": func(f []byte) []byte {
		return topology.Tagged(topology.Tagged(f, unix.ETH_P_8021Q, 5), unix.ETH_P_8021AD, 0)
	},
	"a tag of VLAN 0, with a prio": func(f []byte) []byte { return topology.Tagged(f, unix.ETH_P_8021Q, 0xe000) },
}

// wrapped are other ways to send an IP packet in a frame.
var wrapped = map[string]func(frame []byte) []byte{
	"a SNAP header": func(f []byte) []byte {
		body := slices.Concat([]byte{0xaa, 0xaa, 3, 0, 0, 0}, f[12:])
		return slices.Concat(f[:12], binary.BigEndian.AppendUint16(nil, uint16(len(body))), body)
	},
	"a PPPoE session": func(f []byte) []byte {
		protocol := uint16(0x21)
		if binary.BigEndian.Uint16(f[12:]) == topology.EtherIPv6 {
			protocol = 0x57
		}
		body := binary.BigEndian.AppendUint16([]byte{0x11, 0, 0, 1}, uint16(len(f)-12))
		return slices.Concat(f[:12], []byte{0x88, 0x64}, binary.BigEndian.AppendUint16(body, protocol), f[14:])
	},
	"an MPLS label": func(f []byte) []byte { return slices.Concat(f[:12], []byte{0x88, 0x47, 0, 0, 1, 64}, f[14:]) },
	"EAPOL":         func(f []byte) []byte { return slices.Concat(f[:12], []byte{0x88, 0x8e}, f[14:]) },
	"LLDP's type":   func(f []byte) []byte { return slices.Concat(f[:12], []byte{0x88, 0xcc}, f[14:]) },
}

// datagram is a frame with a datagram from a pod to another, as it comes from the pod.
func datagram(from, to *pod, is4 bool, payload string) []byte {
	protocol := uint16(topology.EtherIPv4)
	if !is4 {
		protocol = topology.EtherIPv6
	}
	mac := to.PodMAC
	if from.Attachment == model.PointToPoint {
		mac = from.HostMAC
	}
	return topology.Frame(mac, from.PodMAC, protocol, topology.Datagram(from.addr(is4), to.addr(is4), sinkPort, []byte(payload)))
}

func TestPodOnBridgeSendsNothingButIPInAFrame(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{attachment: model.Bridge, mode: model.ModeRouted, families: dual})
	n := c.nodes[0]
	bad, target := n.addPod(t), n.addPod(t)
	for _, addr := range target.Addrs {
		if err := bad.Reaches(addr, port); err != nil {
			t.Fatal(err)
		}
	}
	sent := 0
	check := func(what string, want bool, wrap func([]byte) []byte) {
		t.Helper()
		for _, is4 := range []bool{true, false} {
			sent++
			payload := fmt.Sprintf("this is datagram %d", sent)
			frames := target.NewFrames(t, "eth0", unix.ETH_P_ALL)
			bad.SendFrame(t, "eth0", wrap(datagram(bad, target, is4, payload)))
			if got := frames.Heard(want, func(f []byte) bool { return bytes.Contains(f, []byte(payload)) }); got != want {
				t.Errorf("%s, IPv4 %t: arrives %t, want %t", what, is4, got, want)
			}
		}
	}
	check("as it is", true, func(f []byte) []byte { return f })
	all := func(want bool) {
		for _, ways := range []map[string]func([]byte) []byte{tags, wrapped} {
			for name, wrap := range ways {
				check(name, want, wrap)
			}
		}
	}
	all(false)
	n.withoutFirewall(t, func() { all(true) })
}

// Whatever is in front of a packet, a policy holds for it.
func TestTagsAreNoWayAroundPolicies(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newPoliced(t, options{nodes: 1, attachment: attachment, mode: model.ModeRouted, families: dual})
			a := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "a"})
			b := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "b"})
			sink := b.NewSink(t, sinkPort)
			c.enforce(t)
			for _, is4 := range []bool{true, false} {
				a.SendFrame(t, "eth0", datagram(a, b, is4, "hello"))
				heard(t, "without a policy", sink, a.addr(is4))
			}
			c.objects.NetworkPolicies = []model.NetworkPolicy{{
				Namespace: "red", Name: "b", Types: []model.PolicyType{model.PolicyIngress},
				Pods: model.Selector{{Key: "app", Operator: model.In, Values: []string{"b"}}},
			}}
			c.enforce(t)
			for _, is4 := range []bool{true, false} {
				for name, tag := range tags {
					a.SendFrame(t, "eth0", tag(datagram(a, b, is4, "hello")))
					heard(t, name, sink, netip.Addr{})
				}
			}
		})
	}
}
