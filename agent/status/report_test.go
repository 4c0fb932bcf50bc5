package status

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func condition(t *testing.T, r Report, kind string) metav1.Condition {
	t.Helper()
	st := Build(r, nil, 1, "v")
	c := meta.FindStatusCondition(st.Conditions, kind)
	if c == nil {
		t.Fatalf("no condition %s in %v", kind, st.Conditions)
	}
	return *c
}

func TestFatalProblemGivesTheReasonAndAllMessagesAreSaid(t *testing.T) {
	g := gomega.NewWithT(t)
	c := condition(t, Report{Problems: []model.Problem{
		{Reason: model.ReasonDegraded, Message: "The MTU is too large."},
		{Reason: model.ReasonModuleMissing, Message: "Load vxlan.", Fatal: true},
	}}, podnetv1alpha1.ConditionProgrammed)
	g.Expect(c.Status).To(gomega.Equal(metav1.ConditionFalse))
	g.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonModuleMissing))
	g.Expect(c.Message).To(gomega.Equal("The MTU is too large. Load vxlan."))
}

func TestProblemThatIsNotFatalLeavesTheNodeProgrammed(t *testing.T) {
	g := gomega.NewWithT(t)
	c := condition(t, Report{Problems: []model.Problem{{Reason: model.ReasonNoEndpoint, Message: "No IPv6."}}}, podnetv1alpha1.ConditionProgrammed)
	g.Expect(c.Status).To(gomega.Equal(metav1.ConditionTrue))
	g.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonDegraded))
}

func TestReasonsOfProblemsAreThoseOfTheAPI(t *testing.T) {
	g := gomega.NewWithT(t)
	g.Expect([]string{
		model.ReasonNoNetwork, model.ReasonNoBlock, model.ReasonNoEndpoint,
		model.ReasonModuleMissing, model.ReasonKernelError, model.ReasonDegraded,
	}).To(gomega.Equal([]string{
		podnetv1alpha1.ReasonNoNetwork, podnetv1alpha1.ReasonNoBlock, podnetv1alpha1.ReasonNoEndpoint,
		podnetv1alpha1.ReasonModuleMissing, podnetv1alpha1.ReasonKernelError, podnetv1alpha1.ReasonDegraded,
	}))
}

func TestFindingsAreNamedAndBounded(t *testing.T) {
	g := gomega.NewWithT(t)
	var r Report
	for range 2 * maxFindings {
		r.Findings = append(r.Findings, model.Finding{Type: "ForwardDrop", Message: strings.Repeat("ä", 2*maxMessage)})
	}
	st := Build(r, nil, 1, "v")
	g.Expect(st.Findings).To(gomega.HaveLen(maxFindings))
	g.Expect(len(st.Findings[0].Message)).To(gomega.BeNumerically("<=", maxMessage))
	g.Expect(condition(t, r, podnetv1alpha1.ConditionClear).Message).To(gomega.Equal("Found on the node: ForwardDrop. See status.findings."))
}

func TestUsedAddressesAreCountedByBlock(t *testing.T) {
	g := gomega.NewWithT(t)
	st := Build(Report{
		Plan: model.Plan{Blocks: []model.Block{{CIDR: netip.MustParsePrefix("10.244.3.0/24")}, {CIDR: netip.MustParsePrefix("fd00::/64")}}},
		Pods: []model.Pod{
			{Addrs: []netip.Addr{netip.MustParseAddr("10.244.3.2"), netip.MustParseAddr("fd00::2")}},
			{Addrs: []netip.Addr{netip.MustParseAddr("10.244.3.3")}},
		},
	}, nil, 1, "v")
	g.Expect(*st.Blocks[0].AddressesTotal).To(gomega.Equal(int64(253)))
	g.Expect(*st.Blocks[0].AddressesUsed).To(gomega.Equal(int64(2)))
	g.Expect(*st.Blocks[1].AddressesUsed).To(gomega.Equal(int64(1)))
}

func TestPathsAreCountedAndExceptionsBounded(t *testing.T) {
	g := gomega.NewWithT(t)
	var choices []model.PathChoice
	for range 2 * maxExceptions {
		choices = append(choices, model.PathChoice{Node: "b", Path: model.PathOverlay, Message: "not routable"})
	}
	choices = append(choices, model.PathChoice{Path: model.PathRouted}, model.PathChoice{Path: model.PathDown})
	got := paths(choices)
	g.Expect([]int32{*got.Routed, *got.Overlay, *got.Down}).To(gomega.Equal([]int32{1, 2 * maxExceptions, 1}))
	g.Expect(got.Exceptions).To(gomega.HaveLen(maxExceptions))
}

func TestUnchangedConditionKeepsItsTime(t *testing.T) {
	g := gomega.NewWithT(t)
	long := metav1.NewTime(time.Unix(1_700_000_000, 0))
	first := Build(Report{}, nil, 1, "v")
	for i := range first.Conditions {
		first.Conditions[i].LastTransitionTime = long
	}
	second := Build(Report{}, first.Conditions, 1, "v")
	g.Expect(second).To(gomega.Equal(first))
}

func TestRemovedIsSaidAndUnsaid(t *testing.T) {
	g := gomega.NewWithT(t)
	gone := Build(Report{Removed: true}, nil, 1, "v")
	g.Expect(meta.IsStatusConditionTrue(gone.Conditions, podnetv1alpha1.ConditionRemoved)).To(gomega.BeTrue())
	g.Expect(meta.IsStatusConditionFalse(gone.Conditions, podnetv1alpha1.ConditionProgrammed)).To(gomega.BeTrue())
	back := Build(Report{}, gone.Conditions, 1, "v")
	g.Expect(meta.FindStatusCondition(back.Conditions, podnetv1alpha1.ConditionRemoved)).To(gomega.BeNil())
}
