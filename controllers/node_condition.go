package controllers

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
)

// setNetworkUnavailable writes the Node's condition of that type where it has to
// change. It turns True only for want of a block: an agent that restarts, or
// reports trouble later, must not have its node tainted while pods go on talking.
func (r *NodeReconciler) setNetworkUnavailable(
	ctx context.Context, node *corev1.Node, report *podnetv1alpha1.NodeNetwork, outcome allocation.Outcome,
) error {
	have := networkUnavailable(node)
	want := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable}
	switch {
	case outcome.Held == 0 && outcome.Shortage != "":
		want.Status, want.Reason, want.Message = corev1.ConditionTrue, podnetv1alpha1.ReasonPodnetNoFreeBlock, outcome.Shortage
	case outcome.Held > 0 && carriesPods(report):
		want.Status, want.Reason = corev1.ConditionFalse, podnetv1alpha1.ReasonPodnetProgrammed
		want.Message = "podnet has programmed the network of this node."
	case have.Reason == podnetv1alpha1.ReasonPodnetNoFreeBlock:
		want.Status, want.Reason = corev1.ConditionTrue, podnetv1alpha1.ReasonPodnetNotProgrammed
		want.Message = "The node has its block of pod addresses, and podnet's agent has not programmed the network yet."
	default:
		return nil
	}
	if have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
		return nil
	}
	now := metav1.NewTime(r.Clock.Now())
	want.LastHeartbeatTime, want.LastTransitionTime = now, now
	if have.Status == want.Status {
		want.LastTransitionTime = have.LastTransitionTime
	}
	// The list of conditions is merged by type, so those of others stay as they are.
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{want}}})
	if err != nil {
		return fmt.Errorf("write down the condition of Node %s: %w", node.Name, err)
	}
	err = r.Status().Patch(ctx, node.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, patch))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("set condition %s of Node %s: %w", want.Type, node.Name, err)
	}
	return nil
}

// networkUnavailable returns the Node's condition of that type, or an empty one.
func networkUnavailable(node *corev1.Node) corev1.NodeCondition {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			return c
		}
	}
	return corev1.NodeCondition{}
}
