// Package admission finds out whether the API server holds agents to their own
// nodes, by asking for a write that must be refused. What it finds is for people:
// agent/status tells them.
package admission

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// FindingAdmissionOff is the type of the finding that nothing holds agents to their
// own nodes.
const FindingAdmissionOff = "AdmissionOff"

const (
	// interval, and up to as much again, is the time between two questions. 5,000
	// agents ask some five times a second.
	interval = 10 * time.Minute
	// retry, and up to as much again, is the time after one that was not answered.
	retry = time.Minute
	// tries is how many other nodes are tried at most: one that is just joining has no
	// NodeNetwork yet.
	tries = 3
)

// Guard asks whether this node's agent could speak for another node.
type Guard struct {
	// Client has the agent's rights and its token.
	Client client.StatusClient
	Node   string
	// Nodes returns nodes of the cluster, each once or several times.
	Nodes func(ctx context.Context) ([]string, error)
	// Changed is called when Findings has changed.
	Changed func()

	mu sync.Mutex
	// open is the node that this agent could have spoken for; empty where it could not,
	// and where that is unknown.
	open string
}

// Run asks at once, and now and then, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	for {
		next := interval
		if err := g.Check(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Info("cannot find out whether admission holds agents to their own nodes, trying again", "reason", err.Error())
			next = retry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.Jitter(next, 1)):
		}
	}
}

// Check asks the API server for a write of another node's status, which would change
// nothing. It does not ask where there is no other node.
func (g *Guard) Check(ctx context.Context) error {
	nodes, err := g.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("find another node: %w", err)
	}
	asked := map[string]bool{g.Node: true}
	for _, i := range rand.Perm(len(nodes)) { //nolint:gosec // It need not be unpredictable.
		node := nodes[i]
		if asked[node] {
			continue
		}
		if len(asked) > tries {
			return nil
		}
		asked[node] = true
		err := g.Client.Status().Patch(ctx, &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: node}},
			client.RawPatch(types.MergePatchType, []byte(`{}`)), client.DryRunAll)
		switch {
		case err == nil:
			g.found(ctx, node)
			return nil
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
			g.found(ctx, "")
			return nil
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("ask for a write of NodeNetwork %s: %w", node, err)
		}
	}
	return nil
}

func (g *Guard) found(ctx context.Context, open string) {
	g.mu.Lock()
	changed := (open == "") != (g.open == "")
	if changed {
		g.open = open
	}
	g.mu.Unlock()
	if !changed {
		return
	}
	if open != "" {
		log.FromContext(ctx).Info("nothing holds agents to their own nodes", "could have written the status of", open)
	}
	g.Changed()
}

// Findings returns what was found, for people.
func (g *Guard) Findings() []model.Finding {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == "" {
		return nil
	}
	return []model.Finding{{Type: FindingAdmissionOff, Message: fmt.Sprintf(
		"The API server would let this node's agent write the status of another node (%s), so that whoever takes over one node could "+
			"speak for all: install the ValidatingAdmissionPolicy podnet-agent-own-node and its binding again, as the chart and "+
			"config/admission have them, and give nobody's agent the verb report-any on nodenetworks.", g.open)}}
}
