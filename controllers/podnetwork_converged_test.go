package controllers

import (
	"math"
	"slices"
	"testing"

	"github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
)

// diverging is a view of nodes a1, a2 and b1, of whose paths so many are not as asked for.
func diverging(paths map[string]int32) *view {
	v := &view{
		Census: allocation.CensusOf(&podnetv1alpha1.PodNetwork{ObjectMeta: metav1.ObjectMeta{Generation: 3}}, nil),
		nodes:  racked(), reports: map[string]*podnetv1alpha1.NodeNetwork{},
	}
	for i := range v.nodes {
		node := &v.nodes[i]
		report := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: ptr.To(true)},
		}}}
		apimeta.SetStatusCondition(&report.Status.Conditions, metav1.Condition{
			Type: podnetv1alpha1.ConditionProgrammed, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonProgrammed,
		})
		report.Status.Paths.NetworkGeneration = 3
		if n, said := paths[node.Name]; said {
			report.Status.Paths.Diverging = &n
		}
		if paths[node.Name] > 0 {
			report.Status.Paths.Exceptions = []podnetv1alpha1.PathException{
				{Node: "x", CIDR: "10.244.8.0/24", Message: "Auto took another."},
				{Node: "b1", CIDR: "10.244.9.0/24", Diverging: ptr.To(true), Message: "The overlay is taken."},
			}
		}
		v.reports[node.Name] = report
	}
	return v
}

func TestNetworkConvergesWhenAllPathsAreAsAsked(t *testing.T) {
	g := gomega.NewWithT(t)
	c := diverging(map[string]int32{"a1": 0, "a2": 0}).converged()
	g.Expect(c.Status).To(gomega.Equal(metav1.ConditionTrue), "an agent of the version before says nothing")

	v := diverging(map[string]int32{"a1": 0, "a2": 2, "b1": 0})
	c = v.converged()
	g.Expect(c.Status).To(gomega.Equal(metav1.ConditionFalse))
	g.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonNodesDiverge))
	g.Expect(c.Message).To(gomega.Equal("1 of 3 nodes have paths that are not as they are asked for: a2. " +
		"a2: to 10.244.9.0/24 of node b1: The overlay is taken."))

	// What follows from another PodNetwork than the present one says nothing of it.
	v.Network.Generation = 4
	g.Expect(v.converged().Status).To(gomega.Equal(metav1.ConditionTrue))

	// Of who does not respond the other condition speaks.
	v = diverging(map[string]int32{"a1": 0, "a2": 2, "b1": 0})
	apimeta.SetStatusCondition(&v.reports["a2"].Status.Conditions, metav1.Condition{
		Type: podnetv1alpha1.ConditionProgrammed, Status: metav1.ConditionUnknown, Reason: podnetv1alpha1.ReasonAgentNotResponding,
	})
	g.Expect(v.converged().Status).To(gomega.Equal(metav1.ConditionTrue))
	ready, notReady, silent := v.readiness()
	g.Expect(ready).To(gomega.BeEquivalentTo(2))
	g.Expect(notReady).To(gomega.BeEmpty())
	g.Expect(v.ready(notReady, silent).Message).To(gomega.Equal("The agents of 1 of 3 nodes do not respond: a2. Check these nodes and their agents."))
}

func TestDivergenceIsToldOfTheSameNodeWhateverOrderTheyComeIn(t *testing.T) {
	g := gomega.NewWithT(t)
	v := diverging(map[string]int32{"a1": 0, "a2": 2, "b1": 1})
	for range 2 {
		g.Expect(v.converged().Message).To(gomega.HaveSuffix(": a2, b1. a2: to 10.244.9.0/24 of node b1: The overlay is taken."))
		slices.Reverse(v.nodes)
	}
}

func TestSummaryOfTheNetworkSaysWhatIsWorst(t *testing.T) {
	g := gomega.NewWithT(t)
	status := &podnetv1alpha1.PodNetworkStatus{
		NodesTotal: ptr.To[int32](3), NodesReady: ptr.To[int32](2),
		Ranges: []podnetv1alpha1.RangeStatus{
			{
				CIDR: "10.244.0.0/16", State: podnetv1alpha1.RangeDraining, BlocksTotal: ptr.To[int64](256), BlocksAllocated: ptr.To[int64](3),
				AddressesTotal: ptr.To[int64](64512), AddressesAllocated: ptr.To[int64](40),
			},
			{
				CIDR: "fd00:10:244::/48", State: podnetv1alpha1.RangeActive, BlocksTotal: ptr.To[int64](65536), BlocksAllocated: ptr.To[int64](3),
				AddressesTotal: ptr.To[int64](math.MaxInt64), AddressesAllocated: ptr.To[int64](40),
			},
		},
		Conditions: []metav1.Condition{
			{Type: podnetv1alpha1.ConditionRunningLow, Status: metav1.ConditionTrue, Reason: "FewFree", Message: "Few."},
			{Type: podnetv1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "AllNodesReady"},
			{Type: podnetv1alpha1.ConditionConverged, Status: metav1.ConditionFalse, Reason: "NodesDiverge", Message: "They diverge."},
		},
	}
	g.Expect(summaryOf(status)).To(gomega.Equal(podnetv1alpha1.PodNetworkSummary{
		Problem: "NodesDiverge", Message: "They diverge.", Nodes: "2/3",
		Ranges: "10.244.0.0/16(Draining),fd00:10:244::/48", Blocks: "3/256,3/65536", Addresses: "40/64512,40/2^80",
	}))
	status.Conditions = status.Conditions[1:2]
	g.Expect(summaryOf(status).Problem).To(gomega.BeEmpty())
}
