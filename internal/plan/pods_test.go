package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

func itoa(i int) string { return strconv.Itoa(i) }

// elementsOf writes the elements of a set, "key" or "key: value".
func elementsOf(t *testing.T, s model.State, family nft.Family, set string) []string {
	t.Helper()
	var out []string
	for _, table := range s.Firewall {
		for _, found := range table.Sets {
			if table.Family == family && found.Name == set {
				for _, e := range found.Elements {
					text := strings.Join(e.Key, " ")
					if len(e.Value) > 0 {
						text += ": " + strings.Join(e.Value, " ")
					}
					out = append(out, text)
				}
			}
		}
	}
	return out
}

func expectElements(t *testing.T, s model.State, family nft.Family, set string, want ...string) {
	t.Helper()
	if got := elementsOf(t, s, family, set); !slices.Equal(got, want) {
		t.Errorf("%s %s holds %q, want %q", family, set, got, want)
	}
}

func TestPointToPointPodHangsOnItsOwnLink(t *testing.T) {
	c := cluster()
	p := pod("x", 2)
	s := PodParts(c, p)
	for _, a := range []string{"10.244.0.2/32", "fd00:10::2/128"} {
		if r := routeTo(t, s, a); r != (model.Route{Dst: prefix(a), Link: "podnx"}) {
			t.Errorf("route: %+v", r)
		}
		if !slices.Contains(s.Neighbours, model.Neighbour{Link: "podnx", Addr: prefix(a).Addr(), MAC: p.PodMAC}) {
			t.Errorf("neighbours: %+v", s.Neighbours)
		}
	}
	local := linkLocal(p.PodMAC).String()
	expectElements(t, s, "inet", "podsources4", "podnx 10.244.0.2")
	expectElements(t, s, "inet", "podsources6", "podnx fd00:10::2", "podnx "+local)
	expectElements(t, s, "arp", "podsources4", "podnx 10.244.0.2")
	if want := []model.Address{{Link: "podnx", Addr: prefix("fe80::1/128")}}; !slices.Equal(s.Addresses, want) {
		t.Errorf("addresses: %+v", s.Addresses)
	}
	want := []model.Sysctl{
		{Key: "net/ipv4/conf/podnx/forwarding", Value: "1"},
		{Key: "net/ipv4/conf/podnx/proxy_arp", Value: "1"},
		{Key: "net/ipv4/neigh/podnx/proxy_delay", Value: "0"},
		{Key: "net/ipv6/conf/podnx/disable_ipv6", Value: "0"},
		{Key: "net/ipv6/conf/podnx/forwarding", Value: "1"},
		{Key: "net/ipv6/conf/podnx/accept_ra", Value: "0"},
	}
	if !slices.Equal(s.Sysctls, want) {
		t.Errorf("sysctls: %+v", s.Sysctls)
	}
}

func TestBridgePodHangsOnTheBridgeAndIsCheckedAtItsPort(t *testing.T) {
	c := cluster()
	c.Network.Attachment = model.Bridge
	p := pod("x", 2)
	p.Attachment = model.Bridge
	p.HostPorts = []model.HostPort{{Host: 80, Pod: 8080, Protocol: "tcp"}}
	s := PodParts(c, p)
	if r := routeTo(t, s, "10.244.0.2/32"); r.Link != "podnet0" {
		t.Errorf("route: %+v", r)
	}
	if !slices.Contains(s.Neighbours, model.Neighbour{Link: "podnet0", Addr: addr("fd00:10::2"), MAC: p.PodMAC}) {
		t.Errorf("neighbours: %+v", s.Neighbours)
	}
	mac := p.PodMAC.String()
	expectElements(t, s, "bridge", "podsources4", "podnx "+mac+" 10.244.0.2")
	expectElements(t, s, "bridge", "podsources6", "podnx "+mac+" fd00:10::2", "podnx "+mac+" "+linkLocal(p.PodMAC).String())
	expectElements(t, s, "bridge", "podtargets6",
		"podnx "+mac+" "+integer(addr("fd00:10::2")), "podnx "+mac+" "+integer(linkLocal(p.PodMAC)))
	expectElements(t, s, "arp", "podsources4")
	expectElements(t, s, "bridge", "podmacs", "podnx "+mac)
	expectElements(t, s, "inet", "podsources4")
	if len(s.Sysctls) > 0 {
		t.Errorf("sysctls of a link that is a port: %+v", s.Sysctls)
	}
}

func TestHostPortsLeadToThePodInBothFamilies(t *testing.T) {
	p := pod("x", 2)
	p.HostPorts = []model.HostPort{
		{Host: 80, Pod: 8080, Protocol: "TCP"},
		{Host: 53, Pod: 53, Protocol: "udp"},
		{HostIP: addr("0.0.0.0"), Host: 81, Pod: 81, Protocol: "tcp"},
		{HostIP: addr("192.0.2.1"), Host: 82, Pod: 82, Protocol: "tcp"},
		{HostIP: addr("127.0.0.1"), Host: 83, Pod: 83, Protocol: "sctp"},
		{HostIP: addr("2001:db8::1"), Host: 84, Pod: 84, Protocol: "tcp"},
	}
	s := PodParts(cluster(), p)
	expectElements(t, s, "inet", "hostports4", "tcp 80: 10.244.0.2 8080", "tcp 81: 10.244.0.2 81", "udp 53: 10.244.0.2 53")
	expectElements(t, s, "inet", "hostports6", "tcp 80: fd00:10::2 8080", "udp 53: fd00:10::2 53")
	expectElements(t, s, "inet", "hostportsip4", "127.0.0.1 sctp 83: 10.244.0.2 83", "192.0.2.1 tcp 82: 10.244.0.2 82")
	expectElements(t, s, "inet", "hostportsip6", "2001:db8::1 tcp 84: fd00:10::2 84")
	expectElements(t, s, "inet", "self4", "10.244.0.2 10.244.0.2")
	expectElements(t, s, "inet", "self6", "fd00:10::2 fd00:10::2")
	if want := (model.Sysctl{Key: "net/ipv4/conf/podnx/route_localnet", Value: "1"}); !slices.Contains(s.Sysctls, want) {
		t.Errorf("sysctls: %+v", s.Sysctls)
	}
}

// The old pod of a hostPort may still be attached when the new one comes.
func TestHostPortHasOnePod(t *testing.T) {
	c := cluster()
	for i := range 3 {
		p := pod(fmt.Sprint(i), 2+i)
		p.HostPorts = []model.HostPort{{Host: 80, Pod: 8080, Protocol: "tcp"}}
		c.Pods = append(c.Pods, p)
	}
	expectElements(t, Build(c).State, "inet", "hostports4", "tcp 80: 10.244.0.2 8080")
	expectElements(t, PodParts(c, c.Pods[2]), "inet", "hostports4")
	c.Pods = c.Pods[1:]
	expectElements(t, Build(c).State, "inet", "hostports4", "tcp 80: 10.244.0.3 8080")
}

// What a CNI ADD makes must be what the next pass wants, and what a DEL takes
// away what it no longer wants.
func TestPlanWithPodIsThePlanWithoutItAndItsParts(t *testing.T) {
	for seed := range uint64(200) {
		c := random(rand.New(rand.NewPCG(seed, 4)))
		c.Network.Attachment = model.Bridge // The bridge's table is there without pods as well.
		// A port that the pod leaves to another one would come on top.
		for i := range c.Pods[1:] {
			c.Pods[i+1].HostPorts = nil
		}
		p, without := c.Pods[0], c
		without.Pods = c.Pods[1:]
		with := Build(c).State
		base, part := Build(without).State, PodParts(without, p)
		base.Routes = append(base.Routes, part.Routes...)
		base.Neighbours = append(base.Neighbours, part.Neighbours...)
		base.Sysctls = append(base.Sysctls, part.Sysctls...)
		base.Ports = append(base.Ports, part.Ports...)
		base.Addresses = append(base.Addresses, part.Addresses...)
		for _, partTable := range part.Firewall {
			for _, table := range base.Firewall {
				for _, partSet := range partTable.Sets {
					for i := range table.Sets {
						if set := &table.Sets[i]; table.Family == partTable.Family && set.Name == partSet.Name {
							set.Elements = append(set.Elements, partSet.Elements...)
						}
					}
				}
			}
		}
		base.Sort()
		for _, s := range []model.State{base, with} {
			slices.SortFunc(s.Sysctls, func(a, b model.Sysctl) int { return strings.Compare(a.Key, b.Key) })
		}
		if a, b := fmt.Sprintf("%+v", with), fmt.Sprintf("%+v", base); a != b {
			t.Fatalf("seed %d: %s", seed, difference(a, b))
		}
	}
}

func TestPortsThatArePlannedTwiceAreOneElement(t *testing.T) {
	p := pod("x", 2)
	for i := range 2000 {
		port := model.HostPort{Host: uint16(i/2 + 1), Pod: 80, Protocol: "tcp"}
		p.HostPorts = append(p.HostPorts, port)
	}
	for _, table := range PodParts(cluster(), p).Firewall {
		for _, set := range table.Sets {
			if strings.HasPrefix(set.Name, mapHostPorts) && len(set.Elements) != 1000 {
				t.Errorf("%s has %d elements", set.Name, len(set.Elements))
			}
		}
	}
}
