package controllers

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// holdings are what a node has and what is known about it: all that decides
// which blocks it gets and gives back.
type holdings struct {
	node *corev1.Node
	// subnets are the node's own, the oldest first, those given back excluded.
	subnets []podnetv1alpha1.NodeSubnet
	// resting are those that rest, or are about to, and are still the node's by name.
	resting []podnetv1alpha1.NodeSubnet
	// report is what the node's agent said last; nil where it has said nothing.
	report *podnetv1alpha1.NodeNetwork
	ranges pool
	limits podnetv1alpha1.NodeBlocks
}

// holdingsOf sorts out, of the NodeSubnets that name a node, those that it holds.
func holdingsOf(
	node *corev1.Node, subnets []podnetv1alpha1.NodeSubnet, report *podnetv1alpha1.NodeNetwork, network *podnetv1alpha1.PodNetwork, ranges pool,
) holdings {
	held := heldBy(subnets, node)
	slices.SortFunc(held, func(a, b podnetv1alpha1.NodeSubnet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	if report != nil && !ownedBy(report, node) {
		report = nil
	}
	return holdings{
		node: node, subnets: held, resting: restingOf(subnets, node), report: report, ranges: ranges, limits: network.Spec.NodeBlocks,
	}
}

// heldBy returns those of a node's NodeSubnets that are its own: not those of a
// node that had its name before, not those given back, and not those made by hand
// that nobody serves. One that a user deleted counts as long as it exists: the
// node's pods go on using it.
func heldBy(subnets []podnetv1alpha1.NodeSubnet, node *corev1.Node) []podnetv1alpha1.NodeSubnet {
	return slices.DeleteFunc(slices.Clone(subnets), func(s podnetv1alpha1.NodeSubnet) bool {
		return s.Spec.Node != node.Name || s.Spec.NodeUID != node.UID ||
			s.Spec.Network != podnetv1alpha1.DefaultPodNetwork || s.Spec.State == podnetv1alpha1.SubnetReleased
	})
}

// restingOf returns those of the NodeSubnets that name a node which it does not hold and
// which keep blocks from others on its account: those given back, and those of a node
// that had its name before.
func restingOf(subnets []podnetv1alpha1.NodeSubnet, node *corev1.Node) []podnetv1alpha1.NodeSubnet {
	return slices.DeleteFunc(slices.Clone(subnets), func(s podnetv1alpha1.NodeSubnet) bool {
		return s.Spec.Node != node.Name || s.Spec.NodeUID == "" || s.Spec.Network != podnetv1alpha1.DefaultPodNetwork ||
			s.Spec.NodeUID == node.UID && s.Spec.State != podnetv1alpha1.SubnetReleased
	})
}

// need returns what the node needs of a family, and the NodeSubnets that are its
// holdings, index by index. empty says for how long a block has had no pod.
func (h holdings) need(is4 bool, empty func(types.UID) time.Duration) (ipam.Need, []podnetv1alpha1.NodeSubnet) {
	need := ipam.Need{
		Max: maxBlocks(h.limits), Reserve: defaultReserve,
		Idle: time.Duration(cmp.Or(h.limits.IdleSeconds, defaultIdleSeconds)) * time.Second,
	}
	if h.limits.Reserve != nil {
		need.Reserve = int64(*h.limits.Reserve)
	}
	if eligible := h.ranges.eligible(is4, h.node.Labels); len(eligible) > 0 {
		need.Next = eligible[0].addresses()
	}
	var of []podnetv1alpha1.NodeSubnet
	for _, s := range h.subnets {
		cidr, err := netip.ParsePrefix(s.Spec.CIDR)
		within, found := h.ranges.containing(cidr)
		if err != nil || cidr.Addr().Is4() != is4 || !found {
			continue
		}
		holding := ipam.Holding{
			CIDR: cidr, Draining: s.Spec.State == podnetv1alpha1.SubnetDraining,
			// A node for which no other range is there keeps what it has, unless the range drains.
			Leaving:     within.draining || need.Next > 0 && within.leftBy(h.node.Labels),
			RangeDrains: within.draining,
		}
		if b, reported := reportedBlock(h.report, s.Spec.CIDR); reported {
			// A block may have been Draining before, and Active in between.
			holding.InForce = b.State == s.Spec.State && b.ObservedGeneration == s.Generation
			holding.Used = countOf(b.AddressesUsed)
		}
		if holding.Used == 0 {
			holding.Empty = empty(s.UID)
		}
		need.Held = append(need.Held, holding)
		of = append(of, s)
	}
	for _, s := range h.resting {
		cidr, err := netip.ParsePrefix(s.Spec.CIDR)
		if within, found := h.ranges.containing(cidr); err == nil && cidr.Addr().Is4() == is4 && found && !within.draining {
			need.Resting++
		}
	}
	if h.report != nil {
		for _, a := range h.report.Status.Addresses {
			if a.Family == familyName(is4) {
				need.Waiting = countOf(a.Waiting)
			}
		}
	}
	return need, of
}

// What holds for PodNetworks that were made before they said it.
const (
	defaultMaxBlocks   = 8
	defaultReserve     = 16
	defaultIdleSeconds = 1800
)

// maxBlocks is how many blocks of a family a node may hold.
func maxBlocks(limits podnetv1alpha1.NodeBlocks) int {
	return int(cmp.Or(limits.Max, defaultMaxBlocks))
}

// decide returns what becomes of the node's blocks of a family.
func (h holdings) decide(is4 bool) ipam.Decision {
	need, _ := h.need(is4, func(types.UID) time.Duration { return 0 })
	if need.Next == 0 && len(need.Held) == 0 {
		return ipam.Decision{}
	}
	return need.Decide()
}

// reportedBlock is what an agent says of a block, and whether it says anything.
func reportedBlock(report *podnetv1alpha1.NodeNetwork, cidr string) (podnetv1alpha1.BlockStatus, bool) {
	if report == nil {
		return podnetv1alpha1.BlockStatus{}, false
	}
	i := slices.IndexFunc(report.Status.Blocks, func(b podnetv1alpha1.BlockStatus) bool { return b.CIDR == cidr })
	if i < 0 {
		return podnetv1alpha1.BlockStatus{}, false
	}
	return report.Status.Blocks[i], true
}

// countOf is a count that need not be there.
func countOf(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// idleness remembers since when blocks have had no pod. A manager that begins to
// lead begins to remember: a block goes back later than it might, never earlier.
type idleness map[types.UID]time.Time

// look takes note of whether a block has pods.
func (i idleness) look(block types.UID, inUse bool, now time.Time) {
	if _, known := i[block]; inUse {
		delete(i, block)
	} else if !known {
		i[block] = now
	}
}
