package controllers

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/internal/ipam"
)

// mostRemaining is how many nodes the status of a draining range names.
const mostRemaining = 10

// rangeStatus counts the blocks and addresses of a range. Every NodeSubnet that
// overlaps the range counts as allocated: as long as there is one, the range cannot
// be removed.
func (v *view) rangeStatus(r allocation.Range) podnetv1alpha1.RangeStatus {
	var allocated, freeInBlocks int64
	pods := map[string]int64{}
	for i := range v.Subnets {
		s := &v.Subnets[i]
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
	free := v.Taken.Free(r.Range)
	out := podnetv1alpha1.RangeStatus{
		CIDR: r.CIDR.String(), State: podnetv1alpha1.RangeActive,
		BlocksTotal: ptr.To(r.Total()), BlocksAllocated: &allocated, BlocksFree: &free,
		AddressesTotal: ptr.To(times(r.Total(), r.Addresses())), AddressesAllocated: &used,
		AddressesFree: ptr.To(ipam.Sum(times(free, r.Addresses()), freeInBlocks)),
		Nodes:         ptr.To(int32(min(len(pods), math.MaxInt32))), //nolint:gosec // It is bounded right here.
	}
	if r.Draining {
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
			used[nodeBlock{reports[i].Name, b.CIDR}] = ptr.Deref(b.AddressesUsed, 0)
		}
	}
	return used
}

// runningLow says which nodes will soon find no block.
func (v *view) runningLow() metav1.Condition {
	sentences := v.Low()
	if len(sentences) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionRunningLow, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonEnoughFree,
			Message: "More than a tenth of the blocks that any node can get are free.",
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionRunningLow, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonFewFree,
		Message: messages.Clip(messages.Condition, strings.Join(sentences, " ")),
	}
}

// times is the product of two counts, at most MaxInt64.
func times(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}
