package controllers

import (
	"net/netip"
	"slices"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/event"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// disputes are the blocks that pods of one node use while another node holds them,
// as after a restore of etcd from a backup in which the block was still the other's.
// Such a block gives no more addresses, so that it can become that of its pods.
type disputes struct {
	mu sync.Mutex
	// byNode are the blocks that pods of a node use.
	byNode map[string][]netip.Prefix
	// subnets and holders are told the NodeSubnets that are disputed now and were not
	// before: the one for what becomes of them, the other for the nodes that hold them.
	subnets, holders chan event.TypedGenericEvent[*podnetv1alpha1.NodeSubnet]
}

// mostDisputes is how many changes wait to be heard before those who tell of them wait too.
const mostDisputes = 1024

func newDisputes() *disputes {
	type news = event.TypedGenericEvent[*podnetv1alpha1.NodeSubnet]
	return &disputes{
		byNode: map[string][]netip.Prefix{}, subnets: make(chan news, mostDisputes), holders: make(chan news, mostDisputes),
	}
}

// set says which blocks the pods of a node use that others hold.
func (d *disputes) set(node string, holders []*podnetv1alpha1.NodeSubnet) {
	d.mu.Lock()
	before := d.byNode[node]
	var now []netip.Prefix
	var added []*podnetv1alpha1.NodeSubnet
	for _, holder := range holders {
		cidr, err := netip.ParsePrefix(holder.Spec.CIDR)
		if err != nil {
			continue
		}
		now = append(now, cidr)
		if !slices.Contains(before, cidr) {
			added = append(added, holder)
		}
	}
	if len(now) == 0 {
		delete(d.byNode, node)
	} else {
		d.byNode[node] = now
	}
	d.mu.Unlock()
	for _, holder := range added {
		news := event.TypedGenericEvent[*podnetv1alpha1.NodeSubnet]{Object: holder}
		d.subnets <- news
		d.holders <- news
	}
}

// claimants returns the nodes whose pods use a block that another node holds, sorted.
func (d *disputes) claimants(cidr string) []string {
	block, err := netip.ParsePrefix(cidr)
	if err != nil || d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var nodes []string
	for node, blocks := range d.byNode {
		if slices.ContainsFunc(blocks, block.Overlaps) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}
