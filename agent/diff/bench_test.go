package diff_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// large is the state of a node among 5,000, with 100 pods.
func large() model.State {
	s := onVXLAN()
	for i := range 5000 {
		b := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		mac := model.DeriveMAC(strconv.Itoa(i))
		for _, table := range []int{0, model.ProbeRoutedTable, model.ProbeOverlayTable} {
			s.Routes = append(s.Routes, model.Route{Table: table, Dst: b, Link: "vxpodnet4", Via: b.Addr(), OnLink: true, MTU: 1450})
		}
		s.Neighbours = append(s.Neighbours, model.Neighbour{Link: "vxpodnet4", Addr: b.Addr(), MAC: mac})
		s.FDB = append(s.FDB, model.FDBEntry{Link: "vxpodnet4", MAC: mac, Endpoint: b.Addr()})
	}
	for i := range 100 {
		link := "podn" + strconv.Itoa(i)
		a := netip.AddrFrom4([4]byte{10, 200, 0, byte(i)})
		s.Routes = append(s.Routes, model.Route{Dst: netip.PrefixFrom(a, 32), Link: link})
		s.Neighbours = append(s.Neighbours, model.Neighbour{Link: link, Addr: a, MAC: model.DeriveMAC(link)})
		for _, key := range []string{"accept_ra", "forwarding", "disable_ipv6"} {
			s.Sysctls = append(s.Sysctls, model.Sysctl{Key: "net/ipv6/conf/" + link + "/" + key, Value: "1"})
		}
	}
	s.Sort()
	return s
}

func BenchmarkDiff(b *testing.B) {
	want, have := large(), large()
	for name, from := range map[string]model.State{"same": have, "all": {}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				diff.Diff(want, from)
			}
		})
	}
}

func BenchmarkWanted(b *testing.B) {
	want := large()
	for b.Loop() {
		diff.NewWanted(want)
	}
}
