package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/model"
)

// mostExceptions is how many nodes a RouteMode's status names.
const mostExceptions = 10

// routeModeView is all that the status of a RouteMode sums up.
type routeModeView struct {
	mode    *podnetv1alpha1.RouteMode
	others  []podnetv1alpha1.RouteMode
	nodes   []corev1.Node
	reports []podnetv1alpha1.NodeNetwork
}

// summarise writes what the view shows into the status.
func (v routeModeView) summarise(status *podnetv1alpha1.RouteModeStatus) {
	selectors, err := selectorsOf(v.mode)
	if err != nil {
		status.NodesSelected, status.NodesConverged, status.Exceptions = ptr.To(int32(0)), ptr.To(int32(0)), nil
		status.Conditions = nil
		apimeta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: podnetv1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonInvalidSelector,
			Message: messages.Clip(messages.Condition, fmt.Sprintf("This RouteMode has no effect, as one of its selectors is invalid: %s. Correct the selector.", oneLine(err))),
		})
		return
	}
	apimeta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: podnetv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonAccepted,
		Message: "The RouteMode is in force.",
	})
	selected := slices.DeleteFunc(slices.Clone(v.nodes), func(n corev1.Node) bool {
		return !objects.Carries(&n) || !slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(n.Labels)) })
	})
	converged := v.converged(selected, status)
	apimeta.SetStatusCondition(&status.Conditions, converged)
	apimeta.SetStatusCondition(&status.Conditions, v.overridden())
}

// converged reports whether the paths of the nodes are as the RouteMode asks, and
// counts them in the status.
func (v routeModeView) converged(selected []corev1.Node, status *podnetv1alpha1.RouteModeStatus) metav1.Condition {
	reports := map[string]*podnetv1alpha1.NodeNetwork{}
	for i := range v.reports {
		reports[v.reports[i].Name] = &v.reports[i]
	}
	var pending, diverging []podnetv1alpha1.NodeException
	for i := range selected {
		node := &selected[i]
		report := reports[node.Name]
		if report != nil && !objects.OwnedBy(report, node) {
			report = nil
		}
		message, known := v.exception(report)
		exception := podnetv1alpha1.NodeException{Node: node.Name, Message: message}
		switch {
		case !known:
			pending = append(pending, exception)
		case message != "":
			diverging = append(diverging, exception)
		}
	}
	byName := func(a, b podnetv1alpha1.NodeException) int { return strings.Compare(a.Node, b.Node) }
	slices.SortFunc(pending, byName)
	slices.SortFunc(diverging, byName)
	exceptions := slices.Concat(diverging, pending)
	status.NodesSelected = ptr.To(count(selected))
	status.NodesConverged = ptr.To(count(selected) - count(exceptions))
	status.Exceptions = exceptions[:min(len(exceptions), mostExceptions)]

	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionConverged, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonConverged,
		Message: "All paths that the RouteMode decides are as it asks.",
	}
	switch {
	case len(diverging) > 0:
		c.Status, c.Reason = metav1.ConditionFalse, podnetv1alpha1.ReasonNodesDiverge
		c.Message = messages.Clip(messages.Condition, fmt.Sprintf("%d of %d nodes have paths that are not as the RouteMode asks. %s: %s",
			len(diverging), len(selected), diverging[0].Node, diverging[0].Message))
	case len(pending) > 0:
		c.Status, c.Reason = metav1.ConditionFalse, podnetv1alpha1.ReasonNodesPending
		names := make([]string, len(pending))
		for i, e := range pending {
			names[i] = e.Node
		}
		c.Message = messages.Clip(messages.Condition, fmt.Sprintf("The agents of %d of %d nodes have not applied the RouteMode yet: %s.",
			len(pending), len(selected), messages.Some(names)))
	}
	return c
}

// exception says what of a node's paths is not as the RouteMode asks, nothing
// where all are, and whether its agent has said so of the present RouteMode.
func (v routeModeView) exception(report *podnetv1alpha1.NodeNetwork) (message string, known bool) {
	if report == nil {
		return "No agent reports from this node.", false
	}
	i := slices.IndexFunc(report.Status.RouteModes, func(p podnetv1alpha1.RouteModePaths) bool {
		return p.Name == v.mode.Name && p.ObservedGeneration == v.mode.Generation
	})
	if i < 0 {
		return "Its agent has not applied the RouteMode yet.", false
	}
	paths := report.Status.RouteModes[i]
	if paths.Diverging == nil || *paths.Diverging == 0 {
		return "", true
	}
	message = fmt.Sprintf("%d of %d paths are not as the RouteMode asks.", *paths.Diverging, ptr.Deref(paths.Paths, 0))
	for _, e := range report.Status.Paths.Exceptions {
		if e.RouteMode == v.mode.Name {
			message += fmt.Sprintf(" To %s of node %s: %s", e.CIDR, e.Node, e.Message)
			break
		}
	}
	return message, true
}

// overridden reports whether a stronger RouteMode asks for another mode between
// nodes that this one selects too.
func (v routeModeView) overridden() metav1.Condition {
	groups := v.groups()
	own := sidesOf(v.mode, groups)
	var stronger []string
	for i := range v.others {
		other := &v.others[i]
		if other.Spec.Mode != v.mode.Spec.Mode && model.CompareStrength(strengthOf(other), strengthOf(v.mode)) < 0 && own.meet(sidesOf(other, groups), groups) {
			stronger = append(stronger, other.Name)
		}
	}
	if len(stronger) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionOverridden, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonNotOverridden,
			Message: "No stronger RouteMode asks for another mode between the same nodes.",
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionOverridden, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonStrongerRouteMode,
		Message: messages.Clip(messages.Condition, fmt.Sprintf("Between some of the nodes that it selects, stronger RouteModes ask for another mode, and decide: %s."+
			" The highest priority wins, then the older object, then the name.", messages.Some(stronger))),
	}
}

// strengthOf is what decides between RouteModes, here as on the nodes.
func strengthOf(m *podnetv1alpha1.RouteMode) model.RouteMode {
	return model.RouteMode{Name: m.Name, Priority: ptr.Deref(m.Spec.Priority, 0), Created: m.CreationTimestamp.Time}
}

// group is nodes that no RouteMode can tell apart.
type group struct {
	labels labels.Set
	nodes  int
}

// groups sorts the nodes by those labels that RouteModes select by: there are as
// many groups as racks or zones, not as nodes.
func (v routeModeView) groups() []group {
	keys := labelKeysOf(v.others)
	byKey := map[string]*group{}
	for i := range v.nodes {
		of := labelsOf(&v.nodes[i], keys)
		key := labels.Set(of).String()
		if byKey[key] == nil {
			byKey[key] = &group{labels: of}
		}
		byKey[key].nodes++
	}
	out := make([]group, 0, len(byKey))
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		out = append(out, *byKey[key])
	}
	return out
}

// sides are the groups that each selector of a RouteMode selects; one selector
// stands for both ends of a pair.
type sides [2][]bool

// sidesOf returns no group for a RouteMode that is not accepted.
func sidesOf(mode *podnetv1alpha1.RouteMode, groups []group) sides {
	out := sides{make([]bool, len(groups)), make([]bool, len(groups))}
	selectors, err := selectorsOf(mode)
	if err != nil || len(selectors) == 0 {
		return out
	}
	for i, g := range groups {
		out[0][i] = selectors[0].Matches(g.labels)
		out[1][i] = selectors[len(selectors)-1].Matches(g.labels)
	}
	return out
}

func (s sides) selects(a, b int) bool { return s[0][a] && s[1][b] || s[0][b] && s[1][a] }

// meet reports whether both select one pair of different nodes.
func (s sides) meet(other sides, groups []group) bool {
	for a := range groups {
		for b := a; b < len(groups); b++ {
			if (a != b || groups[a].nodes > 1) && s.selects(a, b) && other.selects(a, b) {
				return true
			}
		}
	}
	return false
}
