package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// namedConflicts is how many refused blocks of other nodes are named; all of
// them may be refused at once when a range is taken out.
const namedConflicts = 3

// serve returns the blocks that are served, the oldest first, and the problems
// with the others. A refused block of this node is always a problem of its own.
func serve(c model.Cluster) ([]model.Block, []model.Problem) {
	subnets := make([]ipam.Subnet, 0, len(c.Blocks))
	byName := make(map[string]model.Block, len(c.Blocks))
	for _, b := range c.Blocks {
		subnets = append(subnets, ipam.Subnet{Name: b.Name, CIDR: b.CIDR, Created: b.Created})
		byName[b.Name] = b
	}
	conflicts := ipam.Conflicts(subnets, c.Network.Ranges)
	refused := make(map[string]bool, len(conflicts))
	var problems []model.Problem
	others := 0
	for _, conflict := range conflicts {
		refused[conflict.Refused.Name] = true
		node := byName[conflict.Refused.Name].Node
		if node != c.Host.Node {
			others++
			if others > namedConflicts {
				continue
			}
		}
		problems = append(problems, degraded("%s: it is held by node %s%s.", conflict, node, holder(byName, conflict)))
	}
	if others > namedConflicts {
		problems = append(problems, degraded("%d more NodeSubnets of other nodes are refused.", others-namedConflicts))
	}

	var served []model.Block
	for _, b := range c.Blocks {
		if !refused[b.Name] {
			served = append(served, b)
		}
	}
	slices.SortFunc(served, func(a, b model.Block) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	return served, problems
}

// holder names the node that holds the block which is served instead.
func holder(byName map[string]model.Block, conflict ipam.Conflict) string {
	if conflict.Outside() {
		return ""
	}
	return ", and the older one by node " + byName[conflict.With.Name].Node
}

// degraded is a problem that costs the node a part of what was asked for.
func degraded(format string, args ...any) model.Problem {
	return model.Problem{Reason: model.ReasonDegraded, Message: fmt.Sprintf(format, args...)}
}

// peer is another node: what is needed to send to its pods.
type peer struct {
	node string
	// endpoints are the node's, by family; invalid where it has none.
	endpoints model.PerFamily[netip.Addr]
	labels    map[string]string
	// blocks are those that are served and not released, the oldest first.
	blocks []model.Block
}

// peersOf groups the served blocks of other nodes, the oldest first, by node and
// returns the nodes sorted by name. While the objects of a node are being updated
// they can name different endpoints, and the oldest one's count.
func peersOf(node string, served []model.Block) []*peer {
	byNode := map[string]*peer{}
	var peers []*peer
	for _, b := range served {
		if b.Node == node || b.State == model.BlockReleased {
			continue
		}
		p := byNode[b.Node]
		if p == nil {
			p = &peer{node: b.Node, labels: b.Labels}
			byNode[b.Node] = p
			peers = append(peers, p)
		}
		for i, f := range families {
			if endpoint, ok := b.Endpoint(f.is4); ok && !p.endpoints[i].IsValid() {
				p.endpoints[i] = endpoint
			}
		}
		p.blocks = append(p.blocks, b)
	}
	slices.SortFunc(peers, func(a, b *peer) int { return strings.Compare(a.node, b.node) })
	return peers
}

// endpointsOf returns the addresses from which VXLAN packets may come: those of
// all nodes that hold a served block, a released one too as long as it is there,
// because packets of its last pods may still be under way, and those that nodes had
// until lately, from which they may still send. Own are those that are this node's, to
// which others may send: what it chose, and what others know or knew.
func endpointsOf(c model.Cluster, served []model.Block) (all, own model.PerFamily[[]netip.Addr]) {
	add := func(a netip.Addr, node string) {
		i := model.FamilyIndex(a)
		all[i] = append(all[i], a)
		if node == c.Host.Node {
			own[i] = append(own[i], a)
		}
	}
	for _, e := range c.Host.Endpoints {
		add(e.Addr, c.Host.Node)
	}
	for _, e := range c.Former {
		add(e.Addr, e.Node)
	}
	for _, b := range served {
		for _, a := range b.Endpoints {
			add(a, b.Node)
		}
	}
	for i := range families {
		for _, list := range []*[]netip.Addr{&all[i], &own[i]} {
			slices.SortFunc(*list, netip.Addr.Compare)
			*list = slices.Compact(*list)
		}
	}
	return all, own
}
