package status

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// knowsBlocks reports whether it is known which blocks the node holds.
func knowsBlocks(r Report) bool {
	return !r.Removed && !slices.ContainsFunc(r.Problems, func(p model.Problem) bool { return p.Reason == model.ReasonNoNetwork })
}

// isForeign reports whether the node does not hold a block. Of families that it cannot serve
// this is unknown, nor would other addresses help the pods.
func isForeign(r Report, block netip.Prefix) bool {
	return !r.Plan.Withheld[model.FamilyIndex(block.Addr())] &&
		!slices.ContainsFunc(r.Plan.Blocks, func(b model.Block) bool { return b.CIDR == block })
}

// unserved counts the addresses, by family, that pods have of blocks that the node
// does not hold: other nodes send packets to them elsewhere, or nowhere.
func unserved(r Report) [2]int64 {
	var n [2]int64
	if !knowsBlocks(r) {
		return n
	}
	for block, used := range r.Used {
		if isForeign(r, block) {
			n[model.FamilyIndex(block.Addr())] += used
		}
	}
	return n
}

// addressesServed reports whether all addresses of the node's pods lie in blocks that the
// node holds.
func addressesServed(r Report) metav1.Condition {
	n := unserved(r)
	if n == [2]int64{} {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionAddressesServed, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonAddressesServed,
			Message: "The addresses of all pods lie in blocks that the node holds.",
		}
	}
	pods := listing{}
	for _, p := range r.Pods {
		for i, block := range p.Blocks {
			if isForeign(r, block) {
				pods.add(fmt.Sprintf("%s/%s (%s)", p.Namespace, p.Name, p.Addrs[i]))
			}
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionAddressesServed, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonAddressesUnserved,
		Message: clip(fmt.Sprintf("%d addresses of pods lie in blocks that this node does not hold, and other nodes do not reach them: %s. "+
			"Delete these pods, so that they get other addresses.", n[0]+n[1], pods.names())),
	}
}
