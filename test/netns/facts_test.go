package netns

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

func (n *node) facts(t *testing.T) host.Facts {
	t.Helper()
	var facts host.Facts
	n.Do(t, func() error {
		var err error
		facts, err = n.host.Facts(context.Background())
		return err
	})
	return facts
}

func TestFactsAreOfForeignThingsAlone(t *testing.T) {
	c := newCluster(t, options{nodes: 2, attachment: model.Bridge, mode: model.ModeOverlay, families: dual})
	n := c.nodes[0]
	n.addPod(t)
	n.Script(t, `
		ip link add second type veth peer name other
		ip link set second up mtu 1400
		ip addr add 203.0.113.9/24 dev second
		ip addr add 203.0.113.10/24 dev second
		ip addr add 2001:db8::9/64 dev second nodad
		ip addr add 198.51.100.1/32 dev lo
		ip route add 192.0.2.0/24 via 192.168.77.200 metric 7
		ip route add blackhole 192.0.3.0/24
		ip route add 192.0.4.0/24 nexthop via 192.168.77.201 nexthop via 192.168.77.202
		ip -6 route add 2001:db8:1::/48 via fd77::c8
		ip route add 192.0.5.0/24 via inet6 fe80::1 dev eth0
		ip route add 192.0.6.0/24 nexthop via inet6 fe80::1 dev eth0 nexthop via 192.168.77.203
	`)
	f := n.facts(t)
	var names []string
	for _, l := range f.Links {
		names = append(names, l.Name)
		if l.Name == "second" {
			want := []netip.Prefix{
				netip.MustParsePrefix("203.0.113.9/24"), netip.MustParsePrefix("203.0.113.10/24"), netip.MustParsePrefix("2001:db8::9/64"),
			}
			if !l.Up || l.MTU != 1400 || !slices.Equal(l.Addrs, want) {
				t.Errorf("%+v, want addresses %v", l, want)
			}
		}
		if l.Name == "lo" && !slices.Equal(l.Addrs, []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}) {
			t.Errorf("%+v, want only the address that is not the loopback's", l)
		}
	}
	slices.Sort(names)
	if want := []string{"eth0", "lo", "other", "second"}; !slices.Equal(names, want) {
		t.Errorf("links %v, want %v", names, want)
	}
	for _, want := range []model.UnderlayRoute{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.77.1"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("192.168.77.0/24"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("192.168.77.200"), Link: "eth0", Metric: 7},
		{Dst: netip.MustParsePrefix("192.0.4.0/24"), Via: netip.MustParseAddr("192.168.77.201"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("192.0.4.0/24"), Via: netip.MustParseAddr("192.168.77.202"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("192.0.5.0/24"), Via: netip.MustParseAddr("fe80::1"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("192.0.6.0/24"), Via: netip.MustParseAddr("fe80::1"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("192.0.6.0/24"), Via: netip.MustParseAddr("192.168.77.203"), Link: "eth0"},
		{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd77::1"), Link: "eth0", Metric: 1024},
		{Dst: netip.MustParsePrefix("2001:db8:1::/48"), Via: netip.MustParseAddr("fd77::c8"), Link: "eth0", Metric: 1024},
	} {
		if !slices.Contains(f.Routes, want) {
			t.Errorf("routes %+v lack %+v", f.Routes, want)
		}
	}
	for _, r := range f.Routes {
		if r.Dst.Addr() == netip.MustParseAddr("192.0.3.0") || netip.MustParsePrefix("10.244.0.0/16").Contains(r.Dst.Addr()) {
			t.Errorf("route %+v is no unicast route of others", r)
		}
	}
	if len(f.Missing) > 0 {
		t.Errorf("missing %v on a kernel that carries podnet", f.Missing)
	}
	if !f.VXLAN || !f.BridgeNetfilter || !f.IPv6 {
		t.Errorf("VXLAN %t, bridge netfilter %t, IPv6 %t, want all", f.VXLAN, f.BridgeNetfilter, f.IPv6)
	}
}

func TestRouterAdvertisementsStayAccepted(t *testing.T) {
	c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeOverlay, families: dual})
	n := c.nodes[0]
	for what, restart := range map[string]bool{"the first agent": false, "a restarted one": true} {
		if restart {
			n.restart(t)
			n.sync(t)
		}
		if got := n.facts(t).AcceptRA; !slices.Equal(got, []string{"eth0", "default"}) {
			t.Errorf("%s finds router advertisements accepted on %v, want eth0 and default", what, got)
		}
		if got := n.ReadSysctl(t, "net/ipv6/conf/eth0/accept_ra"); got != "2" {
			t.Errorf("%s: accept_ra is %s, want 2", what, got)
		}
	}
	// What comes by podnet's own links configures nothing.
	p := n.addPod(t)
	for _, link := range []string{p.HostLink, model.VXLANLink4, model.VXLANLink6} {
		if got := n.ReadSysctl(t, "net/ipv6/conf/"+link+"/accept_ra"); got != "0" {
			t.Errorf("accept_ra of %s is %s, want 0", link, got)
		}
	}
	// Who forwarded before did not accept them, and does not from now on.
	other := &node{cluster: c, Host: c.underlay.AddHost(t, "router", dual), stateDir: t.TempDir()}
	other.restart(t)
	other.Sysctl(t, "net/ipv6/conf/all/forwarding", "1")
	if got := other.facts(t).AcceptRA; len(got) > 0 {
		t.Errorf("a node that forwarded before accepted router advertisements on %v", got)
	}
}

// An interface that comes when the node forwards already has its default route from its
// router, as on a node without pods.
func TestInterfaceThatComesLaterTakesRouterAdvertisements(t *testing.T) {
	t.Parallel()
	c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeOverlay, families: dual})
	n := c.nodes[0]
	n.Script(t, `
		ip link add eth1 link eth0 type macvlan mode bridge
		ip link set eth1 up
	`)
	router := model.DeriveMAC("router")
	from, to := netip.MustParseAddr("fe80::7777"), netip.MustParseAddr("ff02::1")
	c.underlay.SendFrame(t, "fabric", topology.Frame([6]byte{0x33, 0x33, 0, 0, 0, 1}, router, topology.EtherIPv6,
		topology.RouterAdvertisement(router, from, to)))
	gomega.NewWithT(t).Eventually(func() string {
		return n.Run(t, "ip", "-6", "route", "show", "default", "dev", "eth1")
	}, 10*time.Second, 20*time.Millisecond).Should(gomega.ContainSubstring(from.String()))
}

func TestLaterInterfacesTakeRouterAdvertisementsAfterAnUpgradeToo(t *testing.T) {
	c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeOverlay, families: dual})
	n := c.nodes[0]
	// An earlier version left the parameter as it was, and turned forwarding on.
	file := filepath.Join(n.stateDir, "sysctls.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var previous map[string]string
	if err := json.Unmarshal(text, &previous); err != nil {
		t.Fatal(err)
	}
	const key = "net/ipv6/conf/default/accept_ra"
	if previous[key] != "1" {
		t.Fatalf("the values from before are %v", previous)
	}
	delete(previous, key)
	if text, err = json.Marshal(previous); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	n.Sysctl(t, key, "1")
	n.restart(t)
	n.sync(t)
	if got := n.ReadSysctl(t, key); got != "2" {
		t.Errorf("%s is %s, want 2", key, got)
	}
}

func TestNodeWithoutIPv6(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 0, attachment: attachment, mode: model.ModeOverlay, families: onlyIPv4})
			c.addNode(t)
			for _, n := range c.nodes {
				n.Sysctl(t, "net/ipv6/conf/all/disable_ipv6", "1")
			}
			c.sync(t)
			if c.nodes[0].facts(t).IPv6 {
				t.Error("IPv6 is found although it is turned off")
			}
			reaches(t, c.nodes[0].addPod(t), c.nodes[0].addPod(t), c.nodes[1].addPod(t))
			c.nodes[0].checkState(t)
		})
	}
}
