package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// rollCallPatience is how long agents have for their answer: many times what one
// takes whose watch broke unnoticed. A node whose agent does not run must not keep
// others from growing for ever.
const rollCallPatience = 3 * time.Minute

// RollCall keeps blocks from being given out before every agent has said which
// ones its pods use. The API server may hold less than the nodes do, as after a
// restore of etcd from a backup, and nothing in it says so. A manager calls when
// it begins to lead, and again when a NodeSubnet disappears that was not released.
type RollCall struct {
	Clock clock.PassiveClock

	mu    sync.Mutex
	id    string
	began time.Time
	over  bool
}

// Begin makes all agents be asked anew. Before the first call, which is still to
// come, it does nothing.
func (c *RollCall) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != "" {
		c.begin()
	}
}

func (c *RollCall) begin() {
	c.id, c.began, c.over = string(uuid.NewUUID()), c.Clock.Now(), false
}

// ID identifies the last call. The first one begins when somebody asks for it.
func (c *RollCall) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == "" {
		c.begin()
	}
	return c.id
}

// Over says whether the last call is over.
func (c *RollCall) Over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// Missing returns the names of the nodes that have still to answer, or whose answers
// name blocks that are still to be made theirs again; none once the call is over.
// Those that never answered one are not waited for, as their agents may not know
// how, nor those that are not ready.
func (c *RollCall) Missing(ctx context.Context, reader client.Reader) ([]string, error) {
	id := c.ID()
	c.mu.Lock()
	over, late := c.over, c.Clock.Since(c.began) > rollCallPatience
	c.mu.Unlock()
	if over {
		return nil, nil
	}
	nodes, reports := &corev1.NodeList{}, &podnetv1alpha1.NodeNetworkList{}
	for _, list := range []client.ObjectList{nodes, reports} {
		if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing who is to answer the roll call: %w", err)
		}
	}
	byName := make(map[string]*corev1.Node, len(nodes.Items))
	for i := range nodes.Items {
		byName[nodes.Items[i].Name] = &nodes.Items[i]
	}
	var missing []string
	for i := range reports.Items {
		report := &reports.Items[i]
		node := byName[report.Name]
		if node != nil && isReady(node) && ownedBy(report, node) && report.Status.RollCall != "" && report.Status.RollCall != id {
			missing = append(missing, report.Name)
		}
	}
	if len(missing) == 0 {
		var err error
		if missing, err = unhealed(ctx, reader, byName, reports.Items); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 && !late {
		slices.Sort(missing)
		return missing, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == id {
		c.over = true
		ctrl.LoggerFrom(ctx).Info("The roll call is over", "after", c.Clock.Since(c.began).String(), "missing", some(missing))
	}
	return nil, nil
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
