package controllers

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
)

const (
	// heartbeatsInterval is how often the heartbeats are looked at.
	heartbeatsInterval = 5 * time.Second
	// heartbeatsLate is how much time between two looks is so much that the manager
	// itself cannot have heard of renewals.
	heartbeatsLate = 3 * heartbeatsInterval
)

// LeaseCache is what the manager's cache keeps of Leases: when agents renewed theirs,
// in podnet's own namespace. 5,000 of them make 250 changes a second.
func LeaseCache(namespace string) cache.ByObject {
	return cache.ByObject{
		Namespaces: map[string]cache.Config{namespace: {}},
		Label:      labels.SelectorFromSet(labels.Set{podnetv1alpha1.HeartbeatLabel: podnetv1alpha1.HeartbeatOfAgent}),
		Transform: func(o any) (any, error) {
			lease, ok := o.(*coordinationv1.Lease)
			if !ok {
				return o, nil
			}
			return &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: lease.Namespace, Name: lease.Name, UID: lease.UID, ResourceVersion: lease.ResourceVersion, Labels: lease.Labels,
				},
				Spec: coordinationv1.LeaseSpec{RenewTime: lease.Spec.RenewTime},
			}, nil
		},
	}
}

// Heartbeats writes into the NodeNetworks of agents that do not respond that they do
// not. Of an agent that has no Lease, or none that it renews, as those of podnet's version
// before do not, it goes by whether the node's kubelet responds.
type Heartbeats struct {
	client.Client
	// Live reads from the API server.
	Live client.Reader
	// Events records what users need to know.
	Events events.EventRecorder
	Clock  clock.WithTicker
	// Namespace is podnet's own; where it is empty there are no Leases.
	Namespace string

	// heard holds the last renewal of each Lease, and when the manager heard of it: by its
	// own clock, as those of nodes may be wrong.
	heard map[string]renewal
	// wrote holds the last write of each agent that was seen.
	wrote map[string]write
	// since is since when the manager can have heard of renewals, and looked when it
	// looked last.
	since, looked time.Time
}

type renewal struct {
	renewed, heard time.Time
	// unused says that the agent wrote its status long after the last renewal: it lives
	// without renewing its Lease.
	unused bool
}

// write is an agent's status as of some version, and when the manager saw that the agent
// wrote it: never where it was there at the first look.
type write struct {
	version string
	seen    time.Time
}

// Start implements manager.Runnable. Only a manager that leads runs it.
func (h *Heartbeats) Start(ctx context.Context) error {
	ticker := h.Clock.NewTicker(heartbeatsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
		if err := h.look(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Info("cannot check the heartbeats of all agents, trying again", "reason", err.Error())
		}
	}
}

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// It reports on the nodes of agents that do not respond, as podnet-agent-own-node lets nobody else.
// +kubebuilder:rbac:groups=podnet.dev,resources=nodenetworks,verbs=get;list;watch;report-any
// +kubebuilder:rbac:groups=podnet.dev,resources=nodenetworks/status,verbs=patch

// look marks the NodeNetworks of agents that do not respond.
func (h *Heartbeats) look(ctx context.Context) error {
	now := h.Clock.Now()
	late := now.Sub(h.looked) > heartbeatsLate
	h.looked = now
	err := h.Live.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, &podnetv1alpha1.PodNetwork{})
	if late || client.IgnoreNotFound(err) != nil {
		// While the manager was away, or the API server was, nobody's renewals came here.
		h.since = h.Clock.Now()
		return client.IgnoreNotFound(err)
	}
	if err := h.listen(ctx, now); err != nil {
		return err
	}
	nodes, reports := &corev1.NodeList{}, &podnetv1alpha1.NodeNetworkList{}
	for _, list := range []client.ObjectList{nodes, reports} {
		if err := h.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list what has heartbeats: %w", err)
		}
	}
	byName := make(map[string]*corev1.Node, len(nodes.Items))
	for i := range nodes.Items {
		byName[nodes.Items[i].Name] = &nodes.Items[i]
	}
	h.read(reports.Items, now)
	var failed error
	for i := range reports.Items {
		report := &reports.Items[i]
		node := byName[report.Name]
		if node == nil || !objects.OwnedBy(report, node) || !expectsHeartbeat(report) {
			continue
		}
		message := h.silence(node, now)
		if message == "" {
			continue
		}
		if err := h.mark(ctx, report, node, message); err != nil {
			failed = err
		}
	}
	return failed
}

// listen takes note of renewals.
func (h *Heartbeats) listen(ctx context.Context, now time.Time) error {
	if h.Namespace == "" {
		return nil
	}
	leases := &coordinationv1.LeaseList{}
	if err := h.List(ctx, leases, client.InNamespace(h.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list Leases: %w", err)
	}
	heard := make(map[string]renewal, len(leases.Items))
	for i := range leases.Items {
		lease := &leases.Items[i]
		is := renewal{heard: now}
		if lease.Spec.RenewTime != nil {
			is.renewed = lease.Spec.RenewTime.Time
		}
		if was, known := h.heard[lease.Name]; known && was.renewed.Equal(is.renewed) {
			is.heard, is.unused = was.heard, was.unused
		}
		heard[lease.Name] = is
	}
	h.heard = heard
	return nil
}

// read takes note of what agents wrote: who writes lives. An agent that writes although its
// Lease has been old for long is of the version before, or cannot renew it: from then on its
// Lease says nothing, until it is renewed.
func (h *Heartbeats) read(reports []podnetv1alpha1.NodeNetwork, now time.Time) {
	wrote := make(map[string]write, len(reports))
	for i := range reports {
		report := &reports[i]
		was, known := h.wrote[report.Name]
		is := write{version: report.ResourceVersion, seen: was.seen}
		if known && was.version != is.version && expectsHeartbeat(report) { // What is not the manager's own mark.
			is.seen = now
			if last, has := h.heard[report.Name]; has && h.old(last, now) {
				last.unused = true
				h.heard[report.Name] = last
			}
		}
		wrote[report.Name] = is
	}
	h.wrote = wrote
}

// old reports whether a Lease should have been renewed long ago.
func (h *Heartbeats) old(last renewal, now time.Time) bool {
	return now.Sub(later(last.heard, h.since)) > podnetv1alpha1.HeartbeatPatience
}

// expectsHeartbeat reports whether a status is an agent's that is to be alive.
func expectsHeartbeat(report *podnetv1alpha1.NodeNetwork) bool {
	return apimeta.FindStatusCondition(report.Status.Conditions, podnetv1alpha1.ConditionProgrammed) != nil && responds(report) &&
		!apimeta.IsStatusConditionTrue(report.Status.Conditions, podnetv1alpha1.ConditionRemoved)
}

// responds reports whether the manager has not said of an agent that it does not respond.
func responds(report *podnetv1alpha1.NodeNetwork) bool {
	c := apimeta.FindStatusCondition(report.Status.Conditions, podnetv1alpha1.ConditionProgrammed)
	return c == nil || c.Reason != podnetv1alpha1.ReasonAgentNotResponding
}

// silence says since when a node's agent has not responded and what to do; nothing where it
// responds or that is unknown.
func (h *Heartbeats) silence(node *corev1.Node, now time.Time) string {
	kubelet := nodeReady(node)
	last, known := h.heard[node.Name]
	known = known && !last.unused
	wrote := h.wrote[node.Name].seen
	switch {
	case now.Sub(wrote) <= podnetv1alpha1.HeartbeatPatience:
		return ""
	case known && h.old(last, now):
	case !known && kubelet.Status == corev1.ConditionUnknown:
		last.renewed = kubelet.LastHeartbeatTime.Time
	default:
		return ""
	}
	since := later(last.renewed, wrote).UTC().Format(time.RFC3339)
	if kubelet.Status == corev1.ConditionUnknown {
		return fmt.Sprintf("The agent of this node has not responded since %s, and its kubelet does not either: the node is down or cut off."+
			" Look at node %s itself.", since, node.Name)
	}
	where := ""
	if h.Namespace != "" {
		where = "-n " + h.Namespace + " "
	}
	return fmt.Sprintf("The agent of this node has not responded since %s: running pods keep the network that they have, and new ones wait."+
		" Look at it with `kubectl %sget pods -o wide --field-selector spec.nodeName=%s`, and restart it if it hangs.", since, where, node.Name)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// nodeReady returns the Node's condition Ready, or an empty one.
func nodeReady(node *corev1.Node) corev1.NodeCondition {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// mark writes into a NodeNetwork that its agent does not respond, as that agent: all
// else stays as the agent wrote it. The API server is asked before, since the cache may lag.
func (h *Heartbeats) mark(ctx context.Context, report *podnetv1alpha1.NodeNetwork, node *corev1.Node, message string) error {
	if renewed, err := h.renewedMeanwhile(ctx, node.Name); err != nil || renewed {
		return err
	}
	// Not of this manager's types: a newer agent may have written more than they hold.
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(podnetv1alpha1.GroupVersion.WithKind("NodeNetwork"))
	if err := h.Live.Get(ctx, client.ObjectKeyFromObject(report), live); err != nil {
		return client.IgnoreNotFound(err)
	}
	if live.GetResourceVersion() != report.ResourceVersion {
		return nil // The next look knows more.
	}
	status, err := h.unresponsive(live, message)
	if err != nil {
		return err
	}
	apply := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	apply.SetGroupVersionKind(live.GroupVersionKind())
	apply.SetName(live.GetName())
	apply.SetResourceVersion(live.GetResourceVersion())
	// Consistent reads would make an informer for objects without a type.
	err = h.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(apply), client.FieldOwner(podnetv1alpha1.AgentFieldOwner),
		client.ForceOwnership, client.DisableReadYourWritesConsistency)
	if err != nil {
		return fmt.Errorf("write the status of NodeNetwork %s: %w", report.Name, err)
	}
	ctrl.LoggerFrom(ctx).Info("an agent does not respond", "node", node.Name, "lastRenewal", h.heard[node.Name].renewed)
	h.Events.Eventf(report, node, corev1.EventTypeWarning, podnetv1alpha1.ReasonAgentNotResponding, actionReport, "%s", message)
	return nil
}

// renewedMeanwhile reports whether the API server has a renewal that the cache has not.
func (h *Heartbeats) renewedMeanwhile(ctx context.Context, node string) (bool, error) {
	if h.Namespace == "" {
		return false, nil
	}
	lease := &coordinationv1.Lease{}
	err := h.Live.Get(ctx, client.ObjectKey{Namespace: h.Namespace, Name: node}, lease)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read Lease %s: %w", node, err)
	}
	return err == nil && lease.Spec.RenewTime != nil && !lease.Spec.RenewTime.Time.Equal(h.heard[node].renewed), nil
}

// unresponsive returns a status with those conditions changed that an agent which does
// not respond cannot answer for.
func (h *Heartbeats) unresponsive(live *unstructured.Unstructured, message string) (map[string]any, error) {
	typed := &podnetv1alpha1.NodeNetwork{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, typed); err != nil {
		return nil, fmt.Errorf("read NodeNetwork %s: %w", live.GetName(), err)
	}
	for _, kind := range []string{podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionPathsProven} {
		if c := apimeta.FindStatusCondition(typed.Status.Conditions, kind); c != nil {
			apimeta.SetStatusCondition(&typed.Status.Conditions, metav1.Condition{
				Type: kind, Status: metav1.ConditionUnknown, Reason: podnetv1alpha1.ReasonAgentNotResponding, Message: message,
				ObservedGeneration: c.ObservedGeneration, LastTransitionTime: metav1.NewTime(h.Clock.Now().Truncate(time.Second)),
			})
		}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&podnetv1alpha1.NodeNetworkStatus{Conditions: typed.Status.Conditions})
	if err != nil {
		return nil, fmt.Errorf("write down the conditions of NodeNetwork %s: %w", live.GetName(), err)
	}
	status, _, err := unstructured.NestedMap(live.Object, "status")
	if err != nil {
		return nil, fmt.Errorf("read the status of NodeNetwork %s: %w", live.GetName(), err)
	}
	status["conditions"] = content["conditions"]
	// An agent of the version before wrote none.
	if summary, ok := status["summary"].(map[string]any); ok {
		summary["problem"], summary["message"] = podnetv1alpha1.ReasonAgentNotResponding, message
	}
	return status, nil
}
