package plan

import (
	"fmt"
	"math/rand/v2"
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
	Proofs: [2]model.Proof{{Standing: model.Proven, Fresh: true}, {Standing: model.Proven, Fresh: true}},
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
		"leaves an overlay too small for IPv6": {0, 1500, 1300, 1300, 1450, 1230, "1280"},
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

func TestLinksToOtherNodesFilterLoosely(t *testing.T) {
	c := cluster()
	c.Host.Routes = append(c.Host.Routes, model.UnderlayRoute{Dst: prefix("192.0.2.3/32"), Link: "eth7"})
	if !slices.Contains(Build(c).State.Sysctls, model.Sysctl{Key: "net/ipv4/conf/eth7/rp_filter", Value: "2"}) {
		t.Error("the link to node c filters as it did")
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

// shuffled returns a copy with all lists in another order.
func shuffled(r *rand.Rand, c model.Cluster) model.Cluster {
	network := *c.Network
	network.Ranges, network.MasqueradeExclude = mixed(r, network.Ranges), mixed(r, network.MasqueradeExclude)
	c.Network = &network
	c.Blocks, c.RouteModes, c.Pods = mixed(r, c.Blocks), mixed(r, c.RouteModes), mixed(r, c.Pods)
	c.Host.Endpoints, c.Host.Routes, c.Host.AcceptRA = mixed(r, c.Host.Endpoints), mixed(r, c.Host.Routes), mixed(r, c.Host.AcceptRA)
	return c
}

func mixed[T any](r *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	r.Shuffle(len(list), reflect.Swapper(list))
	return list
}

// random returns a cluster of which much is at odds.
func random(r *rand.Rand) model.Cluster {
	c := cluster()
	chance := func() bool { return r.IntN(3) == 0 }
	for i := range c.Blocks {
		c.Blocks[i].State = []model.BlockState{model.BlockActive, model.BlockActive, model.BlockDraining, model.BlockReleased}[r.IntN(4)]
		c.Blocks[i].Created = born.Add(time.Duration(r.IntN(3)) * time.Minute)
		if chance() {
			c.Blocks[i].Endpoints = c.Blocks[i].Endpoints[r.IntN(3):]
		}
		if chance() {
			other := c.Blocks[i]
			other.CIDR = netip.PrefixFrom(other.CIDR.Addr(), other.CIDR.Bits()-2+r.IntN(5)).Masked()
			other.Name, other.Node = fmt.Sprintf("extra-%d", i), []string{"a", "b", "d"}[r.IntN(3)]
			c.Blocks = append(c.Blocks, other)
		}
	}
	for i := range 4 {
		m := model.RouteMode{
			Name: fmt.Sprint(i), Priority: int32(r.IntN(2)), Created: born.Add(time.Duration(r.IntN(2)) * time.Hour),
			Mode: []model.Mode{model.ModeAuto, model.ModeRouted, model.ModeOverlay}[r.IntN(3)],
		}
		for range 1 + r.IntN(2) {
			m.Between = append(m.Between, model.Selector{{Key: "node", Operator: model.In, Values: []string{"a", []string{"b", "c"}[r.IntN(2)]}}})
		}
		c.RouteModes = append(c.RouteModes, m)
	}
	for i := range 6 {
		p := pod(fmt.Sprint(i), 2+i)
		if chance() {
			p.Attachment = model.Bridge
		}
		if chance() {
			p.HostPorts = []model.HostPort{{Host: 80, Pod: 8080, Protocol: "tcp"}, {HostIP: addr("192.0.2.1"), Host: 53, Pod: 53, Protocol: "udp"}}
		}
		c.Pods = append(c.Pods, p)
	}
	c.Network.Mode = []model.Mode{model.ModeAuto, model.ModeRouted, model.ModeOverlay}[r.IntN(3)]
	c.Evidence = map[netip.Prefix]model.Evidence{}
	for _, b := range c.Blocks {
		e := model.Evidence{Taken: []model.Path{"", model.PathRouted, model.PathOverlay}[r.IntN(3)]}
		for i := range e.Proofs {
			e.Proofs[i] = model.Proof{
				Standing: []model.Standing{model.Unproven, model.Proven, model.Suspect, model.Failed}[r.IntN(4)],
				Fresh:    chance(), Silent: chance(), MTU: 1400 * r.IntN(2),
			}
		}
		c.Evidence[b.CIDR] = e
	}
	c.Network.MasqueradeExclude = prefixes("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "fd00::/8")
	if chance() {
		c.Network.Attachment = model.Bridge
	}
	c.Host.VXLAN, c.Host.BridgeNetfilter, c.Host.IPv6 = !chance(), !chance(), !chance()
	c.Host.AcceptRA = []string{"eth1", "eth0"}
	c.Host.Routes = append(c.Host.Routes,
		model.UnderlayRoute{Dst: prefix("192.0.2.3/32"), Link: "eth1", Metric: r.IntN(2)},
		model.UnderlayRoute{Dst: prefix("192.0.2.3/32"), Link: "eth2", Metric: r.IntN(2)})
	return c
}

func TestPlanDoesNotDependOnTheOrderOfItsInputs(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := random(r)
		first := fmt.Sprintf("%+v", Build(c))
		if second := fmt.Sprintf("%+v", Build(shuffled(r, c))); first != second {
			t.Fatalf("seed %d: %s", seed, difference(first, second))
		}
	}
}

// difference cuts out where two texts begin to differ.
func difference(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	cut := func(s string) string { return s[max(i-80, 0):min(i+80, len(s))] }
	return fmt.Sprintf("%q and %q", cut(a), cut(b))
}

func TestInputsAreNotModified(t *testing.T) {
	for seed := range uint64(50) {
		c := random(rand.New(rand.NewPCG(seed, 2)))
		before := fmt.Sprintf("%+v %+v", *c.Network, c)
		Build(c)
		for _, p := range c.Pods {
			PodParts(c, p)
		}
		if after := fmt.Sprintf("%+v %+v", *c.Network, c); before != after {
			t.Fatalf("seed %d: %s", seed, difference(before, after))
		}
	}
}

// A plan that contradicts itself would never come to rest.
func TestEveryObjectIsPlannedOnce(t *testing.T) {
	for seed := range uint64(300) {
		s := Build(random(rand.New(rand.NewPCG(seed, 3)))).State
		seen := map[string]bool{}
		once := func(format string, args ...any) {
			key := fmt.Sprintf(format, args...)
			if seen[key] {
				t.Errorf("seed %d: %s is there twice", seed, key)
			}
			seen[key] = true
		}
		sources := map[netip.Addr]bool{{}: true}
		for _, a := range s.Addresses {
			once("address %v", a)
			sources[a.Addr.Addr()] = true
		}
		for _, r := range s.Routes {
			once("route %s of table %d", r.Dst, r.Table)
			if !sources[r.Src] {
				t.Errorf("seed %d: the node has not the source of %+v", seed, r)
			}
		}
		for _, l := range s.Links {
			once("link %s", l.Name)
		}
		for _, n := range s.Neighbours {
			once("neighbour %s %s", n.Link, n.Addr)
		}
		for _, e := range s.FDB {
			once("entry %s %s", e.Link, e.MAC)
		}
		for _, p := range s.Sysctls {
			once("sysctl %s", p.Key)
		}
		for _, table := range s.Firewall {
			for _, set := range table.Sets {
				once("set %s %s", table.Family, set.Name)
				for _, e := range set.Elements {
					once("element %s %s %v", table.Family, set.Name, e.Key)
				}
			}
		}
	}
}

// large is a cluster of n nodes with two blocks each.
func large(n int) model.Cluster {
	c := cluster()
	c.Blocks = nil
	c.Network.Ranges = prefixes("10.0.0.0/8", "fd00:10::/40")
	for i := range n {
		name := fmt.Sprintf("node-%04d", i)
		b := model.Block{
			Node: name, State: model.BlockActive, Created: born.Add(time.Duration(i) * time.Second),
			Endpoints: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})},
			Labels:    map[string]string{"rack": fmt.Sprint(i % 100), "zone": fmt.Sprint(i % 3)},
		}
		b.Name, b.CIDR = name+"-4", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		c.Blocks = append(c.Blocks, b)
		b.Name, b.CIDR = name+"-6", netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x10, 0, 0, byte(i >> 8), byte(i)}), 64)
		c.Blocks = append(c.Blocks, b)
	}
	c.Host.Node = "node-0000"
	c.Host.Endpoints = []model.Endpoint{{Addr: addr("172.16.0.0"), Link: "eth0", MTU: 1500}}
	c.Host.Routes = []model.UnderlayRoute{{Dst: prefix("172.16.0.0/12"), Link: "eth0"}}
	for i := range 50 {
		c.RouteModes = append(c.RouteModes, model.RouteMode{
			Name: fmt.Sprint(i), Mode: model.ModeRouted, Priority: int32(i),
			Between: []model.Selector{{{Key: "rack", Operator: model.In, Values: []string{fmt.Sprint(i)}}}},
		})
	}
	for i := range 200 {
		c.Pods = append(c.Pods, pod(fmt.Sprint(i), 2+i))
	}
	return c
}

func TestLargeClusterIsPlannedInTime(t *testing.T) {
	c := large(5000)
	start := time.Now() //nolint:forbidigo // The time that it takes is what is tested.
	p := Build(c)
	if took := time.Since(start); took > 2*time.Second { //nolint:forbidigo // As above.
		t.Errorf("5,000 nodes took %s", took)
	}
	if len(p.Paths) != 2*4999 {
		t.Errorf("%d paths", len(p.Paths))
	}
	for _, table := range p.State.Firewall {
		rules := 0
		for _, chain := range table.Chains {
			rules += len(chain.Rules)
		}
		if rules > 50 {
			t.Errorf("%d rules", rules)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	c := large(5000)
	for b.Loop() {
		Build(c)
	}
}
