package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
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
		ctrl.LoggerFrom(ctx).V(1).Info("some ranges select no node", "reason", err.Error())
	}
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, subnets, client.MatchingFields{nodeField: node.Name}); err != nil {
		return holdings{}, fmt.Errorf("list the blocks of Node %s: %w", node.Name, err)
	}
	return holdingsOf(node, subnets.Items, report, network, ranges), nil
}

// allocate creates the blocks that the node needs. The node is read again, from
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
	wants := [...]want{r.want(has, true), r.want(has, false)}
	picked := r.Ledger.pick(wants[0].demand, wants[1].demand)
	defer func() { r.Ledger.giveBack(slices.Concat(picked...)) }()
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
			if !r.RollCall.Over() {
				return allocation{pending: true}, nil
			}
			_, err := r.createSubnet(ctx, live, picked[i][n])
			if apierrors.IsAlreadyExists(err) {
				// Somebody was faster: the block is theirs, and the next one may be free.
				picked[i] = append(picked[i], r.Ledger.pick(demand{w.ranges, 1})[0]...)
				continue
			}
			if err != nil {
				return out, err
			}
			left--
			out.held++
			out.created = append(out.created, picked[i][n])
		}
	}
	out.shortage = strings.TrimSpace(strings.Join(shortages, " "))
	return out, nil
}

// want is a demand, and whether pods wait for it or the next one would.
type want struct {
	demand
	urgent bool
}

// want returns what the node is to get of a family. The last blocks are for nodes
// whose pods would wait, and not for reserves.
func (r *NodeReconciler) want(has holdings, is4 bool) want {
	decision, eligible := has.decide(is4), has.ranges.eligible(is4, has.node.Labels)
	w := want{demand{eligible, decision.Add}, decision.Urgent}
	if w.blocks > 0 && !w.urgent && r.Ledger.scarce(eligible) {
		w.blocks = 0
	}
	return w
}

// limited says in sentences that the node needs more blocks than it may have, or than it
// may keep from others; empty where it does not.
func (h holdings) limited() string {
	var sentences []string
	for _, is4 := range []bool{true, false} {
		d := h.decide(is4)
		switch {
		case !d.Urgent:
		case d.Limited:
			sentences = append(sentences, fmt.Sprintf(
				"Node %s has used up its %s blocks and holds as many as a node may: raise spec.nodeBlocks.max of PodNetwork %s (%d), or run fewer pods there.",
				h.node.Name, familyName(is4), podnetv1alpha1.DefaultPodNetwork, maxBlocks(h.limits)))
		case d.Kept:
			sentences = append(sentences, fmt.Sprintf(
				"Node %s keeps as many %s blocks from others as a node may, twice spec.nodeBlocks.max of PodNetwork %s (%d), since some that it left have pods or rest."+
					" Wait until they are free, and let the node's labels choose the same ranges meanwhile.",
				h.node.Name, familyName(is4), podnetv1alpha1.DefaultPodNetwork, maxBlocks(h.limits)))
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

// createSubnet makes a block a node's.
func (r *NodeReconciler) createSubnet(ctx context.Context, node *corev1.Node, block netip.Prefix) (*podnetv1alpha1.NodeSubnet, error) {
	name, err := ipam.BlockName(block)
	if err != nil {
		return nil, fmt.Errorf("name a block of Node %s: %w", node.Name, err)
	}
	endpoints, err := r.endpoints(ctx, node)
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
	if err := r.Create(ctx, subnet); err != nil {
		return nil, fmt.Errorf("create NodeSubnet %s for Node %s: %w", name, node.Name, err)
	}
	r.Ledger.add(name, block.String())
	return subnet, nil
}

// endpoints returns those of the addresses that Kubernetes knows which others may be told.
func (r *NodeReconciler) endpoints(ctx context.Context, node *corev1.Node) ([]string, error) {
	network, err := servedNetwork(ctx, r)
	if err != nil {
		return nil, err
	}
	known, err := registryOf(ctx, r, network)
	if err != nil {
		return nil, err
	}
	// The NodeSubnet controller reports those that are refused.
	endpoints, _, err := known.publish(node, internalIPs(node), nil)
	return endpoints, err
}
