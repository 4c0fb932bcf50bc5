package controllers

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// view is all that the status of the served PodNetwork sums up.
type view struct {
	allocation.Census
	// nodes are those that carry pods, and agentless those that could and have had no
	// agent for long.
	nodes     []corev1.Node
	agentless []string
	// waits is after what time more nodes count as such; 0 where none will.
	waits   time.Duration
	reports map[string]*podnetv1alpha1.NodeNetwork
	// used are the addresses that pods have of the blocks that their nodes hold.
	used map[nodeBlock]int64
	// claimed are the blocks in use whose objects are gone and will be made again.
	claimed []netip.Prefix
	// missing are the nodes that have still to answer the roll call.
	missing []string
	// everyNode are the nodes, those that carry no pods included, services the
	// ServiceCIDRs, and overlaps what the ranges overlap of all that.
	everyNode []corev1.Node
	services  []networkingv1.ServiceCIDR
	overlaps  []ipam.Overlap
}

func (v *view) accepted() metav1.Condition {
	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonAccepted,
		Message: "The network is in force.",
	}
	if v.Invalid != nil {
		c.Status, c.Reason = metav1.ConditionFalse, podnetv1alpha1.ReasonInvalidSelector
		c.Message = messages.Clip(messages.Condition, fmt.Sprintf("No node gets a block of a range whose nodeSelector is invalid: %s. Correct the selector.", oneLine(v.Invalid)))
	}
	return c
}

// readiness counts the nodes that carry pods and names the others, those whose agents do
// not respond apart.
func (v *view) readiness() (ready int32, notReady, silent []string) {
	for i := range v.nodes {
		node := &v.nodes[i]
		report := v.reports[node.Name]
		switch {
		case report == nil || !objects.OwnedBy(report, node):
			notReady = append(notReady, node.Name)
		case carriesPods(report):
			ready++
		case !responds(report):
			silent = append(silent, node.Name)
		default:
			notReady = append(notReady, node.Name)
		}
	}
	return ready, notReady, silent
}

func (v *view) ready(notReady, silent []string) metav1.Condition {
	c := metav1.Condition{Type: podnetv1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	switch {
	case len(v.nodes) == 0:
		c.Reason, c.Message = podnetv1alpha1.ReasonNoNodes, "The cluster has no node yet on which an agent runs."
	case len(notReady)+len(silent) > 0:
		c.Reason = podnetv1alpha1.ReasonNodesNotReady
		var sentences []string
		if len(silent) > 0 {
			sentences = append(sentences, fmt.Sprintf("The agents of %d of %d nodes do not respond: %s."+
				" Check these nodes and their agents.", len(silent), len(v.nodes), messages.Some(silent)))
		}
		if len(notReady) > 0 {
			sentences = append(sentences, fmt.Sprintf("The agents of %d of %d nodes have not programmed the network: %s."+
				" The NodeNetwork of such a node says why, if its agent runs.", len(notReady), len(v.nodes), messages.Some(notReady)))
		}
		c.Message = strings.Join(sentences, " ")
	default:
		c.Status, c.Reason = metav1.ConditionTrue, podnetv1alpha1.ReasonAllNodesReady
		c.Message = "Every node's agent has programmed the network."
	}
	if len(v.agentless) > 0 {
		c.Message += fmt.Sprintf(" On %d nodes no agent has ever run, and they do not count: %s.", len(v.agentless), messages.Some(v.agentless))
	}
	return c
}

// sortNodes tells the nodes that carry pods from those on which no agent is to run.
func (v *view) sortNodes(now time.Time) {
	for _, node := range v.everyNode {
		if !objects.Carries(&node) {
			continue
		}
		report := v.reports[node.Name]
		if report == nil || !objects.OwnedBy(report, &node) || reported(report) {
			v.nodes = append(v.nodes, node)
			continue
		}
		left := agentPatience - now.Sub(report.CreationTimestamp.Time)
		if left <= 0 {
			v.agentless = append(v.agentless, node.Name)
			continue
		}
		v.nodes = append(v.nodes, node)
		if v.waits == 0 || left < v.waits {
			v.waits = left
		}
	}
}

// exhausted says which nodes wait for a block that no range has.
func (v *view) exhausted() metav1.Condition {
	var waiting, reasons []string
	for i := range v.nodes {
		node := &v.nodes[i]
		if !reported(v.reports[node.Name]) {
			continue // It gets none before.
		}
		if shortage := v.Shortage(node, v.reports[node.Name]); shortage != "" && node.DeletionTimestamp.IsZero() {
			waiting = append(waiting, node.Name)
			reasons = append(reasons, shortage)
		}
	}
	if len(waiting) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionExhausted, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonBlocksFree,
			Message: "No node waits for a block that the ranges do not have.",
		}
	}
	slices.Sort(reasons)
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionExhausted, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonNoFreeBlock,
		Message: messages.Clip(messages.Condition, fmt.Sprintf("%d of %d nodes wait for a block: %s. %s",
			len(waiting), len(v.nodes), messages.Some(waiting), strings.Join(slices.Compact(reasons), " "))),
	}
}

// allocating reports whether blocks are given out.
func (v *view) allocating() metav1.Condition {
	if len(v.missing) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionAllocating, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonAllocating,
			Message: "Nodes get blocks as they need them.",
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionAllocating, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonRollCall,
		Message: fmt.Sprintf("Allocation is paused (for at most %s) until every agent has reported the blocks that its pods use. Waiting for %d: %s."+
			" Check the agents of these nodes, and restart them if they hang.",
			allocation.Patience, len(v.missing), messages.Some(v.missing)),
	}
}

func (v *view) conflicting() metav1.Condition {
	conflicts := v.Conflicts()
	if len(conflicts) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionSubnetsConflict, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonNoConflict,
			Message: "No two NodeSubnets overlap, and all lie within the ranges.",
		}
	}
	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionSubnetsConflict, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonOutsideRanges,
	}
	var sentences []string
	for _, conflict := range conflicts {
		if !conflict.Outside() {
			c.Reason = podnetv1alpha1.ReasonOverlap
		}
		if len(sentences) < messages.Named {
			sentences = append(sentences, conflict.String()+".")
		}
	}
	if more := len(conflicts) - len(sentences); more > 0 {
		sentences = append(sentences, fmt.Sprintf("%d more are not listed.", more))
	}
	c.Message = messages.Clip(messages.Condition, strings.Join(sentences, " "))
	return c
}

// oneLine is the text of an error, those that were joined separated by semicolons.
func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// count is the length of a list as statuses have it.
func count[T any](list []T) int32 {
	return int32(min(len(list), math.MaxInt32))
}

// conditions are conditions as they are applied.
func conditions(list []metav1.Condition) []*metav1ac.ConditionApplyConfiguration {
	out := make([]*metav1ac.ConditionApplyConfiguration, len(list))
	for i, c := range list {
		out[i] = metav1ac.Condition().WithType(c.Type).WithStatus(c.Status).WithReason(c.Reason).WithMessage(c.Message).
			WithObservedGeneration(c.ObservedGeneration).WithLastTransitionTime(c.LastTransitionTime)
	}
	return out
}
