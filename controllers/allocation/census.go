package allocation

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// Census is what the objects say, at one moment, of who holds which block.
type Census struct {
	Network *podnetv1alpha1.PodNetwork
	Ranges  Pool
	// Invalid says what is wrong with ranges; nil if nothing is.
	Invalid error
	// Subnets are the NodeSubnets, and ByNode those that name a node.
	Subnets []podnetv1alpha1.NodeSubnet
	ByNode  map[string][]podnetv1alpha1.NodeSubnet
	// Taken is what NodeSubnets take, those of other networks and those at rest included.
	Taken *ipam.Taken
}

// CensusOf sorts NodeSubnets by their nodes, and changes none.
func CensusOf(network *podnetv1alpha1.PodNetwork, subnets []podnetv1alpha1.NodeSubnet) Census {
	c := Census{Network: network, Subnets: subnets, Taken: &ipam.Taken{}, ByNode: map[string][]podnetv1alpha1.NodeSubnet{}}
	c.Ranges, c.Invalid = PoolOf(network)
	for _, s := range subnets {
		c.ByNode[s.Spec.Node] = append(c.ByNode[s.Spec.Node], s)
		if cidr, err := netip.ParsePrefix(s.Spec.CIDR); err == nil {
			c.Taken.Take(cidr.Masked())
		}
	}
	return c
}

// takeCensus reads the NodeSubnets.
func takeCensus(ctx context.Context, reader client.Reader, network *podnetv1alpha1.PodNetwork) (Census, error) {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := reader.List(ctx, subnets, client.UnsafeDisableDeepCopy); err != nil {
		return Census{}, fmt.Errorf("list NodeSubnets: %w", err)
	}
	return CensusOf(network, subnets.Items), nil
}

// countable are those of a node's claims that a roll call can prove: blocks of the
// length that their range gives, which no NodeSubnet takes, as many of a family
// as the node may hold beside those that are its own, and twice as many with those that rest.
func (c Census) countable(node string, claimed []netip.Prefix) []netip.Prefix {
	most := maxBlocks(c.Network.Spec.NodeBlocks)
	held, kept := map[bool]int{}, map[bool]int{}
	for _, s := range c.ByNode[node] {
		cidr, err := netip.ParsePrefix(s.Spec.CIDR)
		if _, found := c.Ranges.containing(cidr); err != nil || !found {
			continue
		}
		kept[cidr.Addr().Is4()]++
		if s.Spec.State != podnetv1alpha1.SubnetReleased {
			held[cidr.Addr().Is4()]++
		}
	}
	var out []netip.Prefix
	for _, cidr := range claimed {
		of, found := c.Ranges.containing(cidr)
		is4 := cidr.Addr().Is4()
		if !found || cidr.Bits() != of.BlockBits || held[is4] >= most || kept[is4] >= 2*most || c.Taken.Overlaps(cidr) || slices.Contains(out, cidr) {
			continue
		}
		held[is4]++
		kept[is4]++
		out = append(out, cidr)
	}
	return out
}

// Conflicts returns the NodeSubnets of the network that nobody serves.
func (c Census) Conflicts() []ipam.Conflict {
	values := make([]ipam.Subnet, 0, len(c.Subnets))
	for i := range c.Subnets {
		s := &c.Subnets[i]
		if cidr, err := netip.ParsePrefix(s.Spec.CIDR); err == nil && s.Spec.Network == podnetv1alpha1.DefaultPodNetwork {
			values = append(values, ipam.Subnet{Name: s.Name, CIDR: cidr.Masked(), Created: s.CreationTimestamp.Time})
		}
	}
	return ipam.Conflicts(values, c.Ranges.CIDRs())
}

// Shortage says in sentences why a node lacks a block that no range has for it, or that it may
// not have; empty where it lacks none, or gets one in a moment.
func (c Census) Shortage(node *corev1.Node, report *podnetv1alpha1.NodeNetwork) string {
	has := c.Holdings(node, report)
	if len(c.Ranges.families(node.Labels)) == 0 && len(has.subnets) == 0 {
		return unselected()
	}
	var reasons []string
	for _, is4 := range []bool{true, false} {
		eligible := c.Ranges.eligible(is4, node.Labels)
		decision := has.decide(is4)
		if decision.Add > 0 && decision.Urgent &&
			!slices.ContainsFunc(eligible, func(r Range) bool { _, found := c.Taken.Next(r.Range); return found }) {
			reasons = append(reasons, eligible.exhaustion())
		}
	}
	if limited := has.limited(); limited != "" {
		reasons = append(reasons, limited)
	}
	return strings.Join(reasons, " ")
}

// lowShare is the share of a pool's blocks, as its inverse, that is few.
const lowShare = 10

// Low says, in a sentence each, which ranges together have few blocks left: nodes of a range with
// a nodeSelector draw from it and from those without one, all others from these alone.
func (c Census) Low() []string {
	var sentences []string
	for _, is4 := range []bool{true, false} {
		var open, selected Pool
		for _, r := range c.Ranges {
			switch {
			case r.Draining || r.CIDR.Addr().Is4() != is4:
			case r.selector == nil:
				open = append(open, r)
			default:
				selected = append(selected, r)
			}
		}
		pools := []Pool{open}
		for _, r := range selected {
			pools = append(pools, append(Pool{r}, open...))
		}
		for _, p := range pools {
			if sentence := c.low(p); sentence != "" {
				sentences = append(sentences, sentence)
			}
		}
	}
	return sentences
}

// low says in a sentence that the ranges together have few blocks left; empty where they have enough.
func (c Census) low(p Pool) string {
	var free, total int64
	for _, r := range p {
		free, total = ipam.Sum(free, c.Taken.Free(r.Range)), ipam.Sum(total, r.Total())
	}
	if total == 0 || free > total/lowShare {
		return ""
	}
	names := make([]string, len(p))
	for i, r := range p {
		names[i] = r.CIDR.String()
	}
	return fmt.Sprintf("%d of %d blocks are free in %s: add a range to PodNetwork %s before nodes have to wait.",
		free, total, strings.Join(names, ", "), podnetv1alpha1.DefaultPodNetwork)
}
