package status

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

func TestSummaryTellsOfTheWorstCondition(t *testing.T) {
	condition := func(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: reason + "."}
	}
	var (
		programmed = condition(podnetv1alpha1.ConditionProgrammed, metav1.ConditionTrue, podnetv1alpha1.ReasonProgrammed)
		refused    = condition(podnetv1alpha1.ConditionProgrammed, metav1.ConditionFalse, podnetv1alpha1.ReasonKernelError)
		degraded   = condition(podnetv1alpha1.ConditionProgrammed, metav1.ConditionTrue, podnetv1alpha1.ReasonDegraded)
		proven     = condition(podnetv1alpha1.ConditionPathsProven, metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven)
		down       = condition(podnetv1alpha1.ConditionPathsProven, metav1.ConditionFalse, podnetv1alpha1.ReasonPathDown)
		other      = condition(podnetv1alpha1.ConditionPathsProven, metav1.ConditionTrue, podnetv1alpha1.ReasonOtherPath)
		nothing    = condition(podnetv1alpha1.ConditionHostUnobstructed, metav1.ConditionTrue, podnetv1alpha1.ReasonNothingFound)
		found      = condition(podnetv1alpha1.ConditionHostUnobstructed, metav1.ConditionFalse, podnetv1alpha1.ReasonFindings)
		reduced    = condition(podnetv1alpha1.ConditionPathMTUReduced, metav1.ConditionTrue, podnetv1alpha1.ReasonSmallerPathMTU)
		lost       = condition(podnetv1alpha1.ConditionAddressesServed, metav1.ConditionFalse, "Unserved")
		full       = condition(podnetv1alpha1.ConditionPathMTUReduced, metav1.ConditionFalse, podnetv1alpha1.ReasonFullMTU)
	)
	for _, c := range []struct {
		conditions       []metav1.Condition
		problem, message string
	}{
		{[]metav1.Condition{nothing, proven, programmed, full}, "", "Programmed."},
		{[]metav1.Condition{nothing, proven, programmed, reduced}, "SmallerPathMTU", "SmallerPathMTU."},
		{[]metav1.Condition{found, proven, programmed, reduced}, "Findings", "Findings."},
		{[]metav1.Condition{found, other, programmed, full}, "OtherPath", "OtherPath."},
		{[]metav1.Condition{found, other, degraded, full}, "Degraded", "Degraded."},
		{[]metav1.Condition{found, down, degraded, full}, "PathDown", "PathDown."},
		{[]metav1.Condition{found, down, degraded, lost}, "Unserved", "Unserved."},
		{[]metav1.Condition{found, down, refused, lost}, "KernelError", "KernelError."},
	} {
		g := gomega.NewWithT(t)
		s := summary(podnetv1alpha1.NodeNetworkStatus{Conditions: c.conditions})
		g.Expect([]string{s.Problem, s.Message}).To(gomega.Equal([]string{c.problem, c.message}))
	}
}

func TestSummaryHasAllBlocksAndTotalsThatMeanSomething(t *testing.T) {
	g := gomega.NewWithT(t)
	st := podnetv1alpha1.NodeNetworkStatus{
		Blocks: []podnetv1alpha1.BlockStatus{
			{CIDR: "10.244.3.0/24", State: podnetv1alpha1.SubnetActive}, {CIDR: "10.245.3.0/24", State: podnetv1alpha1.SubnetDraining}, {CIDR: "fd00::/64"},
		},
		Addresses: []podnetv1alpha1.AddressesStatus{
			{Family: podnetv1alpha1.IPv4, Used: ptr.To(int64(7)), Total: ptr.To(int64(252))},
			{Family: podnetv1alpha1.IPv6, Used: ptr.To(int64(7)), Total: ptr.To(int64(math.MaxInt64))},
		},
	}
	s := summary(st)
	g.Expect([]string{s.Blocks, s.IPv4, s.IPv6}).To(gomega.Equal([]string{"10.244.3.0/24,10.245.3.0/24(Draining),fd00::/64", "7/252", "7/2^64"}))
	for i := range maxBlocks {
		st.Blocks = append(st.Blocks, podnetv1alpha1.BlockStatus{CIDR: fmt.Sprintf("10.0.%d.0/24", i)})
	}
	s = summary(st)
	g.Expect(len(s.Blocks)).To(gomega.BeNumerically("<=", maxBlockList))
	g.Expect(strings.HasSuffix(s.Blocks, "/24,…")).To(gomega.BeTrue(), s.Blocks)
}
