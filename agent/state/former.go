package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/podnet/podnet/internal/model"
)

const (
	// formerGrace is how long packets from an endpoint that is no longer a node's are
	// taken for its own: agents hear of a change within a second, unless the API server
	// does not get to tell them.
	formerGrace = 5 * time.Minute
	// freshGrace is how long a node goes on sending from the endpoint that it had, as
	// long as it has that address, after it has heard of the new one, as all others do
	// the new one.
	freshGrace = 10 * time.Second
	// maxFormer bounds the former endpoints of one node.
	maxFormer = 8
)

// former are the endpoints that nodes had until lately.
type former struct {
	clock clock.PassiveClock

	// last are the endpoints that nodes had last time, and since says since when
	// those that they no longer have are former ones.
	last  map[nodeAddr]bool
	since map[nodeAddr]time.Time
}

type nodeAddr struct {
	node string
	addr netip.Addr
}

func newFormer(c clock.PassiveClock) *former {
	return &former{clock: c, since: map[nodeAddr]time.Time{}}
}

// endpoints takes note of the endpoints that nodes have now, and returns those that
// they had until lately, sorted. An address that another node has now is that one's,
// and a node that has gone leaves none.
func (f *former) endpoints(present []model.Block) []model.FormerEndpoint {
	now := f.clock.Now()
	has := map[nodeAddr]bool{}
	nodes, taken := map[string]bool{}, map[netip.Addr]bool{}
	for _, b := range present {
		nodes[b.Node] = true
		for _, a := range b.Endpoints {
			has[nodeAddr{b.Node, a}], taken[a] = true, true
		}
	}
	for e := range f.last {
		if !has[e] {
			f.since[e] = now
		}
	}
	f.last = has
	out := make([]model.FormerEndpoint, 0, len(f.since))
	for e, since := range f.since {
		age := now.Sub(since)
		if !nodes[e.node] || taken[e.addr] || age > formerGrace {
			delete(f.since, e)
			continue
		}
		out = append(out, model.FormerEndpoint{Node: e.node, Addr: e.addr, Fresh: max(freshGrace-age, 0)})
	}
	return f.bound(out)
}

// bound sorts endpoints by node, the latest first, and forgets all but the latest few
// of each node.
func (f *former) bound(all []model.FormerEndpoint) []model.FormerEndpoint {
	key := func(e model.FormerEndpoint) nodeAddr { return nodeAddr{e.Node, e.Addr} }
	slices.SortFunc(all, func(a, b model.FormerEndpoint) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), f.since[key(b)].Compare(f.since[key(a)]), a.Addr.Compare(b.Addr))
	})
	of := map[string]int{}
	return slices.DeleteFunc(all, func(e model.FormerEndpoint) bool {
		of[e.Node]++
		if of[e.Node] <= maxFormer {
			return false
		}
		delete(f.since, key(e))
		return true
	})
}
