package diff_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// random returns a state that a kernel can have, of a few objects with few
// different values, so that two of them share some.
func random(r *rand.Rand) model.State {
	var s model.State
	chance := func() bool { return r.IntN(2) == 0 }
	links := []string{"lo", "eth0", "pod1"}
	for _, name := range []string{"vxpodnet4", "vxpodnet6"} {
		if chance() {
			l := vxlan()
			l.Name, l.MTU, l.VNI = name, 1400+50*r.IntN(2), 7466+uint32(r.IntN(2))
			s.Links = append(s.Links, l)
			s.FDB = append(s.FDB, model.FDBEntry{Link: name, MAC: model.MAC{byte(r.IntN(2))}, Endpoint: addr(fmt.Sprintf("192.0.2.%d", r.IntN(2)))})
			s.Sysctls = append(s.Sysctls, model.Sysctl{Key: "net/ipv4/conf/" + name + "/rp_filter", Value: "2"})
			links = append(links, name)
		}
	}
	if chance() {
		s.Links = append(s.Links, model.Link{Name: "podnet0", Kind: model.LinkBridge, MTU: 1400 + r.IntN(2)})
		links = append(links, "podnet0")
	}
	link := func() string { return links[r.IntN(len(links))] }
	for i := range 3 {
		if chance() {
			s.Addresses = append(s.Addresses, model.Address{Link: link(), Addr: netip.PrefixFrom(addr(fmt.Sprintf("10.244.%d.0", i)), 32-r.IntN(2))})
		}
		if chance() {
			s.Neighbours = append(s.Neighbours, model.Neighbour{Link: link(), Addr: addr(fmt.Sprintf("10.244.%d.0", i)), MAC: model.MAC{byte(r.IntN(2))}})
		}
	}
	for i := range 8 {
		route := model.Route{Dst: prefix(fmt.Sprintf("10.244.%d.0/24", i))}
		switch r.IntN(3) {
		case 0:
			continue
		case 1:
			route.Unreachable = true
		case 2:
			route.Link, route.MTU = link(), 1400*r.IntN(2)
			if len(s.Addresses) > 0 {
				route.Src = s.Addresses[r.IntN(len(s.Addresses))].Addr.Addr()
			}
		}
		s.Routes = append(s.Routes, route)
	}
	for _, six := range []bool{false, true} {
		if chance() {
			s.Rules = append(s.Rules, model.Rule{IPv6: six, Priority: model.RulePriority, Table: model.RouteTable})
		}
	}
	for _, family := range []nft.Family{nft.Inet, nft.Bridge} {
		if chance() {
			var pods []string
			for i := range 4 {
				if chance() {
					pods = append(pods, fmt.Sprint(i))
				}
			}
			table := firewall([]string{"drop", "accept"}[r.IntN(2)], pods,
				[][]string{{"10.244.0.0/16"}, {"10.244.0.0/15"}, {"10.244.0.0/17", "10.244.128.0/17"}, nil}[r.IntN(4)],
				map[string]string{"80": fmt.Sprintf("10.244.0.%d", r.IntN(2)), fmt.Sprint(r.IntN(3)): "10.244.0.7"})
			table.Family = family
			s.Firewall = append(s.Firewall, table)
		}
	}
	return s
}

func shuffle(r *rand.Rand, s model.State) model.State {
	mix := func(n int, swap func(i, j int)) { r.Shuffle(n, swap) }
	s.Links, s.Addresses, s.Routes = slices.Clone(s.Links), slices.Clone(s.Addresses), slices.Clone(s.Routes)
	s.Rules, s.Neighbours, s.FDB = slices.Clone(s.Rules), slices.Clone(s.Neighbours), slices.Clone(s.FDB)
	s.Firewall = slices.Clone(s.Firewall)
	mix(len(s.Links), reflect.Swapper(s.Links))
	mix(len(s.Addresses), reflect.Swapper(s.Addresses))
	mix(len(s.Routes), reflect.Swapper(s.Routes))
	mix(len(s.Rules), reflect.Swapper(s.Rules))
	mix(len(s.Neighbours), reflect.Swapper(s.Neighbours))
	mix(len(s.FDB), reflect.Swapper(s.FDB))
	mix(len(s.Firewall), reflect.Swapper(s.Firewall))
	for i := range s.Firewall {
		s.Firewall[i].Sets = slices.Clone(s.Firewall[i].Sets)
		for j := range s.Firewall[i].Sets {
			e := slices.Clone(s.Firewall[i].Sets[j].Elements)
			mix(len(e), reflect.Swapper(e))
			s.Firewall[i].Sets[j].Elements = e
		}
	}
	return s
}

func TestAnyStateIsReachedFromAnyOther(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		before, after := random(r), random(r)
		k := difftest.New(before, hostLinks...)
		apply(t, k, after)
		got, want := k.State(), difftest.New(after, hostLinks...).State()
		got.Sysctls, want.Sysctls = nil, nil
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("seed %d: from %+v\nwant %+v\ngot  %+v\noperations: %s", seed, before, want, got, listed(k.Executed))
		}
	}
}

func TestOperationsDoNotDependOnTheOrderOfLists(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		before, after := random(r), random(r)
		first := diff.Diff(after, before)
		second := diff.Diff(shuffle(r, after), shuffle(r, before))
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("seed %d: %s\nand %s", seed, listed(first), listed(second))
		}
	}
}

// Whatever is there before and after must be there in between, but for what is
// on a link that is remade or an address that moves.
func TestRoutesThatStayAreNeverMissing(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 3))
		before, after := random(r), random(r)
		for _, s := range []*model.State{&before, &after} {
			s.Addresses = slices.DeleteFunc(s.Addresses, func(model.Address) bool { return true })
			for i := range s.Routes {
				s.Routes[i].Src = netip.Addr{}
			}
			for i := range s.Links {
				s.Links[i].VNI = 1
			}
		}
		k := difftest.New(before, hostLinks...)
		for _, op := range diff.Diff(after, before) {
			if err := k.Execute(context.Background(), []diff.Op{op}); err != nil {
				t.Fatal(err)
			}
			now := k.State().Routes
			for _, b := range before.Routes {
				to := func(x model.Route) bool { return x.Dst == b.Dst }
				if slices.ContainsFunc(after.Routes, to) && !slices.ContainsFunc(now, to) {
					t.Fatalf("seed %d: the route to %s is missing after %+v", seed, b.Dst, op)
				}
			}
		}
	}
}
