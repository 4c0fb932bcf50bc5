package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// servedBlocks returns the blocks of which none overlaps an older one, sorted by address.
func servedBlocks(blocks []model.Block) []model.Block {
	subnets := make([]ipam.Subnet, len(blocks))
	for i, b := range blocks {
		subnets[i] = ipam.Subnet{Name: b.Name, CIDR: b.CIDR, Created: b.Created}
	}
	refused := map[string]bool{}
	for _, c := range ipam.Conflicts(subnets, everything) {
		refused[c.Refused.Name] = true
	}
	served := slices.DeleteFunc(slices.Clone(blocks), func(b model.Block) bool { return refused[b.Name] })
	slices.SortFunc(served, func(a, b model.Block) int { return a.CIDR.Addr().Compare(b.CIDR.Addr()) })
	return served
}

// canHave reports whether a pod can have an address: its node holds the block that the
// address is of, and the node itself does not use it. What the status of a pod says is
// written by its node, which has no say in what others have.
func canHave(served []model.Block, p *model.ClusterPod, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(served, a, func(b model.Block, a netip.Addr) int { return b.CIDR.Addr().Compare(a) })
	if !found {
		i--
	}
	return i >= 0 && served[i].CIDR.Contains(a) && served[i].Node == p.Node && !ipam.Reserved(served[i].CIDR, a)
}

// giveAddresses finds whose the addresses are that pods say they have.
func (x *Index) giveAddresses(served []model.Block) {
	first := make(map[netip.Addr]*indexedPod, len(x.pods))
	for _, p := range x.pods {
		for _, a := range addrsOf(p.ClusterPod) {
			if !canHave(served, p.ClusterPod, a) {
				continue
			}
			other, also := first[a]
			if !also {
				first[a] = p
				continue
			}
			if x.contested[a] == nil {
				x.contested[a] = []*indexedPod{other}
			}
			x.contested[a] = append(x.contested[a], p)
		}
	}
	for a, p := range first {
		if x.contested[a] == nil {
			p.addrs = append(p.addrs, keyOf(a))
		}
	}
	for _, pods := range x.contested {
		slices.SortFunc(pods, func(a, b *indexedPod) int {
			return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
		})
	}
}

// claimants returns who may have an address that all of these pods say they have, of
// which those that are attached have the addresses that they were attached with. One that
// is being deleted may have lost it already: it loses to one that is not. Of those that
// are left nobody knows which it is.
func claimants(pods []*indexedPod, attached func(*indexedPod) bool) []*indexedPod {
	left := slices.DeleteFunc(slices.Clone(pods), attached)
	if slices.ContainsFunc(left, func(p *indexedPod) bool { return !p.Terminating }) {
		left = slices.DeleteFunc(left, func(p *indexedPod) bool { return p.Terminating })
	}
	return left
}

// addrsOf returns the addresses of a pod, each once.
func addrsOf(p *model.ClusterPod) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range p.Addrs {
		a = a.Unmap().WithZone("")
		if a.IsValid() && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// nodeAddress is what an address of a node goes by.
type nodeAddress struct {
	// seenAs is the address that blocks of peers are compared with: of one in the pod ranges it is the
	// node's endpoint.
	seenAs netip.Addr
	labels map[string]string
	name   string
}

// nodeAddresses returns the addresses of all nodes. In the pod ranges a node has the base
// address of any of its blocks that is served, and no other: what it says beside that may
// be a pod's. A base address where the node has no endpoint of the family stands for itself.
func nodeAddresses(blocks, served []model.Block, ranges *netipx.IPSet) map[netip.Addr][]nodeAddress {
	nodes := make(map[netip.Addr][]nodeAddress, 2*len(blocks))
	for _, b := range served {
		own := ipam.NodeAddress(b.CIDR)
		seenAs := own
		if e, ok := b.Endpoint(own.Is4()); ok && !ranges.Contains(e) {
			seenAs = e
		}
		nodes[own] = []nodeAddress{{seenAs, b.Labels, b.Node}}
	}
	sorted := slices.SortedFunc(slices.Values(blocks), func(a, b model.Block) int {
		return cmp.Or(compareBool(a.State == model.BlockReleased, b.State == model.BlockReleased), strings.Compare(a.Name, b.Name))
	})
	for _, b := range sorted {
		for _, a := range slices.Concat(b.Endpoints, b.Addresses) {
			has := nodes[a]
			known := slices.ContainsFunc(has, func(n nodeAddress) bool { return n.name == b.Node })
			// A node that has gone leaves its addresses to whoever has them by now.
			if known || ranges.Contains(a) || len(has) > 0 && b.State == model.BlockReleased {
				continue
			}
			nodes[a] = append(has, nodeAddress{a, b.Labels, b.Node})
		}
	}
	return nodes
}

// compareBool sorts what is false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
