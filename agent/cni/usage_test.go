package cni

import (
	"context"
	"maps"
	"net/netip"
	"testing"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// Usage returns how many addresses of a block are taken.
func (b *Book) Usage(block netip.Prefix) (used int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	used = b.addresses(block).Used()
	// A pod may have it from a version that gave it to pods.
	if b.holders[ipam.ProbeAddress(block)] > 0 {
		used++
	}
	return used
}

// drainingNetwork stops offering a block as soon as something was asked of it: as
// a pass of the agent does between an ADD's look at the blocks and its reservation.
type drainingNetwork struct {
	*fakeNetwork
	asked int
}

func (n *drainingNetwork) Offer() (attach.Offer, error) {
	n.asked++
	if n.asked == 2 {
		n.offer.Blocks = n.offer.Blocks[1:]
	}
	return n.fakeNetwork.Offer()
}

func TestNoPodHasAnAddressOfABlockThatHasStoppedServing(t *testing.T) {
	net := &drainingNetwork{fakeNetwork: newFakeNetwork("10.244.1.0/24", "10.244.2.0/24")}
	book := open(t, folder(t))
	s, err := NewServer(ServerConfig{Socket: "unused", Book: book, Network: net, Checker: net, Present: net.Present, Demand: &attach.Demand{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.add(context.Background(), request("pod", `{}`)); err != nil {
		t.Fatal(err)
	}
	want := map[netip.Prefix]int64{netip.MustParsePrefix("10.244.2.0/24"): 1}
	if got := book.UsageByBlock(net.offer.Blocks); !maps.Equal(got, want) {
		t.Errorf("in use: %v, want %v", got, want)
	}
}

func TestUsageCountsPodsThatComeAndGoAndDamagedRecords(t *testing.T) {
	book := open(t, folder(t))
	a, b := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00::/64")
	pod := model.Pod{ContainerID: "x", IfName: "eth0"}
	pod.HostLink = KeyOf(pod).HostLink()
	if _, err := book.Reserve(pod, []netip.Prefix{a, b}); err != nil {
		t.Fatal(err)
	}
	book.leave(KeyOf(pod))
	book.setAside("podnabc", []netip.Addr{netip.MustParseAddr("10.244.1.77"), netip.MustParseAddr("192.0.2.1")})
	want := map[netip.Prefix]int64{a: 2, b: 1}
	if got := book.UsageByBlock([]netip.Prefix{a, b}); !maps.Equal(got, want) {
		t.Errorf("in use: %v, want %v", got, want)
	}
}
