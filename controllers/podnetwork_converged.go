package controllers

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
)

// converged reports whether the paths of all nodes are as the PodNetwork and the RouteModes
// ask. Of a node that carries no pods, or whose agent does not respond, it says nothing:
// that it is so is another condition.
func (v *view) converged() metav1.Condition {
	var diverging []string
	// first is the node whose divergence is reported: one and the same each time, whatever
	// order the nodes come in.
	first := ""
	for i := range v.nodes {
		node := &v.nodes[i]
		report := v.reports[node.Name]
		if report == nil || !objects.OwnedBy(report, node) || !carriesPods(report) {
			continue
		}
		paths := report.Status.Paths
		switch {
		case paths.Diverging == nil:
			// An agent of the version before does not say it.
		case paths.NetworkGeneration != v.Network.Generation:
			// It follows from another PodNetwork than the present one: what is so of this one
			// the agent says in a moment.
		case *paths.Diverging > 0:
			if first == "" || node.Name < first {
				first = node.Name
			}
			diverging = append(diverging, node.Name)
		}
	}
	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionConverged, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonConverged,
		Message: "All paths are as they are asked for.",
	}
	if len(diverging) > 0 {
		c.Status, c.Reason = metav1.ConditionFalse, podnetv1alpha1.ReasonNodesDiverge
		c.Message = messages.Clip(messages.Condition, fmt.Sprintf("%d of %d nodes have paths that are not as they are asked for: %s. %s: %s",
			len(diverging), len(v.nodes), messages.Some(diverging), first, firstDivergence(v.reports[first])))
	}
	return c
}

// firstDivergence says of the first paths of a node that are not as asked what they are and why.
func firstDivergence(report *podnetv1alpha1.NodeNetwork) string {
	for _, e := range report.Status.Paths.Exceptions {
		if ptr.Deref(e.Diverging, false) {
			return fmt.Sprintf("to %s of node %s: %s", e.CIDR, e.Node, e.Message)
		}
	}
	return "its NodeNetwork says which."
}
