package status

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/utils/ptr"

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
	g.Expect(condition(t, r, podnetv1alpha1.ConditionHostUnobstructed).Message).To(gomega.Equal("Found on the node: ForwardDrop. See status.findings."))
}

func TestAddressesAreCountedByBlockAndFamily(t *testing.T) {
	g := gomega.NewWithT(t)
	prefix := netip.MustParsePrefix
	r := Report{
		InForce: true, RollCall: "call", Waiting: [2]int64{4, 0},
		Plan: model.Plan{Blocks: []model.Block{
			{CIDR: prefix("10.244.3.0/24"), State: model.BlockActive}, {CIDR: prefix("10.244.4.0/28"), State: model.BlockDraining},
			{CIDR: prefix("10.244.5.0/24"), State: model.BlockDraining, Vanished: true}, {CIDR: prefix("fd00::/64"), State: model.BlockActive},
		}},
		Used: map[netip.Prefix]int64{
			prefix("10.244.3.0/24"): 2, prefix("10.244.4.0/28"): 1, prefix("10.244.5.0/24"): 3, prefix("10.9.0.0/24"): 1, prefix("fd00::/64"): 2,
		},
	}
	block := func(cidr string, state podnetv1alpha1.SubnetState, total *int64, used int64) podnetv1alpha1.BlockStatus {
		return podnetv1alpha1.BlockStatus{CIDR: cidr, State: state, AddressesTotal: total, AddressesUsed: ptr.To(used)}
	}
	of := func(family podnetv1alpha1.AddressFamily, total, used, waiting, unserved int64) podnetv1alpha1.AddressesStatus {
		return podnetv1alpha1.AddressesStatus{
			Family: family, Total: ptr.To(total), Used: ptr.To(used), Waiting: ptr.To(waiting), Unserved: ptr.To(unserved),
		}
	}
	st := Build(r, nil, 1, "v")
	g.Expect(st.RollCall).To(gomega.Equal("call"))
	g.Expect(st.Blocks).To(gomega.HaveExactElements(
		block("10.244.3.0/24", podnetv1alpha1.SubnetActive, ptr.To(int64(252)), 2),
		block("10.244.4.0/28", podnetv1alpha1.SubnetDraining, ptr.To(int64(12)), 1),
		block("fd00::/64", podnetv1alpha1.SubnetActive, ptr.To(int64(math.MaxInt64)), 2),
		block("10.9.0.0/24", "", nil, 1),
		block("10.244.5.0/24", "", nil, 3),
	))
	g.Expect(st.Addresses).To(gomega.HaveExactElements(
		of(podnetv1alpha1.IPv4, 252, 7, 4, 1), of(podnetv1alpha1.IPv6, math.MaxInt64, 2, 0, 0),
	))
	r.InForce = false
	for _, b := range Build(r, nil, 1, "v").Blocks {
		g.Expect(b.State).To(gomega.BeEmpty(), "what the kernel refused is not in force")
	}
}

func TestPathsAreCountedAndExceptionsBounded(t *testing.T) {
	g := gomega.NewWithT(t)
	var choices []model.PathChoice
	for range 2 * maxExceptions {
		choices = append(choices, model.PathChoice{Node: "b", Path: model.PathOverlay, Reason: model.PathFallback, Message: "not routable"})
	}
	choices = append(choices, model.PathChoice{Path: model.PathRouted}, model.PathChoice{Path: model.PathDown})
	got := paths(Report{Plan: model.Plan{Paths: choices}})
	g.Expect([]int32{*got.Routed, *got.Overlay, *got.Down}).To(gomega.Equal([]int32{1, 2 * maxExceptions, 1}))
	g.Expect(got.Exceptions).To(gomega.HaveLen(maxExceptions))
}

func TestPathsAreCountedByRouteMode(t *testing.T) {
	g := gomega.NewWithT(t)
	r := Report{InForce: true, Plan: model.Plan{
		RouteModes: []model.RouteMode{{Name: "strong", Generation: 3}, {Name: "weak", Generation: 1}},
		Paths: []model.PathChoice{
			{RouteMode: "strong"}, {RouteMode: "strong", Diverges: true, Reason: model.PathFallback, Message: "no route"}, {Reason: model.PathUnproven, Message: "no VXLAN"},
		},
	}}
	of := func(name string, generation int64, decided, diverging int32) podnetv1alpha1.RouteModePaths {
		return podnetv1alpha1.RouteModePaths{Name: name, ObservedGeneration: generation, Paths: &decided, Diverging: &diverging}
	}
	st := Build(r, nil, 1, "v")
	g.Expect(st.RouteModes).To(gomega.HaveExactElements(of("strong", 3, 2, 1), of("weak", 1, 0, 0)))
	g.Expect(st.Paths.Exceptions[0].RouteMode).To(gomega.Equal("strong"))
	r.InForce = false
	g.Expect(Build(r, nil, 1, "v").RouteModes).To(gomega.BeEmpty(), "what the kernel refused is not in force")
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
