package main

import (
	"net/netip"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

func TestNoteOnReclaimedAddresses(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("fd00::9")
	for want, pod := range map[string]model.Pod{
		"Reclaimed addresses 10.244.1.9, fd00::9 of pod ns/p, container c0ffee: it is gone.": {
			ContainerID: "c0ffee", Namespace: "ns", Name: "p", Addrs: []netip.Addr{four, six},
		},
		"Reclaimed address 10.244.1.9 of container c0ffee: it is gone.":                   {ContainerID: "c0ffee", Addrs: []netip.Addr{four}},
		"Reclaimed no address of the damaged record of link podnabc: it is gone.":         {HostLink: "podnabc"},
		"Reclaimed address 10.244.1.9 of the damaged record of link podnabc: it is gone.": {HostLink: "podnabc", Addrs: []netip.Addr{four}},
	} {
		if got := reclaimedNote(pod, "it is gone"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
