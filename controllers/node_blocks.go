package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// allocation is what came out of looking after a node's blocks.
type allocation struct {
	// held is the number of blocks that the node has.
	held int
	// created are those among them that it just got.
	created []netip.Prefix
	// shortage says in a sentence why the node lacks a block; empty if it lacks none.
	shortage string
	// pending says that blocks are not given out yet, and the node has to come again.
	pending bool
}

// ensureBlocks sees to it that the node holds the blocks that it needs of each
// family that the ranges have for it.
func (r *NodeReconciler) ensureBlocks(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork,
) (allocation, error) {
	has, err := r.holdings(ctx, node, network, report)
	if err != nil {
		return allocation{}, err
	}
	out := allocation{held: len(has.subnets), shortage: has.limited()}
	if len(has.ranges.families(node.Labels)) == 0 && out.held == 0 {
		out.shortage = unselected()
	}
	if has.decide(true).Add == 0 && has.decide(false).Add == 0 {
		return out, nil
	}
	return r.allocate(ctx, node, report)
}

func (r *NodeReconciler) holdings(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork,
) (holdings, error) {
	ranges, err := poolOf(network)
	if err != nil {
		// The network's conditions say so too.
		ctrl.LoggerFrom(ctx).V(1).Info("Some ranges select no node", "reason", err.Error())
	}
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, subnets, client.MatchingFields{nodeField: node.Name}); err != nil {
		return holdings{}, fmt.Errorf("listing the blocks of Node %s: %w", node.Name, err)
	}
	return holdingsOf(node, subnets.Items, report, network, ranges), nil
}

// allocate creates the blocks that the node needs. The node is read anew, from
// the API server itself: a cache that lags must not give a block to one that is
// gone. That no block is held twice does not depend on it: Create sees to that;
// and a block too many goes back when it was empty for a while.
func (r *NodeReconciler) allocate(ctx context.Context, node *corev1.Node, report *podnetv1alpha1.NodeNetwork) (allocation, error) {
	r.Allocation.RLock()
	defer r.Allocation.RUnlock()
	missing, err := r.RollCall.Missing(ctx, r)
	if err != nil || len(missing) > 0 || !r.Ledger.synced() {
		return allocation{pending: true}, err
	}
	network, err := servedNetwork(ctx, r)
	if err != nil || network == nil {
		return allocation{}, err
	}
	live, err := liveNode(ctx, r.Live, node.Name)
	if err != nil || live == nil || live.UID != node.UID {
		return allocation{}, err
	}
	has, err := r.holdings(ctx, live, network, report)
	if err != nil {
		return allocation{}, err
	}
	out := allocation{held: len(has.subnets)}
	shortages := []string{has.limited()}
	for _, is4 := range []bool{true, false} {
		decision := has.decide(is4)
		// The last blocks are for nodes whose pods would wait, and not for reserves.
		if !decision.Urgent && r.Ledger.scarce(has.ranges.eligible(is4, live.Labels)) {
			continue
		}
		for range decision.Add {
			block, err := r.create(ctx, live, has.ranges.eligible(is4, live.Labels))
			if errors.Is(err, errExhausted) {
				// As long as something is free for the next pod, nobody waits.
				if decision.Urgent {
					shortages = append(shortages, has.ranges.eligible(is4, live.Labels).exhaustion())
				}
				break
			}
			if errors.Is(err, errCalled) {
				return allocation{pending: true}, nil
			}
			if err != nil {
				return out, err
			}
			out.held++
			out.created = append(out.created, block)
			decision.Urgent = false
		}
	}
	out.shortage = strings.TrimSpace(strings.Join(shortages, " "))
	return out, nil
}

// limited says in a sentence that the node needs more blocks than it may have;
// empty where it does not.
func (h holdings) limited() string {
	var sentences []string
	for _, is4 := range []bool{true, false} {
		if d := h.decide(is4); d.Limited && d.Urgent {
			sentences = append(sentences, fmt.Sprintf(
				"Node %s has used up its %s blocks and holds as many as a node may: raise spec.nodeBlocks.max of PodNetwork %s (%d), or run fewer pods there.",
				h.node.Name, familyName(is4), podnetv1alpha1.DefaultPodNetwork, h.limits.Max))
		}
	}
	return strings.Join(sentences, " ")
}

func familyName(is4 bool) podnetv1alpha1.AddressFamily {
	if is4 {
		return podnetv1alpha1.IPv4
	}
	return podnetv1alpha1.IPv6
}

// errExhausted says that no range has a free block.
var errExhausted = errors.New("no free block is left")

// errCalled says that a roll call has begun meanwhile.
var errCalled = errors.New("a roll call has begun")

// create takes the lowest free block of the first range that has one.
func (r *NodeReconciler) create(ctx context.Context, node *corev1.Node, ranges pool) (netip.Prefix, error) {
	// What others took meanwhile is not asked for again within this allocation.
	var tried []netip.Prefix
	defer func() { r.Ledger.giveBack(tried) }()
	for _, from := range ranges {
		for {
			block, found := r.Ledger.next(from.Range)
			if !found {
				break
			}
			tried = append(tried, block)
			// It may be free only because its object has just disappeared.
			if !r.RollCall.Over() {
				return netip.Prefix{}, errCalled
			}
			_, err := r.createSubnet(ctx, node, block)
			if err == nil {
				return block, nil
			}
			// Somebody was faster: the block is theirs, and the next one may be free.
			if !apierrors.IsAlreadyExists(err) {
				return netip.Prefix{}, err
			}
		}
	}
	return netip.Prefix{}, errExhausted
}

// createSubnet makes a block a node's.
func (r *NodeReconciler) createSubnet(ctx context.Context, node *corev1.Node, block netip.Prefix) (*podnetv1alpha1.NodeSubnet, error) {
	name, err := ipam.BlockName(block)
	if err != nil {
		return nil, fmt.Errorf("naming a block of Node %s: %w", node.Name, err)
	}
	subnet := &podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{podnetv1alpha1.NodeSubnetFinalizer}},
		Spec: podnetv1alpha1.NodeSubnetSpec{
			Network: podnetv1alpha1.DefaultPodNetwork, Node: node.Name, NodeUID: node.UID, CIDR: block.String(),
			// The NodeSubnet controller replaces these by what the agent reports.
			Endpoints: internalIPs(node), State: podnetv1alpha1.SubnetActive,
		},
	}
	if err := r.Create(ctx, subnet); err != nil {
		return nil, fmt.Errorf("creating NodeSubnet %s for Node %s: %w", name, node.Name, err)
	}
	r.Ledger.add(name, block.String())
	return subnet, nil
}
