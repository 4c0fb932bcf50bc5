package status

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// maxBlockList is how long the list of blocks in a summary may be, in bytes.
const maxBlockList = 1024

// summary is a status in the form in which kubectl prints it.
func summary(st podnetv1alpha1.NodeNetworkStatus) podnetv1alpha1.NodeNetworkSummary {
	worst, bad := worstOf(st.Conditions)
	out := podnetv1alpha1.NodeNetworkSummary{Message: clip(worst.Message)}
	if bad {
		out.Problem = worst.Reason
	}
	names := make([]string, 0, len(st.Blocks))
	// bits are those of the largest block of each family.
	var bits [2]int
	for _, b := range st.Blocks {
		name := b.CIDR
		if b.State == podnetv1alpha1.SubnetDraining {
			name += "(Draining)"
		}
		names = append(names, name)
		if cidr, err := netip.ParsePrefix(b.CIDR); err == nil {
			i := 0
			if cidr.Addr().Is6() {
				i = 1
			}
			bits[i] = max(bits[i], cidr.Addr().BitLen()-cidr.Bits())
		}
	}
	out.Blocks = strings.Join(names, ",")
	if len(out.Blocks) > maxBlockList {
		out.Blocks = out.Blocks[:strings.LastIndexByte(out.Blocks[:maxBlockList-len(",…")], ',')] + ",…"
	}
	for _, a := range st.Addresses {
		if a.Family == podnetv1alpha1.IPv4 {
			out.IPv4 = fmt.Sprintf("%d/%s", *a.Used, ipam.Count(*a.Total, bits[0]))
		} else {
			out.IPv6 = fmt.Sprintf("%d/%s", *a.Used, ipam.Count(*a.Total, bits[1]))
		}
	}
	return out
}

// worstOf returns the condition that people are to see first, and whether it is bad.
func worstOf(conditions []metav1.Condition) (metav1.Condition, bool) {
	var worst metav1.Condition
	rank := math.MaxInt
	for _, c := range conditions {
		if r := rankOf(c); r < rank {
			worst, rank = c, r
		}
	}
	return worst, rank < good
}

// good is the rank from which on a condition is as it should be.
const good = 10

// rankOf orders conditions by how much they matter, the worst first.
func rankOf(c metav1.Condition) int {
	isTrue := c.Status == metav1.ConditionTrue
	switch {
	case c.Type == podnetv1alpha1.ConditionProgrammed && !isTrue:
		return 0
	case c.Type == podnetv1alpha1.ConditionAddressesServed && !isTrue:
		return 1
	case c.Type == podnetv1alpha1.ConditionPathsProven && !isTrue && c.Reason == podnetv1alpha1.ReasonPathDown:
		return 2
	case c.Type == podnetv1alpha1.ConditionProgrammed && c.Reason == podnetv1alpha1.ReasonDegraded:
		return 3
	case c.Type == podnetv1alpha1.ConditionPathsProven && !isTrue:
		return 4
	case c.Type == podnetv1alpha1.ConditionPathsProven && c.Reason == podnetv1alpha1.ReasonOtherPath:
		return 5
	case c.Type == podnetv1alpha1.ConditionHostUnobstructed && !isTrue:
		return 6
	case c.Type == podnetv1alpha1.ConditionPathMTUReduced && isTrue:
		return 7
	case c.Type == podnetv1alpha1.ConditionProgrammed:
		// Where nothing is bad, what is said is that the node is as it shall be.
		return good
	default:
		return good + 1
	}
}
