package plan

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

func TestOverlayRoutesGoThroughTheDeviceOfTheOuterFamily(t *testing.T) {
	for name, c := range map[string]struct {
		own, peer []int // indices of the endpoints of 192.0.2.* and 2001:db8::*
		device    string
		mtu       int
	}{
		"IPv4 where both have it":          {[]int{0, 1}, []int{0, 1}, "vxpodnet4", 1450},
		"IPv6 where the other has no more": {[]int{0, 1}, []int{1}, "vxpodnet6", 1430},
		"IPv6 where this one has no more":  {[]int{1}, []int{0, 1}, "vxpodnet6", 1430},
	} {
		t.Run(name, func(t *testing.T) {
			in := cluster()
			all := in.Host.Endpoints
			in.Host.Endpoints = nil
			for _, i := range c.own {
				in.Host.Endpoints = append(in.Host.Endpoints, all[i])
			}
			for i := range in.Blocks {
				if in.Blocks[i].Node != "b" {
					continue
				}
				both := in.Blocks[i].Endpoints
				in.Blocks[i].Endpoints = nil
				for _, e := range c.peer {
					in.Blocks[i].Endpoints = append(in.Blocks[i].Endpoints, both[e])
				}
			}
			s := Build(in).State
			mac := linkMAC("b", c.device)
			linkLocal := map[string]string{"vxpodnet4": "fe80::903a:e8ff:fe01:20b0", "vxpodnet6": "fe80::5cba:8aff:fe77:7fa0"}[c.device]
			for _, want := range []model.Route{
				{Dst: prefix("10.244.1.0/24"), Link: c.device, Via: addr("10.244.1.0"), OnLink: true, Src: addr("10.244.0.0"), MTU: c.mtu},
				{Dst: prefix("fd00:10:0:1::/64"), Link: c.device, Via: addr(linkLocal), OnLink: true, Src: addr("fd00:10::"), MTU: c.mtu},
			} {
				if got := routeTo(t, s, want.Dst.String()); got != want {
					t.Errorf("route %+v, want %+v", got, want)
				}
				if !slices.Contains(s.Neighbours, model.Neighbour{Link: c.device, Addr: want.Via, MAC: mac}) {
					t.Errorf("no neighbour %s on %s", want.Via, c.device)
				}
			}
			endpoint := addr("192.0.2.2")
			if c.device == "vxpodnet6" {
				endpoint = addr("2001:db8::2")
			}
			if !slices.Contains(s.FDB, model.FDBEntry{Link: c.device, MAC: mac, Endpoint: endpoint}) {
				t.Errorf("no entry for %s in %+v", mac, s.FDB)
			}
		})
	}
}

func TestNoCommonEndpointFamilyHasNoPath(t *testing.T) {
	c := cluster()
	c.Host.Endpoints = c.Host.Endpoints[:1]
	for i := range c.Blocks {
		if c.Blocks[i].Node == "b" {
			c.Blocks[i].Endpoints = c.Blocks[i].Endpoints[1:]
		}
	}
	p := Build(c)
	if got := pathTo(t, p, "10.244.1.0/24"); got.Path != model.PathDown || got.Message == "" {
		t.Errorf("path: %+v", got)
	}
	if r := routeTo(t, p.State, "10.244.1.0/24"); !r.Unreachable {
		t.Errorf("packets would follow the default route: %+v", r)
	}
}

func TestRoutedRoutesFollowTheUnderlay(t *testing.T) {
	c := cluster()
	askRouted(&c)
	s := Build(c).State
	for _, want := range []model.Route{
		{Dst: prefix("10.244.1.0/24"), Link: "eth0", Via: addr("192.0.2.2"), OnLink: true, Src: addr("10.244.0.0")},
		{Dst: prefix("10.244.2.0/24"), Link: "eth0", Via: addr("192.0.2.254"), OnLink: true, Src: addr("10.244.0.0")},
		{Dst: prefix("fd00:10:0:1::/64"), Link: "eth0", Via: addr("2001:db8::2"), OnLink: true, Src: addr("fd00:10::")},
	} {
		if got := routeTo(t, s, want.Dst.String()); got != want {
			t.Errorf("route %+v, want %+v", got, want)
		}
	}
}

func TestBothFormsAreAcceptedWhicheverPathIsTaken(t *testing.T) {
	overlay, routed := cluster(), cluster()
	askRouted(&routed)
	a, b := Build(overlay).State, Build(routed).State
	if len(a.Links) != 2 || len(a.FDB) != 2 || len(a.Neighbours) != 4 {
		t.Errorf("links %+v, FDB %+v, neighbours %+v", a.Links, a.FDB, a.Neighbours)
	}
	if !slices.Equal(a.Links, b.Links) || !slices.Equal(a.FDB, b.FDB) || !slices.Equal(a.Neighbours, b.Neighbours) {
		t.Error("a switch changes more than routes")
	}
}

func TestUnderlayIsReadAsTheKernelDoes(t *testing.T) {
	u := newUnderlay([]model.UnderlayRoute{
		{Dst: prefix("0.0.0.0/0"), Via: addr("192.0.2.254"), Link: "eth0"},
		{Dst: prefix("10.0.0.0/8"), Link: "slow", Metric: 200},
		{Dst: prefix("10.0.0.0/8"), Link: "fast", Metric: 100},
		{Dst: prefix("10.1.0.0/16"), Link: "longer", Metric: 900},
	})
	for to, link := range map[string]string{"8.8.8.8": "eth0", "10.2.0.1": "fast", "10.1.0.1": "longer"} {
		if r := u.lookup(addr(to)); len(r) != 1 || r[0].Link != link {
			t.Errorf("%s leaves by %+v, want %s", to, r, link)
		}
	}
	if r := u.lookup(addr("2001:db8::1")); r != nil {
		t.Errorf("IPv6 leaves by %+v", r)
	}
}

func TestRoutedIsImpossibleWithoutRoute(t *testing.T) {
	c := cluster()
	askRouted(&c)
	c.Host.Routes = nil
	p := Build(c)
	if got := pathTo(t, p, "10.244.1.0/24"); got.Path != model.PathOverlay || got.Want != model.ModeRouted || got.Message == "" {
		t.Errorf("path: %+v", got)
	}
}

func TestMissingVXLANIsNamedAndLeavesWhatIsRouted(t *testing.T) {
	c := cluster()
	c.Host.VXLAN = false
	p := Build(c)
	if expectProblem(t, p.Problems, model.ReasonModuleMissing, "vxlan").Fatal {
		t.Error("the problem is fatal")
	}
	if len(p.State.Links)+len(p.State.FDB) > 0 {
		t.Errorf("links %+v, FDB %+v", p.State.Links, p.State.FDB)
	}
	if got := pathTo(t, p, "10.244.1.0/24"); got.Path != model.PathRouted || got.Message == "" {
		t.Errorf("Auto: %+v", got)
	}
	if !slices.Contains(p.State.Addresses, model.Address{Link: "lo", Addr: prefix("10.244.0.0/32")}) {
		t.Errorf("the node has no address of its own: %+v", p.State.Addresses)
	}
	c.Network.Mode = model.ModeOverlay
	p = Build(c)
	if got := pathTo(t, p, "10.244.1.0/24"); got.Path != model.PathDown || !routeTo(t, p.State, "10.244.1.0/24").Unreachable {
		t.Errorf("Overlay: %+v", got)
	}
}

func TestAnotherNodeWithThisNodesEndpointHasNoPath(t *testing.T) {
	c := cluster()
	for i := range c.Blocks {
		if c.Blocks[i].Node == "b" {
			c.Blocks[i].Endpoints = c.Blocks[0].Endpoints
		}
	}
	if got := pathTo(t, Build(c), "10.244.1.0/24"); got.Path != model.PathDown {
		t.Errorf("path: %+v", got)
	}
}

func TestOwnBlocksAreUnreachableBeyondTheirPods(t *testing.T) {
	c := cluster()
	c.Pods = []model.Pod{pod("x", 2)}
	s := Build(c).State
	for _, own := range []string{"10.244.0.0/24", "fd00:10::/64"} {
		if !routeTo(t, s, own).Unreachable {
			t.Errorf("%s: %+v", own, routeTo(t, s, own))
		}
	}
	if r := routeTo(t, s, "10.244.0.2/32"); r != (model.Route{Dst: prefix("10.244.0.2/32"), Link: "podnx"}) {
		t.Errorf("route to the pod: %+v", r)
	}
}

func TestReleasedBlocksGetNoRoutesButMayStillSend(t *testing.T) {
	c := cluster()
	for i := range c.Blocks {
		if c.Blocks[i].Node == "b" {
			c.Blocks[i].State = model.BlockReleased
		}
	}
	p := Build(c)
	if hasRoute(p.State, "10.244.1.0/24") || len(p.State.FDB) != 1 {
		t.Errorf("routes %+v, FDB %+v", p.State.Routes, p.State.FDB)
	}
	if !slices.Contains(elementsOf(t, p.State, "inet", "endpoints4"), "192.0.2.2") {
		t.Error("its endpoint is no longer accepted")
	}
}

func TestNodeAddressIsThatOfTheOldestActiveBlock(t *testing.T) {
	source := func(c model.Cluster) netip.Addr {
		s := Build(c).State
		i := slices.IndexFunc(s.Routes, func(r model.Route) bool { return r.Src.IsValid() && r.Src.Is4() })
		if i < 0 {
			t.Fatal("no route has a source")
		}
		return s.Routes[i].Src
	}
	c := cluster()
	younger := block("a", true)
	younger.Name, younger.CIDR, younger.Created = "younger", prefix("10.244.200.0/24"), born.Add(time.Hour)
	c.Blocks[0].CIDR = prefix("10.244.250.0/24")
	c.Blocks = append(c.Blocks, younger)
	if got := source(c); got != netip.MustParseAddr("10.244.250.0") {
		t.Errorf("with a younger block of a lower CIDR: %v", got)
	}
	c.Blocks[0].State = model.BlockDraining
	if got := source(c); got != netip.MustParseAddr("10.244.200.0") {
		t.Errorf("with the older one draining: %v", got)
	}
	for _, a := range []model.Address{
		{Link: "vxpodnet4", Addr: prefix("10.244.250.0/32")}, {Link: "vxpodnet4", Addr: prefix("10.244.200.0/32")},
	} {
		if !slices.Contains(Build(c).State.Addresses, a) {
			t.Errorf("%v is gone while its block is still held: connections of the node have it", a)
		}
	}
	c.Blocks[len(c.Blocks)-1].State = model.BlockDraining
	if got := source(c); got != netip.MustParseAddr("10.244.250.0") {
		t.Errorf("with both draining: %v", got)
	}
	c.Host.Endpoints = c.Host.Endpoints[1:]
	home := model.Address{Link: "vxpodnet6", Addr: prefix("10.244.250.0/32")}
	if got := Build(c).State.Addresses; !slices.Contains(got, home) {
		t.Errorf("without an IPv4 endpoint: %v", got)
	}
}

func TestVanishedBlockIsServedAndSaid(t *testing.T) {
	c := cluster()
	before := Build(c)
	for i := range c.Blocks {
		if c.Blocks[i].Node == c.Host.Node {
			c.Blocks[i].State, c.Blocks[i].Vanished = model.BlockDraining, true
		}
	}
	after := Build(c)
	if !reflect.DeepEqual(before.State, after.State) {
		t.Error("the kernel shall be another one")
	}
	if len(after.Problems) == 0 || !strings.Contains(after.Problems[0].Message, "disappeared without being released") {
		t.Errorf("problems %+v", after.Problems)
	}
}

func TestDrainingBlockKeepsServing(t *testing.T) {
	c := cluster()
	for i := range c.Blocks {
		c.Blocks[i].State = model.BlockDraining
	}
	p := Build(c)
	expectNoProblems(t, p.Problems)
	if !hasRoute(p.State, "10.244.0.0/24") || !hasRoute(p.State, "10.244.1.0/24") || len(p.Blocks) != 2 {
		t.Errorf("routes %+v, blocks %+v", p.State.Routes, p.Blocks)
	}
}

func TestRulesAreThoseOfTheRangesFamilies(t *testing.T) {
	c := cluster()
	of := func(ipv6 bool) []model.Rule {
		return []model.Rule{
			{IPv6: ipv6, Priority: 511, Table: 7467, Mark: 0x74660001, In: "podnprobe"},
			{IPv6: ipv6, Priority: 511, Table: 7468, Mark: 0x74660002, In: "podnprobe"},
			{IPv6: ipv6, Priority: 512, Table: 7466},
		}
	}
	if got := Build(c).State.Rules; !slices.Equal(got, append(of(false), of(true)...)) {
		t.Errorf("both: %+v", got)
	}
	c.Network.Ranges = c.Network.Ranges[1:]
	if got := Build(c).State.Rules; !slices.Equal(got, of(true)) {
		t.Errorf("IPv6: %+v", got)
	}
}

func TestBridgeHoldsTheGatewaysOfAllOwnBlocks(t *testing.T) {
	c := cluster()
	c.Network.Attachment = model.Bridge
	second := block("a", true)
	second.Name, second.CIDR, second.State, second.Created = "second", prefix("10.244.9.0/25"), model.BlockDraining, born.Add(time.Hour)
	c.Blocks = append(c.Blocks, second)
	p := Build(c)
	expectNoProblems(t, p.Problems)
	bridge := linkNamed(t, p.State, "podnet0")
	if bridge.Kind != model.LinkBridge || bridge.MTU != 1500 || bridge.MAC == (model.MAC{}) {
		t.Errorf("bridge: %+v", bridge)
	}
	for _, gateway := range []string{"10.244.0.1/24", "10.244.9.1/25", "fd00:10::1/64"} {
		if !slices.Contains(p.State.Addresses, model.Address{Link: "podnet0", Addr: prefix(gateway)}) {
			t.Errorf("no %s in %+v", gateway, p.State.Addresses)
		}
	}
}

// Policies and services do not hold on a bridge whose frames nobody else sees: no pod may
// come before they do.
func TestBridgeWithoutNetfilterKeepsPodsWaiting(t *testing.T) {
	c := cluster()
	c.Network.Attachment, c.Host.BridgeNetfilter = model.Bridge, false
	p := Build(c)
	if !expectProblem(t, p.Problems, model.ReasonModuleMissing, "modprobe br_netfilter").Fatal {
		t.Error("the problem is not fatal")
	}
	for _, s := range p.State.Sysctls {
		if s.Key == "net/bridge/bridge-nf-call-iptables" {
			t.Error("sets what the kernel does not have")
		}
	}
	// New pods have nothing to do with a bridge on which former ones hang.
	onBridge := pod("x", 2)
	onBridge.Attachment = model.Bridge
	c.Network.Attachment, c.Pods = model.PointToPoint, []model.Pod{onBridge}
	if expectProblem(t, Build(c).Problems, model.ReasonModuleMissing, "modprobe br_netfilter").Fatal {
		t.Error("pods on links of their own wait for it")
	}
}

func TestMACsDifferBetweenNodesAndLinks(t *testing.T) {
	seen := map[model.MAC]bool{}
	for _, node := range []string{"a", "b"} {
		for _, link := range []string{"vxpodnet4", "vxpodnet6", "podnet0"} {
			seen[linkMAC(node, link)] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d different ones of 6", len(seen))
	}
	if own := linkNamed(t, Build(cluster()).State, "vxpodnet4"); own.MAC != linkMAC("a", "vxpodnet4") ||
		own.Local != addr("192.0.2.1") || own.Underlay != "eth0" || own.VNI != 7466 || own.Port != 8472 {
		t.Errorf("device: %+v", own)
	}
}

// Whichever path is in force, probes of each kind find their own, and nothing else.
func TestProbesHaveRoutesOfTheirOwn(t *testing.T) {
	c := cluster()
	askRouted(&c)
	in := func(table int) map[netip.Prefix]model.Route {
		routes := map[netip.Prefix]model.Route{}
		for _, r := range Build(c).State.Routes {
			if r.Table == table {
				routes[r.Dst] = r
			}
		}
		return routes
	}
	for _, family := range []struct{ all, block, via string }{
		{"0.0.0.0/0", "10.244.1.0/24", "192.0.2.2"}, {"::/0", "fd00:10:0:1::/64", "2001:db8::2"},
	} {
		for _, table := range []int{model.ProbeRoutedTable, model.ProbeOverlayTable} {
			if !in(table)[prefix(family.all)].Unreachable {
				t.Errorf("a probe without a route of table %d takes another table's", table)
			}
		}
		if r := in(model.ProbeRoutedTable)[prefix(family.block)]; r.Link != "eth0" || r.Via != addr(family.via) || r.MTU != 0 {
			t.Errorf("routed probes take %+v", r)
		}
		if r := in(model.ProbeOverlayTable)[prefix(family.block)]; r.Link != "vxpodnet4" || r.MTU != 1450 {
			t.Errorf("probes of the overlay take %+v", r)
		}
	}
	c.Host.VXLAN = false
	if r, ok := in(model.ProbeOverlayTable)[prefix("10.244.1.0/24")]; ok {
		t.Errorf("there is no overlay, and its probes take %+v", r)
	}
}

func TestRouteHasTheMTUThatIsProven(t *testing.T) {
	c := cluster()
	askRouted(&c)
	for _, reduced := range []model.Path{model.PathRouted, model.PathOverlay} {
		e := provenPaths
		e.Proofs[0].MTU, e.Proofs[1].MTU = 1400, 1350
		c.Evidence[prefix("10.244.1.0/24")] = e
		want := 1400
		if reduced == model.PathOverlay {
			c.Network.Mode, want = model.ModeOverlay, 1350
		}
		p := Build(c)
		if r := routeTo(t, p.State, "10.244.1.0/24"); r.MTU != want {
			t.Errorf("%s: %+v, want an MTU of %d", reduced, r, want)
		}
		if got := pathTo(t, p, "10.244.1.0/24"); got.Diverges || !strings.Contains(got.Message, fmt.Sprint(want)) {
			t.Errorf("%s: %+v", reduced, got)
		}
	}
}
