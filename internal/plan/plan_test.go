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

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, prefix(s))
	}
	return out
}

// born is when the oldest objects were made.
var born = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// block is the block of a family that the i-th node of a cluster holds: a is 0, b is 1.
func block(node string, is4 bool) model.Block {
	i := int(node[0] - 'a')
	b := model.Block{
		Name: fmt.Sprintf("10.244.%d.0-24", i), CIDR: prefix(fmt.Sprintf("10.244.%d.0/24", i)), Node: node,
		Endpoints: []netip.Addr{addr(fmt.Sprintf("192.0.2.%d", i+1)), addr(fmt.Sprintf("2001:db8::%d", i+1))},
		State:     model.BlockActive, Created: born.Add(time.Duration(i) * time.Minute), Labels: map[string]string{"node": node},
	}
	if !is4 {
		b.Name, b.CIDR = fmt.Sprintf("fd00-10-%d-64", i), prefix(fmt.Sprintf("fd00:10:0:%d::/64", i))
	}
	return b
}

// cluster is dual-stack, of the nodes a, b and c, as a sees it. c is behind a router.
func cluster() model.Cluster {
	c := model.Cluster{
		Network: &model.Network{
			Ranges: prefixes("10.244.0.0/16", "fd00:10::/48"), BlockBits: [2]int{24, 64}, Attachment: model.PointToPoint, Mode: model.ModeAuto,
			VNI: 7466, Port: 8472, Masquerade: true,
		},
		Host: model.Host{
			Node: "a", VXLAN: true, BridgeNetfilter: true, IPv6: true,
			Endpoints: []model.Endpoint{
				{Addr: addr("192.0.2.1"), Link: "eth0", MTU: 1500},
				{Addr: addr("2001:db8::1"), Link: "eth0", MTU: 1500},
			},
			Routes: []model.UnderlayRoute{
				{Dst: prefix("0.0.0.0/0"), Via: addr("192.0.2.254"), Link: "eth0"},
				{Dst: prefix("192.0.2.0/31"), Link: "eth0"},
				{Dst: prefix("192.0.2.2/32"), Link: "eth0"},
				{Dst: prefix("2001:db8::/64"), Link: "eth0"},
			},
		},
	}
	for _, node := range []string{"a", "b", "c"} {
		c.Blocks = append(c.Blocks, block(node, true), block(node, false))
	}
	return c
}

// provenPaths is what is known where both paths work.
var provenPaths = model.Evidence{
	Taken:  model.PathOverlay,
	Proofs: []model.Proof{{Standing: model.Proven, Fresh: true}, {Standing: model.Proven, Fresh: true}},
}

// askRouted makes a network ask for routed paths, which are all proven.
func askRouted(c *model.Cluster) {
	c.Network.Mode = model.ModeRouted
	c.Evidence = map[netip.Prefix]model.Evidence{}
	for _, b := range c.Blocks {
		c.Evidence[b.CIDR] = provenPaths
	}
}

func pod(id string, last int) model.Pod {
	return model.Pod{
		ContainerID: id, IfName: "eth0", Attachment: model.PointToPoint, HostLink: "podn" + id,
		HostMAC: model.DeriveMAC("host" + id), PodMAC: model.DeriveMAC("pod" + id),
		Addrs:  []netip.Addr{addr(fmt.Sprintf("10.244.0.%d", last)), addr(fmt.Sprintf("fd00:10::%d", last))},
		Blocks: prefixes("10.244.0.0/24", "fd00:10::/64"), MTU: 1500,
	}
}

func routeTo(t *testing.T, s model.State, dst string) model.Route {
	t.Helper()
	i := slices.IndexFunc(s.Routes, func(r model.Route) bool { return r.Table == 0 && r.Dst == prefix(dst) })
	if i < 0 {
		t.Fatalf("no route to %s in %+v", dst, s.Routes)
	}
	return s.Routes[i]
}

func hasRoute(s model.State, dst string) bool {
	return slices.ContainsFunc(s.Routes, func(r model.Route) bool { return r.Table == 0 && r.Dst == prefix(dst) })
}

func linkNamed(t *testing.T, s model.State, name string) model.Link {
	t.Helper()
	i := slices.IndexFunc(s.Links, func(l model.Link) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("no link %s in %+v", name, s.Links)
	}
	return s.Links[i]
}

func pathTo(t *testing.T, p model.Plan, dst string) model.PathChoice {
	t.Helper()
	i := slices.IndexFunc(p.Paths, func(c model.PathChoice) bool { return c.Block == prefix(dst) })
	if i < 0 {
		t.Fatalf("no path to %s in %+v", dst, p.Paths)
	}
	return p.Paths[i]
}

// expectProblem fails unless there is a problem of the reason that names all the words.
func expectProblem(t *testing.T, problems []model.Problem, reason string, words ...string) model.Problem {
	t.Helper()
	for _, p := range problems {
		if p.Reason == reason && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(p.Message, w) }) {
			if !strings.HasSuffix(p.Message, ".") {
				t.Errorf("%q is no sentence", p.Message)
			}
			return p
		}
	}
	t.Errorf("no problem %s that names %v in %+v", reason, words, problems)
	return model.Problem{}
}

func expectNoProblems(t *testing.T, problems []model.Problem) {
	t.Helper()
	if len(problems) > 0 {
		t.Errorf("problems: %+v", problems)
	}
}

func TestWithoutNetworkNothingIsKnown(t *testing.T) {
	c := cluster()
	c.Network = nil
	p := Build(c)
	if !expectProblem(t, p.Problems, model.ReasonNoNetwork, "default").Fatal {
		t.Error("the problem is not fatal")
	}
	if !reflect.DeepEqual(p.State, model.State{}) {
		t.Errorf("state: %+v", p.State)
	}
}

func TestNodeWithoutBlockReachesOthersAndSaysSo(t *testing.T) {
	c := cluster()
	c.Blocks = slices.DeleteFunc(c.Blocks, func(b model.Block) bool { return b.Node == "a" })
	p := Build(c)
	if !expectProblem(t, p.Problems, model.ReasonNoBlock, "a").Fatal {
		t.Error("the problem is not fatal")
	}
	if r := routeTo(t, p.State, "10.244.1.0/24"); r.Link != "vxpodnet4" || r.Src.IsValid() {
		t.Errorf("route: %+v", r)
	}
}

func TestNodeWithoutEndpointSaysSo(t *testing.T) {
	c := cluster()
	c.Host.Endpoints = nil
	p := Build(c)
	if !expectProblem(t, p.Problems, model.ReasonNoEndpoint).Fatal {
		t.Error("the problem is not fatal")
	}
	if p.MTU != defaultMTU {
		t.Errorf("MTU %d", p.MTU)
	}
	if r := routeTo(t, p.State, "10.244.1.0/24"); !r.Unreachable {
		t.Errorf("route: %+v", r)
	}
}

func TestMTUOfPods(t *testing.T) {
	for name, c := range map[string]struct {
		network, link4, link6, want, tunnel4, tunnel6 int
		problem                                       string
	}{
		"is that of the interface":             {0, 1500, 1500, 1500, 1450, 1430, ""},
		"is that of the smaller interface":     {0, 9000, 1500, 1500, 8950, 1430, ""},
		"is what the network asks for":         {1400, 1500, 1500, 1400, 1450, 1430, ""},
		"is never more than the interface's":   {9000, 1500, 1500, 1500, 1450, 1430, "eth0"},
		"is reported where IPv6 cannot run":    {1270, 1500, 1500, 1270, 1450, 1430, "1280"},
		"leaves an overlay too small for IPv6": {0, 1300, 1300, 1300, 1250, 1230, "overlay has 1250"},
		"leaves one of two devices too small":  {0, 1500, 1300, 1300, 1450, 1230, ""},
	} {
		t.Run(name, func(t *testing.T) {
			in := cluster()
			in.Network.MTU = c.network
			in.Host.Endpoints[0].MTU, in.Host.Endpoints[1].MTU = c.link4, c.link6
			p := Build(in)
			if p.MTU != c.want {
				t.Errorf("pods have %d, want %d", p.MTU, c.want)
			}
			if four, six := linkNamed(t, p.State, "vxpodnet4").MTU, linkNamed(t, p.State, "vxpodnet6").MTU; four != c.tunnel4 || six != c.tunnel6 {
				t.Errorf("devices have %d and %d, want %d and %d", four, six, c.tunnel4, c.tunnel6)
			}
			if r := routeTo(t, p.State, "10.244.1.0/24"); r.MTU != min(c.want, c.tunnel4) {
				t.Errorf("the overlay's route has %d", r.MTU)
			}
			if c.problem == "" {
				expectNoProblems(t, p.Problems)
			} else {
				expectProblem(t, p.Problems, model.ReasonDegraded, c.problem)
			}
		})
	}
}

func TestSysctlsAreInTheOrderInWhichTheyMustBeSet(t *testing.T) {
	c := cluster()
	c.Host.AcceptRA = []string{"eth1", "eth0"}
	var lines []string
	for _, s := range Build(c).State.Sysctls {
		lines = append(lines, s.Key+"="+s.Value)
	}
	want := []string{
		"net/ipv4/ip_forward=1",
		"net/ipv6/conf/eth0/accept_ra=2",
		"net/ipv6/conf/eth1/accept_ra=2",
		"net/ipv6/conf/all/forwarding=1",
		"net/ipv4/conf/vxpodnet4/forwarding=1",
		"net/ipv6/conf/vxpodnet4/disable_ipv6=0",
		"net/ipv6/conf/vxpodnet4/forwarding=1",
		"net/ipv6/conf/vxpodnet4/accept_ra=0",
		"net/ipv4/conf/vxpodnet6/forwarding=1",
		"net/ipv6/conf/vxpodnet6/disable_ipv6=0",
		"net/ipv6/conf/vxpodnet6/forwarding=1",
		"net/ipv6/conf/vxpodnet6/accept_ra=0",
		"net/ipv4/conf/eth0/forwarding=1",
		"net/ipv4/conf/eth0/rp_filter=2",
		"net/ipv4/conf/vxpodnet4/rp_filter=2",
		"net/ipv4/conf/vxpodnet6/rp_filter=2",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("sysctls %v\nwant    %v", lines, want)
	}
}

func TestSysctlsOfOneFamilyLeaveTheOtherAlone(t *testing.T) {
	for ranges, other := range map[string]string{"10.244.0.0/16": "net/ipv6/", "fd00:10::/48": "net/ipv4/"} {
		c := cluster()
		c.Network.Ranges = prefixes(ranges)
		for _, s := range Build(c).State.Sysctls {
			if strings.HasPrefix(s.Key, other) {
				t.Errorf("ranges %s set %s", ranges, s.Key)
			}
		}
	}
}

func TestLinksThatPacketsPassForward(t *testing.T) {
	c := cluster()
	c.Network.Attachment = model.Bridge
	c.Host.Routes = append(c.Host.Routes, model.UnderlayRoute{Dst: prefix("192.0.2.3/32"), Link: "eth7"},
		model.UnderlayRoute{Dst: prefix("0.0.0.0/0"), Via: addr("203.0.113.1"), Link: "eth8"},
		model.UnderlayRoute{Dst: prefix("203.0.113.0/24"), Link: "eth9"})
	forwards := func(link string) bool {
		return slices.Contains(Build(c).State.Sysctls, model.Sysctl{Key: "net/ipv4/conf/" + link + "/forwarding", Value: "1"})
	}
	for link, want := range map[string]bool{"eth0": true, "eth7": true, "eth8": true, "eth9": false, "vxpodnet4": true, "podnet0": true} {
		if got := forwards(link); got != want {
			t.Errorf("%s forwards: %t, want %t", link, got, want)
		}
	}
}

// The kernel has no IPv6, nor its parameters, on a link that carries too little for it.
func TestLinkTooSmallForIPv6HasNoParametersOfIt(t *testing.T) {
	c := cluster()
	for i := range c.Host.Endpoints {
		c.Host.Endpoints[i].MTU = 1320
	}
	for _, s := range Build(c).State.Sysctls {
		if strings.HasPrefix(s.Key, "net/ipv6/conf/vxpodnet") {
			t.Errorf("sets %s on a link of 1270 bytes", s.Key)
		}
	}
}

func TestNodeRoutesToTheGatewayOnlyWhereItCouldNotSendToIt(t *testing.T) {
	c := cluster()
	if hasRoute(Build(c).State, "169.254.1.1/32") {
		t.Error("a route beside the node's own")
	}
	c.Host.Routes = slices.DeleteFunc(c.Host.Routes, func(r model.UnderlayRoute) bool { return r.Dst.Bits() == 0 })
	if r := routeTo(t, Build(c).State, "169.254.1.1/32"); r.Link != "eth0" {
		t.Errorf("without a route of the node's own: %+v", r)
	}
}

func TestLinksToOtherNodesFilterLoosely(t *testing.T) {
	c := cluster()
	c.Host.Routes = append(c.Host.Routes, model.UnderlayRoute{Dst: prefix("192.0.2.3/32"), Link: "eth7"})
	if !slices.Contains(Build(c).State.Sysctls, model.Sysctl{Key: "net/ipv4/conf/eth7/rp_filter", Value: "2"}) {
		t.Error("the link to node c filters as it did")
	}
}

func TestMissingModulesAreNamed(t *testing.T) {
	c := cluster()
	c.Host.Missing = []string{"nft_fib_inet", "nft_masq"}
	if !expectProblem(t, Build(c).Problems, model.ReasonModuleMissing, "modprobe -a nft_fib_inet nft_masq").Fatal {
		t.Error("the problem is not fatal")
	}
}

func TestNodeWithoutIPv6ServesIPv4(t *testing.T) {
	c := cluster()
	c.Host.IPv6 = false
	c.Host.Endpoints = c.Host.Endpoints[:1]
	p := Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "IPv6")
	if hasRoute(p.State, "fd00:10:0:1::/64") || slices.ContainsFunc(p.State.Rules, func(r model.Rule) bool { return r.IPv6 }) {
		t.Errorf("routes %+v, rules %+v", p.State.Routes, p.State.Rules)
	}
	if !hasRoute(p.State, "10.244.1.0/24") {
		t.Error("no IPv4 route")
	}
}

func TestMissingEndpointOfAFamilyIsAProblemOnlyWherePathsSuffer(t *testing.T) {
	c := cluster()
	c.Host.Endpoints = c.Host.Endpoints[:1]
	expectNoProblems(t, Build(c).Problems)
	askRouted(&c)
	p := Build(c)
	if expectProblem(t, p.Problems, model.ReasonNoEndpoint, "IPv6").Fatal {
		t.Error("the problem is fatal although the overlay works")
	}
	if got := pathTo(t, p, "fd00:10:0:1::/64").Path; got != model.PathOverlay {
		t.Errorf("path %s", got)
	}
}

func TestFamilyThatTheNodeCannotServeIsWithheld(t *testing.T) {
	c := cluster()
	if p := Build(c); p.Withheld != [2]bool{} {
		t.Errorf("withheld are %v", p.Withheld)
	}
	c.Host.IPv6 = false
	if p := Build(c); p.Withheld != [2]bool{false, true} {
		t.Errorf("without IPv6 withheld are %v", p.Withheld)
	}
	c.Network.Ranges = prefixes("10.244.0.0/16")
	if p := Build(c); p.Withheld != [2]bool{} {
		t.Errorf("without ranges of IPv6 withheld are %v", p.Withheld)
	}
}
