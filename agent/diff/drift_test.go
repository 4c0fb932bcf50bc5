package diff_test

import (
	"slices"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// whole is a state with one or more objects of every kind.
func whole() model.State {
	s := onVXLAN()
	s.Ports = []model.Port{{Link: "pod1", Bridge: "podnet0"}}
	s.Firewall = []model.Table{firewall("drop", []string{"1"}, []string{"10.244.0.0/16"}, map[string]string{"80": "10.244.0.1"})}
	return s
}

func TestWhatIsAsWantedContradictsNothing(t *testing.T) {
	w := diff.NewWanted(whole())
	for _, s := range sightings(whole()) {
		if w.Contradicts(diff.Sighting{Object: s}) {
			t.Errorf("%+v contradicts", s)
		}
		if !w.Contradicts(diff.Sighting{Object: s, Gone: true}) {
			t.Errorf("%+v is gone and does not contradict", s)
		}
	}
}

func TestWhatNobodyWantsMayGo(t *testing.T) {
	w := diff.NewWanted(model.State{Firewall: []model.Table{firewall("drop", nil, nil, nil)}})
	for _, s := range sightings(whole()) {
		if w.Contradicts(diff.Sighting{Object: s, Gone: true}) {
			t.Errorf("%+v is gone and contradicts", s)
		}
	}
}

// sightings are the objects of a state as the kernel reports them.
func sightings(s model.State) []diff.Seen {
	out := []diff.Seen{diff.ElementKey{
		Family: "inet", Table: "podnet", Set: "podsources4", Key: "pod1" + string(make([]byte, 12)) + "\x0a\xf4\x00\x01",
	}}
	for _, list := range s.Lists() {
		if list.Kind() != model.KindFirewall {
			list.Each(func(o model.Object) { out = append(out, o) })
		}
	}
	return out
}

func TestSightings(t *testing.T) {
	route := whole().Routes[1]
	route.Via = addr("10.244.1.77")
	element := func(set, key string) diff.ElementKey {
		return diff.ElementKey{Family: "inet", Table: "podnet", Set: set, Key: key}
	}
	w := diff.NewWanted(whole())
	for name, c := range map[string]struct {
		sighting diff.Sighting
		want     bool
	}{
		"anything":                    {diff.Sighting{}, true},
		"a changed route":             {diff.Sighting{Object: route}, true},
		"a route that nobody wants":   {diff.Sighting{Object: model.Route{Dst: prefix("10.9.0.0/16"), Link: "eth0"}}, true},
		"such a route that is gone":   {diff.Sighting{Object: model.Route{Dst: prefix("10.9.0.0/16"), Link: "eth0"}, Gone: true}, false},
		"an address on a tunnel":      {diff.Sighting{Object: model.Address{Link: "vxpodnet4", Addr: prefix("10.9.0.0/32")}}, true},
		"an address of others on lo":  {diff.Sighting{Object: model.Address{Link: "lo", Addr: prefix("10.9.0.0/32")}}, false},
		"a changed parameter":         {diff.Sighting{Object: model.Sysctl{Key: "net/ipv4/ip_forward", Value: "0"}}, true},
		"a parameter that went":       {diff.Sighting{Object: model.Sysctl{Key: "net/ipv4/ip_forward"}, Gone: true}, true},
		"one of others that went":     {diff.Sighting{Object: model.Sysctl{Key: "net/ipv4/x"}, Gone: true}, false},
		"a parameter of others":       {diff.Sighting{Object: model.Sysctl{Key: "net/ipv4/x", Value: "0"}}, false},
		"a port of another bridge":    {diff.Sighting{Object: model.Port{Link: "pod1", Bridge: "docker0"}}, true},
		"a port that nobody wants":    {diff.Sighting{Object: model.Port{Link: "pod7", Bridge: "docker0"}}, false},
		"the structure of a table":    {diff.Sighting{Object: model.Table{Table: nft.Table{Family: "inet", Name: "podnet"}}}, true},
		"a table that nobody wants":   {diff.Sighting{Object: model.Table{Table: nft.Table{Family: "bridge", Name: "podnet"}}}, true},
		"such a table that is gone":   {diff.Sighting{Object: model.Table{Table: nft.Table{Family: "bridge", Name: "podnet"}}, Gone: true}, false},
		"an element that is too many": {diff.Sighting{Object: element("podsources4", "x")}, true},
		"an element of an unknown set": {
			diff.Sighting{Object: element("mine", "x"), Gone: true}, true,
		},
		"a part of an interval": {diff.Sighting{Object: element("ranges4", "\x0a\xf4\x00\x00")}, true},
		"a hostPort":            {diff.Sighting{Object: element("hostports4", "\x06\x00\x00\x00\x00\x50\x00\x00")}, false},
		"a hostPort that went":  {diff.Sighting{Object: element("hostports4", "\x06\x00\x00\x00\x00\x50\x00\x00"), Gone: true}, true},
	} {
		if got := w.Contradicts(c.sighting); got != c.want {
			t.Errorf("%s: contradicts: %t", name, got)
		}
	}
}

func TestPodsPartIsWantedUntilItGoes(t *testing.T) {
	w := diff.NewWanted(whole())
	part := model.State{
		Routes: []model.Route{{Dst: prefix("10.244.0.2/32"), Link: "pod2"}},
		Firewall: []model.Table{{Table: nft.Table{Family: "inet", Name: "podnet", Sets: []nft.Set{
			{Name: "podsources4", Elements: []nft.Element{{Key: []string{"pod2", "10.244.0.2"}}}},
		}}}},
	}
	seen := []diff.Sighting{
		{Object: part.Routes[0]},
		{Object: diff.ElementKey{Family: "inet", Table: "podnet", Set: "podsources4", Key: "pod2" + string(make([]byte, 12)) + "\x0a\xf4\x00\x02"}},
	}
	for _, s := range seen {
		w.Add(part)
		there, gone := w.Contradicts(s), w.Contradicts(diff.Sighting{Object: s.Object, Gone: true})
		w.Remove(part)
		if there || !gone || !w.Contradicts(s) || w.Contradicts(diff.Sighting{Object: s.Object, Gone: true}) {
			t.Errorf("%+v: %t, %t", s, there, gone)
		}
	}
}

// found returns what is reported of a pass that finds a kernel as it is spoiled.
func found(before, want model.State, spoil func(*model.State), moved ...string) []string {
	have := whole()
	spoil(&have)
	links := map[string]bool{}
	for _, m := range moved {
		links[m] = true
	}
	var out []string
	for _, r := range diff.NewWanted(before).Repairs(diff.Diff(want, have), have, links) {
		out = append(out, r.Kind+": "+r.Found)
	}
	return out
}

func TestRepairsAreToldOf(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*model.State)
		want  []string
	}{
		"nothing": {func(*model.State) {}, nil},
		"a route less": {
			func(s *model.State) { s.Routes = s.Routes[:2] },
			[]string{"route: route to 10.244.2.0/24 via 192.0.2.3 on eth0 was missing"},
		},
		"a route with another MTU": {
			func(s *model.State) { s.Routes[1].MTU = 0 },
			[]string{"route: route to 10.244.1.0/24 via 10.244.1.0 on vxpodnet4 had been changed to source 10.244.0.0, MTU 0"},
		},
		"a route more": {
			func(s *model.State) {
				s.Routes = append(s.Routes, model.Route{Dst: prefix("10.9.0.0/16"), Link: "eth0"})
			},
			[]string{"route: route to 10.9.0.0/16 on eth0 had been added"},
		},
		"a link that is down, and all that went with it": {
			func(s *model.State) { s.Links[0].MTU, s.Routes, s.Neighbours = 0, s.Routes[:1:1], nil },
			// The route by eth0 went for another reason.
			[]string{"link: vxlan link vxpodnet4 was down", "route: route to 10.244.2.0/24 via 192.0.2.3 on eth0 was missing"},
		},
		"a link less, and all that went with it": {
			func(s *model.State) {
				*s = model.State{Routes: s.Routes[:1], Sysctls: s.Sysctls[:1], Rules: s.Rules, Ports: s.Ports, Firewall: s.Firewall}
			},
			[]string{"link: vxlan link vxpodnet4 was missing"},
		},
		"another link of the name": {
			func(s *model.State) { s.Links[0].VNI = 1 },
			[]string{"link: vxlan link vxpodnet4 had been replaced by another"},
		},
		"an address less, and the routes that had it as source": {
			func(s *model.State) { s.Addresses, s.Routes = nil, s.Routes[:1] },
			[]string{"address: address 10.244.0.0/32 on vxpodnet4 was missing"},
		},
		"a parameter": {
			func(s *model.State) { s.Sysctls[0].Value = "0" },
			[]string{"sysctl: sysctl net/ipv4/ip_forward=1 had been changed to 0"},
		},
		"elements": {
			func(s *model.State) { s.Firewall[0].Sets[0].Elements, s.Firewall[0].Sets[1].Elements = nil, nil },
			[]string{
				"firewall: tcp . 80 in set hostports4 of nft table inet podnet was missing",
				"firewall: pod1 . 10.244.0.1 in set podsources4 of nft table inet podnet was missing",
			},
		},
		"a table less": {func(s *model.State) { s.Firewall = nil }, []string{"firewall: nft table inet podnet was missing"}},
	} {
		if got := found(whole(), whole(), c.spoil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A parameter that changes others, or takes something along, is reported alone.
func TestParameterExplainsWhatFollowsFromIt(t *testing.T) {
	state := func() model.State {
		return model.State{
			Sysctls: []model.Sysctl{
				{Key: "net/ipv4/ip_forward", Value: "1"}, {Key: "net/ipv4/conf/eth0/forwarding", Value: "1"},
				{Key: "net/ipv4/conf/pod1/forwarding", Value: "1"}, {Key: "net/ipv6/conf/pod1/disable_ipv6", Value: "0"},
			},
			Addresses:  []model.Address{{Link: "pod1", Addr: prefix("fe80::1/128")}, {Link: "pod2", Addr: prefix("fe80::1/128")}},
			Routes:     []model.Route{{Dst: prefix("10.244.0.2/32"), Link: "pod1"}, {Dst: prefix("fd00::2/128"), Link: "pod1"}},
			Neighbours: []model.Neighbour{{Link: "pod1", Addr: addr("fd00::2")}},
		}
	}
	for name, c := range map[string]struct {
		spoil func(*model.State)
		want  []string
	}{
		"forwarding of all": {
			func(s *model.State) { s.Sysctls[0].Value, s.Sysctls[1].Value, s.Sysctls[2].Value = "0", "0", "0" },
			[]string{"sysctl net/ipv4/ip_forward=1 had been changed to 0"},
		},
		"forwarding of one": {
			func(s *model.State) { s.Sysctls[1].Value = "0" },
			[]string{"sysctl net/ipv4/conf/eth0/forwarding=1 had been changed to 0"},
		},
		"IPv6 of a link": {
			func(s *model.State) {
				s.Sysctls[3].Value, s.Addresses, s.Routes, s.Neighbours = "1", s.Addresses[1:], s.Routes[:1], nil
			},
			[]string{"sysctl net/ipv6/conf/pod1/disable_ipv6=0 had been changed to 1"},
		},
		"IPv6 of a link, and an address of another": {
			func(s *model.State) {
				s.Sysctls[3].Value, s.Addresses, s.Routes, s.Neighbours = "1", nil, nil, nil
			},
			[]string{
				"sysctl net/ipv6/conf/pod1/disable_ipv6=0 had been changed to 1", "address fe80::1/128 on pod2 was missing",
				"route to 10.244.0.2/32 on pod1 was missing",
			},
		},
	} {
		have := state()
		c.spoil(&have)
		var got []string
		for _, r := range diff.NewWanted(state()).Repairs(diff.Diff(state(), have), have, nil) {
			got = append(got, r.Found)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestWhatTheObjectsAskForIsNobodysDoing(t *testing.T) {
	// All is new, or goes, or changes.
	if got := found(model.State{}, whole(), func(s *model.State) { *s = model.State{} }); len(got) > 0 {
		t.Errorf("a first pass: %q", got)
	}
	if got := found(whole(), model.State{}, func(*model.State) {}); len(got) > 0 {
		t.Errorf("a last pass: %q", got)
	}
	want := whole()
	want.Routes[1].MTU, want.Links[0].Port = 1300, 9
	if got := found(whole(), want, func(*model.State) {}); len(got) > 0 {
		t.Errorf("a change: %q", got)
	}
}

func TestLinkThatMovedExplainsWhatWentWithIt(t *testing.T) {
	spoil := func(s *model.State) { s.Routes = s.Routes[:2] }
	if got := found(whole(), whole(), spoil, "eth0"); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if got := found(whole(), whole(), spoil, "eth1"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestWhatFailedIsNobodysDoing(t *testing.T) {
	w := diff.NewWanted(whole())
	have := whole()
	have.Routes, have.Firewall[0].Sets[0].Elements = have.Routes[:2], nil
	ops := diff.Diff(whole(), have)
	w.Forget(ops)
	if got := w.Repairs(ops, have, nil); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
