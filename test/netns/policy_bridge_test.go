package netns

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// Pods of a bridge have addresses that mean something on it alone, and policies hold for
// them too.
func TestAddressesOfTheBridgeAloneAreNoWayAround(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.Bridge, mode: model.ModeRouted, families: dual})
	a := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "a"})
	b := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "b"})
	toB := linkLocal(t, b)
	pings := func(to string) bool {
		return a.Try(func() error { return exec.Command("ping", "-6", "-c1", "-W1", to).Run() }) == nil
	}
	hears := listen(t, a, b, netip.AddrPortFrom(toB, 9999))
	hearsAll := listen(t, a, b, netip.AddrPortFrom(netip.MustParseAddr("ff02::1").WithZone(toB.Zone()), 9998))
	deny := func(types ...model.PolicyType) model.NetworkPolicy {
		return model.NetworkPolicy{Namespace: "red", Name: "b", Pods: model.Selector{{Key: "app", Operator: model.In, Values: []string{"b"}}}, Types: types}
	}
	c.enforce(t)
	for range 20 { // Duplicate address detection takes its time.
		if pings(toB.String()) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if !pings(toB.String()) || !hears(patience) || !hearsAll(patience) {
		t.Fatal("without a policy the address is not reached")
	}
	for _, types := range [][]model.PolicyType{{model.PolicyIngress}, {model.PolicyEgress}} {
		c.objects.NetworkPolicies = []model.NetworkPolicy{deny(types...)}
		c.enforce(t)
		if types[0] == model.PolicyIngress && (hears(soon) || hearsAll(soon)) {
			t.Errorf("datagrams to %s, or to all on the bridge, are heard", toB)
		}
		if pings(toB.String()) {
			t.Errorf("%v denied: %s answers", types, toB)
		}
	}
	// Without neighbour discovery nobody would be reached.
	c.objects.NetworkPolicies[0].Ingress = []model.PolicyRule{{}}
	c.objects.NetworkPolicies[0].Types = nil
	c.enforce(t)
	for _, p := range []*pod{a, b} {
		p.Run(t, "ip", "-6", "neigh", "flush", "dev", "eth0")
	}
	if !connects(a.Namespace, "tcp", b.Addrs[1], port, patience) {
		t.Error("what the policy allows is not reached")
	}
	c.noWayByMAC(t, a, b)
}

// noWayByMAC checks that what has the MAC of another pod, and an address that is not that
// pod's, does not come to it: policies go by addresses.
func (c *policed) noWayByMAC(t *testing.T, a, b *pod) {
	t.Helper()
	elsewhere := netip.MustParseAddr("8.8.8.8")
	policy := func(app string, kind model.PolicyType) model.NetworkPolicy {
		return model.NetworkPolicy{
			Namespace: "red", Name: app, Pods: model.Selector{{Key: "app", Operator: model.In, Values: []string{app}}}, Types: []model.PolicyType{kind},
		}
	}
	noIngress, oneEgress := policy("b", model.PolicyIngress), policy("a", model.PolicyEgress)
	oneEgress.Egress = []model.PolicyRule{{Peers: []model.PolicyPeer{{Block: &model.IPBlock{CIDR: netip.PrefixFrom(elsewhere, 32)}}}}}
	datagram := func(to netip.Addr) []byte { return topology.Datagram(a.addr(to.Is4()), to, sinkPort, []byte("around")) }
	for _, x := range []struct {
		what   string
		policy *model.NetworkPolicy
		packet []byte
	}{
		{"a datagram to all systems", &noIngress, datagram(netip.MustParseAddr("224.0.0.1"))},
		{"a datagram to all", &noIngress, datagram(netip.MustParseAddr("255.255.255.255"))},
		{"a datagram to all of the block", &noIngress, datagram(lastOf(a.Blocks[0]))},
		{"a datagram to all nodes of IPv6", &noIngress, datagram(netip.MustParseAddr("ff02::1"))},
		{"a ping from nobody", &oneEgress, topology.EchoRequest(netip.IPv6Unspecified(), b.addr(false), []byte("around"))},
		{"a datagram to elsewhere", &oneEgress, datagram(elsewhere)},
	} {
		c.objects.NetworkPolicies = []model.NetworkPolicy{*x.policy}
		c.enforce(t)
		protocol := packetProtocol(x.packet[0]>>4 == 4)
		comes := func(expected bool) bool {
			t.Helper()
			frames := b.NewFrames(t, "eth0", protocol)
			a.SendFrame(t, "eth0", topology.Frame(b.PodMAC, a.PodMAC, protocol, x.packet))
			return frames.Heard(expected, func(frame []byte) bool { return bytes.Contains(frame, []byte("around")) })
		}
		if comes(false) {
			t.Errorf("%s comes to the pod whose MAC it has", x.what)
		}
		a.node.withoutFirewall(t, func() {
			if !comes(true) {
				t.Errorf("without the firewall %s does not come, so this shows nothing", x.what)
			}
		})
	}
}

// lastOf is the last address of a block of IPv4, to which a subnet's broadcasts go.
func lastOf(block netip.Prefix) netip.Addr {
	last := block.Addr().As4()
	for i := block.Bits(); i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(last)
}

// listen listens in a pod for datagrams from another. It returns what sends one, and says
// whether it was heard.
func listen(t *testing.T, from, in *pod, at netip.AddrPort) func(within time.Duration) bool {
	t.Helper()
	var server net.PacketConn
	if err := in.Try(func() (err error) {
		server, err = net.ListenPacket("udp6", net.JoinHostPort("::", fmt.Sprint(at.Port())))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return func(within time.Duration) bool {
		t.Helper()
		var client net.Conn
		if err := from.Try(func() (err error) {
			// What pods send from their link-local addresses is dropped as a forgery.
			dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addrs[1], 0))}
			client, err = dialer.Dial("udp6", at.String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := server.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, _, err := server.ReadFrom(make([]byte, 100))
		return err == nil
	}
}

// linkLocal is a pod's link-local address, with the number of its link as the zone: Go
// keeps numbers of names whatever the namespace. All pods' links have the same number.
func linkLocal(t *testing.T, p *pod) netip.Addr {
	t.Helper()
	words := strings.Fields(p.Run(t, "ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"))
	for _, word := range words {
		if prefix, err := netip.ParsePrefix(word); err == nil {
			return prefix.Addr().WithZone(strings.TrimSuffix(words[0], ":"))
		}
	}
	t.Fatalf("no link-local address in %q", words)
	return netip.Addr{}
}
