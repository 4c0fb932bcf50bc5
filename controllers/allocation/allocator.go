// Package allocation gives out blocks: which ones a node gets, which stay its own although their
// objects are gone, and when none is given out. Its Allocator creates NodeSubnets, and makes those
// of a recreated node that node's again. A Census says what follows from the objects as they are. How
// many blocks a node needs, and which one of a range comes next, is left to internal/ipam; giving
// back, conditions, and what others must know of a node, to the reconcilers.
package allocation

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// Config is what an Allocator works with.
type Config struct {
	// Client reads from a cache, which finds NodeSubnets by objects.NodeField.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Events records what users need to know.
	Events events.EventRecorder
	Clock  clock.PassiveClock
	// Log is for what happens outside of any reconciler.
	Log logr.Logger
	// Endpoints returns the addresses of a node that others are told in a new block.
	Endpoints func(ctx context.Context, node *corev1.Node) ([]string, error)
}

// Allocator gives blocks to nodes. Its methods may be called concurrently.
type Allocator struct {
	// Counting is held for reading while a block is chosen and created, and for
	// writing by whoever counts the blocks of a range, so that no block comes out of
	// a range after it was reported to be draining and empty.
	Counting sync.RWMutex

	Config
	ledger   *ledger
	rollCall *rollCall
}

// New returns an Allocator that gives out nothing before it follows NodeSubnets.
func New(config Config) *Allocator {
	call := &rollCall{Clock: config.Clock}
	known := newLedger(func(s *podnetv1alpha1.NodeSubnet) {
		config.Log.Info("a NodeSubnet disappeared without being released: asking all agents which blocks they use",
			"nodeSubnet", s.Name, "node", s.Spec.Node)
		call.Begin()
	})
	call.Lost = known.lostBy
	return &Allocator{Config: config, ledger: known, rollCall: call}
}

// Informer calls handlers of NodeSubnets.
type Informer interface {
	AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)
}

// Follow makes the Allocator know which blocks are taken.
func (a *Allocator) Follow(subnets Informer) error {
	registration, err := subnets.AddEventHandler(a.ledger)
	if err != nil {
		return fmt.Errorf("follow NodeSubnets: %w", err)
	}
	a.ledger.synced = registration.HasSynced
	return nil
}

// Forget lets go of what was kept on account of a node that has gone.
func (a *Allocator) Forget(node string) {
	a.ledger.reserve(node, nil)
	a.rollCall.left(node)
}

// RollCall identifies the last roll call. The first one begins when somebody asks for it.
func (a *Allocator) RollCall() string { return a.rollCall.ID() }

// Missing returns the names of the nodes for which allocation is paused: see rollCall.
func (a *Allocator) Missing(ctx context.Context) ([]string, error) {
	return a.rollCall.Missing(ctx, a.Client)
}

// Owed are the blocks in use whose objects are gone and that are still to be made their nodes' again.
func (a *Allocator) Owed(held Census, nodes []corev1.Node, reports []podnetv1alpha1.NodeNetwork) []netip.Prefix {
	var out []netip.Prefix
	for _, owed := range rollOf(nodes, reports).owedBy(held, a.rollCall) {
		out = append(out, owed...)
	}
	return out
}

// Outcome is what came out of looking after a node's blocks.
type Outcome struct {
	// Held is the number of blocks that the node has.
	Held int
	// Created are those among them that it just got.
	Created []netip.Prefix
	// Shortage says in a sentence why the node lacks a block; empty if it lacks none.
	Shortage string
	// Pending says that blocks are not given out yet, and the node has to come again.
	Pending bool
}

// Ensure sees to it that the node holds the blocks that it needs of each
// family that the ranges have for it.
func (a *Allocator) Ensure(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork,
) (Outcome, error) {
	has, err := a.holdings(ctx, node, network, report)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Held: len(has.subnets), Shortage: has.limited()}
	if len(has.ranges.families(node.Labels)) == 0 && out.Held == 0 {
		out.Shortage = unselected()
	}
	if has.decide(true).Add == 0 && has.decide(false).Add == 0 {
		return out, nil
	}
	return a.allocate(ctx, node, report)
}

func (a *Allocator) holdings(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork,
) (Holdings, error) {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := a.Client.List(ctx, subnets, client.MatchingFields{objects.NodeField: node.Name}); err != nil {
		return Holdings{}, fmt.Errorf("list the blocks of Node %s: %w", node.Name, err)
	}
	own := CensusOf(network, subnets.Items)
	if own.Invalid != nil {
		// The network's conditions say so too.
		ctrl.LoggerFrom(ctx).V(1).Info("some ranges select no node", "reason", own.Invalid.Error())
	}
	return own.Holdings(node, report), nil
}

// allocate creates the blocks that the node needs. The node is read again, from
// the API server itself: a cache that lags must not give a block to one that is
// gone. That no block is held twice does not depend on it: Create sees to that;
// and a block too many goes back when it was empty for a while.
func (a *Allocator) allocate(ctx context.Context, node *corev1.Node, report *podnetv1alpha1.NodeNetwork) (Outcome, error) {
	a.Counting.RLock()
	defer a.Counting.RUnlock()
	missing, err := a.rollCall.Missing(ctx, a.Client)
	if err != nil || len(missing) > 0 || !a.ledger.synced() {
		return Outcome{Pending: true}, err
	}
	network, err := objects.ServedNetwork(ctx, a.Client)
	if err != nil || network == nil {
		return Outcome{}, err
	}
	live, err := objects.LiveNode(ctx, a.Live, node.Name)
	if err != nil || live == nil || live.UID != node.UID {
		return Outcome{}, err
	}
	has, err := a.holdings(ctx, live, network, report)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Held: len(has.subnets)}
	shortages := []string{has.limited()}
	wants := [...]want{a.want(has, true), a.want(has, false)}
	picked := a.ledger.pick(wants[0].demand, wants[1].demand)
	defer func() { a.ledger.giveBack(slices.Concat(picked...)) }()
	for i, w := range wants {
		left := w.blocks
		for n := 0; left > 0; n++ {
			if n == len(picked[i]) {
				// As long as something is free for the next pod, nobody waits.
				if w.urgent && left == w.blocks {
					shortages = append(shortages, w.ranges.exhaustion())
				}
				break
			}
			// It may be free only because its object has just disappeared.
			if !a.rollCall.Over() {
				return Outcome{Pending: true}, nil
			}
			_, err := a.createSubnet(ctx, live, picked[i][n])
			if apierrors.IsAlreadyExists(err) {
				// Somebody was faster: the block is theirs, and the next one may be free.
				picked[i] = append(picked[i], a.ledger.pick(demand{w.ranges, 1})[0]...)
				continue
			}
			if err != nil {
				return out, err
			}
			left--
			out.Held++
			out.Created = append(out.Created, picked[i][n])
		}
	}
	out.Shortage = strings.TrimSpace(strings.Join(shortages, " "))
	return out, nil
}

// want is a demand, and whether pods wait for it or the next one would.
type want struct {
	demand
	urgent bool
}

// want returns what the node is to get of a family. The last blocks are for nodes
// whose pods would wait, and not for reserves.
func (a *Allocator) want(has Holdings, is4 bool) want {
	decision, eligible := has.decide(is4), has.ranges.eligible(is4, has.node.Labels)
	w := want{demand{eligible, decision.Add}, decision.Urgent}
	if w.blocks > 0 && !w.urgent && a.ledger.scarce(eligible) {
		w.blocks = 0
	}
	return w
}

// createSubnet makes a block a node's.
func (a *Allocator) createSubnet(ctx context.Context, node *corev1.Node, block netip.Prefix) (*podnetv1alpha1.NodeSubnet, error) {
	name, err := ipam.BlockName(block)
	if err != nil {
		return nil, fmt.Errorf("name a block of Node %s: %w", node.Name, err)
	}
	endpoints, err := a.Endpoints(ctx, node)
	if err != nil {
		return nil, err
	}
	subnet := &podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{podnetv1alpha1.NodeSubnetFinalizer}},
		Spec: podnetv1alpha1.NodeSubnetSpec{
			Network: podnetv1alpha1.DefaultPodNetwork, Node: node.Name, NodeUID: node.UID, CIDR: block.String(),
			// The NodeSubnet controller replaces these by what the agent reports.
			Endpoints: endpoints, State: podnetv1alpha1.SubnetActive,
		},
	}
	if err := a.Client.Create(ctx, subnet); err != nil {
		return nil, fmt.Errorf("create NodeSubnet %s for Node %s: %w", name, node.Name, err)
	}
	a.ledger.add(name, block.String())
	return subnet, nil
}
