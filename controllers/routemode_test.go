package controllers

import (
	"fmt"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

func rack(names ...string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rack", Operator: metav1.LabelSelectorOpIn, Values: names}}}
}

func routeMode(name string, mode podnetv1alpha1.Mode, priority int32, between ...metav1.LabelSelector) podnetv1alpha1.RouteMode {
	return podnetv1alpha1.RouteMode{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 2, CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0))},
		Spec:       podnetv1alpha1.RouteModeSpec{Between: between, Mode: mode, Priority: &priority},
	}
}

// racked are nodes a1, a2 of rack a, and b1 of rack b.
func racked() []corev1.Node {
	var nodes []corev1.Node
	for _, name := range []string{"a1", "a2", "b1"} {
		nodes = append(nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID(name), Labels: map[string]string{"rack": name[:1], corev1.LabelHostname: name},
		}})
	}
	return nodes
}

func TestStrongerRouteModeOverrides(t *testing.T) {
	for name, c := range map[string]struct {
		mode, other podnetv1alpha1.RouteMode
		overridden  bool
	}{
		"alone on its pairs": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a")), routeMode("y", podnetv1alpha1.ModeOverlay, 1, rack("b")), false,
		},
		"one selector within the other": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a", "b")), routeMode("y", podnetv1alpha1.ModeOverlay, 1, rack("a")), true,
		},
		"the weaker one does not": {
			routeMode("x", podnetv1alpha1.ModeRouted, 1, rack("a", "b")), routeMode("y", podnetv1alpha1.ModeOverlay, 0, rack("a")), false,
		},
		"the same mode is no matter": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a", "b")), routeMode("y", podnetv1alpha1.ModeRouted, 1, rack("a")), false,
		},
		"a single node makes no pair": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a", "b")), routeMode("y", podnetv1alpha1.ModeOverlay, 1, rack("b")), false,
		},
		"two selectors, in either order": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a"), rack("b")), routeMode("y", podnetv1alpha1.ModeOverlay, 1, rack("b"), rack("a")), true,
		},
		"between racks and within one": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a"), rack("b")), routeMode("y", podnetv1alpha1.ModeOverlay, 1, rack("a")), false,
		},
		"as strong, and later by name": {
			routeMode("y", podnetv1alpha1.ModeRouted, 0, rack("a")), routeMode("x", podnetv1alpha1.ModeOverlay, 0, rack("a")), true,
		},
		"one that is not accepted": {
			routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a")), routeMode("y", podnetv1alpha1.ModeOverlay, 1, rack()), false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := routeModeView{mode: &c.mode, others: []podnetv1alpha1.RouteMode{c.mode, c.other}, nodes: racked()}
			if got := v.overridden(); (got.Status == metav1.ConditionTrue) != c.overridden {
				t.Errorf("Overridden=%s: %s", got.Status, got.Message)
			}
		})
	}
}

func TestConvergedCountsNodesAndSaysWhy(t *testing.T) {
	g := gomega.NewWithT(t)
	mode := routeMode("x", podnetv1alpha1.ModeRouted, 0, rack("a", "b"))
	report := func(name string, generation int64, diverging int32) podnetv1alpha1.NodeNetwork {
		return podnetv1alpha1.NodeNetwork{
			ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{UID: types.UID(name)}}},
			Status: podnetv1alpha1.NodeNetworkStatus{
				RouteModes: []podnetv1alpha1.RouteModePaths{
					{Name: "x", ObservedGeneration: generation, Paths: ptr.To(int32(4)), Diverging: &diverging},
				},
				Paths: podnetv1alpha1.PathsStatus{Exceptions: []podnetv1alpha1.PathException{
					{Node: "z", CIDR: "10.0.9.0/24", RouteMode: "other", Message: "Not this."},
					{Node: "b1", CIDR: "10.0.1.0/24", RouteMode: "x", Message: "There is no route."},
				}},
			},
		}
	}
	look := func(reports ...podnetv1alpha1.NodeNetwork) (podnetv1alpha1.RouteModeStatus, *metav1.Condition) {
		var status podnetv1alpha1.RouteModeStatus
		routeModeView{mode: &mode, others: []podnetv1alpha1.RouteMode{mode}, nodes: racked(), reports: reports}.summarise(&status)
		return status, apimeta.FindStatusCondition(status.Conditions, podnetv1alpha1.ConditionConverged)
	}

	status, c := look(report("a1", 2, 0), report("a2", 2, 0), report("b1", 2, 0))
	g.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonConverged))
	g.Expect([]int32{*status.NodesSelected, *status.NodesConverged}).To(gomega.Equal([]int32{3, 3}))
	g.Expect(status.Exceptions).To(gomega.BeEmpty())

	status, c = look(report("a1", 1, 0), report("a2", 2, 0))
	g.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonNodesPending))
	g.Expect(c.Message).To(gomega.ContainSubstring("2 of 3 nodes have not applied the RouteMode yet: a1, b1"))
	g.Expect(*status.NodesConverged).To(gomega.Equal(int32(1)))

	status, c = look(report("a1", 2, 1), report("a2", 2, 0), report("b1", 1, 0))
	g.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonNodesDiverge))
	g.Expect(c.Message).To(gomega.ContainSubstring("1 of 4 paths are not as the RouteMode asks. To 10.0.1.0/24 of node b1: There is no route."))
	g.Expect(status.Exceptions).To(gomega.HaveLen(2))
	g.Expect(status.Exceptions[0].Node).To(gomega.Equal("a1"), "those that diverge come first")
}

func TestRouteModeStatusIsBoundedWithManyNodes(t *testing.T) {
	mode := routeMode("x", podnetv1alpha1.ModeRouted, 0, metav1.LabelSelector{})
	v := routeModeView{mode: &mode, others: []podnetv1alpha1.RouteMode{mode}}
	for i := range 5000 {
		v.nodes = append(v.nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i), Labels: map[string]string{"rack": fmt.Sprint(i % 40)}}})
	}
	var status podnetv1alpha1.RouteModeStatus
	v.summarise(&status)
	if len(status.Exceptions) != mostExceptions || *status.NodesSelected != 5000 || *status.NodesConverged != 0 {
		t.Errorf("%d exceptions, %d selected, %d converged", len(status.Exceptions), *status.NodesSelected, *status.NodesConverged)
	}
}
