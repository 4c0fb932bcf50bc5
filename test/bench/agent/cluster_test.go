package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/model"
)

// self is the node whose agent is measured.
const self = "node"

// What peers have is apart from the node's own, so that one responder can stand for
// them all by two routes.
var (
	ranges    = netip.MustParsePrefix("10.0.0.0/8")
	ownBlock  = netip.MustParsePrefix("10.0.0.0/24")
	peerRange = netip.MustParsePrefix("10.128.0.0/9")
	endpoints = netip.MustParsePrefix("172.20.0.0/16")
)

// cluster is what the API holds: a node, the first of its blocks, and its peers.
type cluster struct {
	mu     sync.Mutex
	blocks []model.Block
	modes  []model.RouteMode
	policy model.PolicyObjects
	// elsewhere are blocks of which policy alone hears.
	elsewhere []model.Block
	passes    int
}

func newCluster(peers int) *cluster {
	c := &cluster{blocks: []model.Block{{
		Name: "own", Node: self, CIDR: ownBlock, State: model.BlockActive, Created: time.Unix(0, 0),
	}}}
	for i := range peers {
		c.blocks = append(c.blocks, peer(i))
	}
	return c
}

// peer is the block of a peer.
func peer(i int) model.Block {
	name := fmt.Sprintf("peer-%04d", i)
	high, low := byte(i>>8), byte(i)
	return model.Block{
		Name: name, Node: name, State: model.BlockActive, Created: time.Unix(int64(i)+1, 0),
		CIDR:      netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + high, low, 0}), 24),
		Endpoints: []netip.Addr{netip.AddrFrom4([4]byte{172, 20, high, low})},
		Labels:    map[string]string{"kubernetes.io/hostname": name},
	}
}

// Objects implements apply.Source, and counts the passes.
func (c *cluster) Objects() (state.Objects, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passes++
	return state.Objects{
		Network: &model.Network{
			ID: "bench", Ranges: []netip.Prefix{ranges}, BlockBits: [2]int{24, 64}, Attachment: model.PointToPoint,
			Mode: model.ModeAuto, VNI: 7466, Port: 4789, Masquerade: true,
		},
		Blocks: slices.Clone(c.blocks), RouteModes: slices.Clone(c.modes),
	}, nil
}

// Policies implements policy.Source.
func (c *cluster) Policies(context.Context) (state.Policies, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return state.Policies{Objects: c.policy, Blocks: slices.Concat(c.blocks, c.elsewhere)}, nil
}

// change changes what the API holds.
func (c *cluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *cluster) passed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passes
}
