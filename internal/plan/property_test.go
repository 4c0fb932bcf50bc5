package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

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
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := computed(t)
	p := Build(c)
	if took := computed(t) - before; took > 2*time.Second {
		t.Errorf("5,000 nodes took %s of a processor", took)
	}
	if len(p.Paths) != 2*4999 {
		t.Errorf("%d paths", len(p.Paths))
	}
	for _, table := range p.State.Firewall {
		rules := 0
		for _, chain := range table.Chains {
			rules += len(chain.Rules)
		}
		if rules > 80 {
			t.Errorf("%d rules", rules)
		}
	}
}

// computed is for how long this thread has had a processor: others that want it do not count.
func computed(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkBuild(b *testing.B) {
	c := large(5000)
	for b.Loop() {
		Build(c)
	}
}
