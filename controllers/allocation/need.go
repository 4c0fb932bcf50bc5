package allocation

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// Holdings are what a node has and what is known about it: all that decides
// which blocks it gets and gives back.
type Holdings struct {
	node *corev1.Node
	// subnets are the node's own, the oldest first, those given back excluded.
	subnets []podnetv1alpha1.NodeSubnet
	// resting are those that rest, or are about to, and are still the node's by name.
	resting []podnetv1alpha1.NodeSubnet
	// report is what the node's agent said last; nil where it has said nothing.
	report *podnetv1alpha1.NodeNetwork
	ranges Pool
	limits podnetv1alpha1.NodeBlocks
}

// Holdings sorts out, of the NodeSubnets that name a node, those that it holds.
func (c Census) Holdings(node *corev1.Node, report *podnetv1alpha1.NodeNetwork) Holdings {
	subnets := c.ByNode[node.Name]
	held := heldBy(subnets, node)
	slices.SortFunc(held, func(a, b podnetv1alpha1.NodeSubnet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	if report != nil && !objects.OwnedBy(report, node) {
		report = nil
	}
	return Holdings{
		node: node, subnets: held, resting: restingOf(subnets, node), report: report, ranges: c.Ranges, limits: c.Network.Spec.NodeBlocks,
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

// Need returns what the node needs of a family, and the NodeSubnets that are its
// holdings, index by index. empty says for how long a block has had no pod.
func (h Holdings) Need(is4 bool, empty func(types.UID) time.Duration) (ipam.Need, []podnetv1alpha1.NodeSubnet) {
	need := ipam.Need{
		Max: maxBlocks(h.limits), Reserve: defaultReserve,
		Idle: time.Duration(cmp.Or(h.limits.IdleSeconds, defaultIdleSeconds)) * time.Second,
	}
	if h.limits.Reserve != nil {
		need.Reserve = int64(*h.limits.Reserve)
	}
	if eligible := h.ranges.eligible(is4, h.node.Labels); len(eligible) > 0 {
		need.Next = eligible[0].Addresses()
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
			Leaving:     within.Draining || need.Next > 0 && within.leftBy(h.node.Labels),
			RangeDrains: within.Draining,
		}
		if b, reported := objects.Block(h.report, s.Spec.CIDR); reported {
			// A block may have been Draining before, and Active in between.
			holding.InForce = b.State == s.Spec.State && b.ObservedGeneration == s.Generation
			holding.Used = ptr.Deref(b.AddressesUsed, 0)
		}
		if holding.Used == 0 {
			holding.Empty = empty(s.UID)
		}
		need.Held = append(need.Held, holding)
		of = append(of, s)
	}
	for _, s := range h.resting {
		cidr, err := netip.ParsePrefix(s.Spec.CIDR)
		if within, found := h.ranges.containing(cidr); err == nil && cidr.Addr().Is4() == is4 && found && !within.Draining {
			need.Resting++
		}
	}
	if h.report != nil {
		for _, a := range h.report.Status.Addresses {
			if a.Family == familyName(is4) {
				need.Waiting = ptr.Deref(a.Waiting, 0)
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
func (h Holdings) decide(is4 bool) ipam.Decision {
	need, _ := h.Need(is4, func(types.UID) time.Duration { return 0 })
	if need.Next == 0 && len(need.Held) == 0 {
		return ipam.Decision{}
	}
	return need.Decide()
}

// limited says in sentences that the node needs more blocks than it may have, or than it
// may keep from others; empty where it does not.
func (h Holdings) limited() string {
	var sentences []string
	for _, is4 := range []bool{true, false} {
		d := h.decide(is4)
		switch {
		case !d.Urgent:
		case d.Limited:
			sentences = append(sentences, fmt.Sprintf(
				"Node %s has used up its %s blocks and holds as many as a node may: raise spec.nodeBlocks.max of PodNetwork %s (%d), or run fewer pods there.",
				h.node.Name, familyName(is4), podnetv1alpha1.DefaultPodNetwork, maxBlocks(h.limits)))
		case d.Kept:
			sentences = append(sentences, fmt.Sprintf(
				"Node %s keeps as many %s blocks from others as a node may, twice spec.nodeBlocks.max of PodNetwork %s (%d), since some that it left have pods or rest."+
					" Wait until they are free, and let the node's labels choose the same ranges meanwhile.",
				h.node.Name, familyName(is4), podnetv1alpha1.DefaultPodNetwork, maxBlocks(h.limits)))
		}
	}
	return strings.Join(sentences, " ")
}

func familyName(is4 bool) podnetv1alpha1.AddressFamily {
	if is4 {
		return podnetv1alpha1.IPv4
	}
	return podnetv1alpha1.IPv6
}
