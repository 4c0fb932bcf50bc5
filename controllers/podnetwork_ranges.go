package controllers

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// mostRemaining is how many nodes the status of a draining range names.
const mostRemaining = 10

// lowShare is the share of a pool's blocks, as its inverse, that is few.
const lowShare = 10

// rangeStatus counts the blocks and addresses of a range. Every NodeSubnet that
// overlaps the range counts as allocated: as long as there is one, the range cannot
// be removed.
func (v *view) rangeStatus(r poolRange) podnetv1alpha1.RangeStatus {
	var allocated, freeInBlocks int64
	pods := map[string]int64{}
	for i := range v.subnets {
		s := &v.subnets[i]
		cidr, err := netip.ParsePrefix(s.Spec.CIDR)
		if err != nil || !cidr.Overlaps(r.CIDR) {
			continue
		}
		allocated++
		used := v.used[nodeBlock{s.Spec.Node, s.Spec.CIDR}]
		pods[s.Spec.Node] += used
		if s.Spec.State == podnetv1alpha1.SubnetActive {
			freeInBlocks = ipam.Sum(freeInBlocks, max(ipam.AddressCount(cidr)-used, 0))
		}
	}
	for _, cidr := range v.claimed {
		if cidr.Overlaps(r.CIDR) {
			allocated++
		}
	}
	var used int64
	for _, n := range pods {
		used += n
	}
	free := v.taken.Free(r.Range)
	out := podnetv1alpha1.RangeStatus{
		CIDR: r.CIDR.String(), State: podnetv1alpha1.RangeActive,
		BlocksTotal: ptr.To(r.Total()), BlocksAllocated: &allocated, BlocksFree: &free,
		AddressesTotal: ptr.To(times(r.Total(), r.addresses())), AddressesAllocated: &used,
		AddressesFree: ptr.To(ipam.Sum(times(free, r.addresses()), freeInBlocks)),
		Nodes:         ptr.To(int32(min(len(pods), math.MaxInt32))), //nolint:gosec // It is bounded right here.
	}
	if r.draining {
		out.State, out.BlocksFree, out.AddressesFree = podnetv1alpha1.RangeDraining, ptr.To(int64(0)), ptr.To(int64(0))
		out.Remaining = remaining(pods)
	}
	return out
}

// remaining are the nodes with the most pods, those with none left out.
func remaining(pods map[string]int64) []podnetv1alpha1.NodePods {
	var out []podnetv1alpha1.NodePods
	for node, n := range pods {
		if n > 0 {
			out = append(out, podnetv1alpha1.NodePods{Node: node, Pods: ptr.To(n)})
		}
	}
	slices.SortFunc(out, func(a, b podnetv1alpha1.NodePods) int {
		return cmp.Or(cmp.Compare(*b.Pods, *a.Pods), strings.Compare(a.Node, b.Node))
	})
	return out[:min(len(out), mostRemaining)]
}

// nodeBlock is a block as a node's agent knows it.
type nodeBlock struct{ node, cidr string }

// usedAddresses is what the agents say of blocks. What one says counts for the blocks that
// its own node holds: of those of others it has nothing to tell.
func usedAddresses(reports []podnetv1alpha1.NodeNetwork) map[nodeBlock]int64 {
	used := map[nodeBlock]int64{}
	for i := range reports {
		for _, b := range reports[i].Status.Blocks {
			used[nodeBlock{reports[i].Name, b.CIDR}] = countOf(b.AddressesUsed)
		}
	}
	return used
}

// runningLow says which nodes will soon find no block: those of a range with a
// nodeSelector draw from it and from those without one, all others from these alone.
func (v *view) runningLow() metav1.Condition {
	var sentences []string
	for _, is4 := range []bool{true, false} {
		var open, selected pool
		for _, r := range v.ranges {
			switch {
			case r.draining || r.CIDR.Addr().Is4() != is4:
			case r.selector == nil:
				open = append(open, r)
			default:
				selected = append(selected, r)
			}
		}
		pools := []pool{open}
		for _, r := range selected {
			pools = append(pools, append(pool{r}, open...))
		}
		for _, p := range pools {
			if sentence := v.low(p); sentence != "" {
				sentences = append(sentences, sentence)
			}
		}
	}
	if len(sentences) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionRunningLow, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonEnoughFree,
			Message: "More than a tenth of the blocks that any node can get are free.",
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionRunningLow, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonFewFree,
		Message: limited(strings.Join(sentences, " ")),
	}
}

// low says in a sentence that the ranges together have few blocks left; empty where they have enough.
func (v *view) low(p pool) string {
	var free, total int64
	for _, r := range p {
		free, total = ipam.Sum(free, v.taken.Free(r.Range)), ipam.Sum(total, r.Total())
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

// times is the product of two counts, at most MaxInt64.
func times(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}
