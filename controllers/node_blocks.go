package controllers

import (
	"context"
	"errors"
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
}

// ensureBlocks sees to it that the node holds a block of each family that the
// ranges have for it.
func (r *NodeReconciler) ensureBlocks(ctx context.Context, node *corev1.Node) (allocation, error) {
	network, ranges, err := r.ranges(ctx)
	if err != nil || network == nil {
		return allocation{}, err
	}
	subnets := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, subnets, client.MatchingFields{nodeField: node.Name}); err != nil {
		return allocation{}, fmt.Errorf("listing the blocks of Node %s: %w", node.Name, err)
	}
	out := allocation{held: len(heldBy(subnets.Items, node))}
	if len(ranges.families(node.Labels)) == 0 && out.held == 0 {
		out.shortage = unselected()
	}
	if len(lackingFamilies(ranges, node, subnets.Items)) == 0 {
		return out, nil
	}
	return r.allocate(ctx, node)
}

// ranges returns the network, nil where there is none, and its ranges. What is
// wrong with them is said in the network's conditions.
func (r *NodeReconciler) ranges(ctx context.Context) (*podnetv1alpha1.PodNetwork, pool, error) {
	network, err := servedNetwork(ctx, r)
	if err != nil || network == nil {
		return nil, nil, err
	}
	ranges, err := poolOf(network)
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("Some ranges select no node", "reason", err.Error())
	}
	return network, ranges, nil
}

// allocate creates the blocks that the node lacks. What it goes by is read anew,
// the node and its blocks from the API server itself: a cache that lags must
// neither give a node two blocks of a family nor one to a node that is gone.
// That no block is held twice does not depend on it: Create sees to that.
func (r *NodeReconciler) allocate(ctx context.Context, node *corev1.Node) (allocation, error) {
	r.Allocation.Lock()
	defer r.Allocation.Unlock()
	network, ranges, err := r.ranges(ctx)
	if err != nil || network == nil {
		return allocation{}, err
	}
	live, err := liveNode(ctx, r.Live, node.Name)
	if err != nil || live == nil || live.UID != node.UID {
		return allocation{}, err
	}
	own := &podnetv1alpha1.NodeSubnetList{}
	if err := r.Live.List(ctx, own, client.MatchingFields{nodeField: node.Name}); err != nil {
		return allocation{}, fmt.Errorf("listing the blocks of Node %s: %w", node.Name, err)
	}
	all := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
		return allocation{}, fmt.Errorf("listing blocks: %w", err)
	}
	taken := takenBy(all.Items)
	out := allocation{held: len(heldBy(own.Items, node))}
	var shortages []string
	for _, is4 := range lackingFamilies(ranges, node, own.Items) {
		eligible := ranges.eligible(is4, node.Labels)
		block, err := r.create(ctx, live, eligible, taken)
		switch {
		case errors.Is(err, errExhausted):
			shortages = append(shortages, eligible.exhaustion())
		case err != nil:
			return out, err
		default:
			out.held++
			out.created = append(out.created, block)
		}
	}
	out.shortage = strings.Join(shortages, " ")
	return out, nil
}

// errExhausted says that no range has a free block.
var errExhausted = errors.New("no free block is left")

// create takes the lowest free block of the first range that has one.
func (r *NodeReconciler) create(ctx context.Context, node *corev1.Node, ranges pool, taken *ipam.Taken) (netip.Prefix, error) {
	for _, from := range ranges {
		for {
			block, found := taken.Next(from.Range)
			if !found {
				break
			}
			taken.Take(block)
			name, err := ipam.BlockName(block)
			if err != nil {
				return netip.Prefix{}, fmt.Errorf("naming a block of Node %s: %w", node.Name, err)
			}
			err = r.Create(ctx, &podnetv1alpha1.NodeSubnet{
				ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{podnetv1alpha1.NodeSubnetFinalizer}},
				Spec: podnetv1alpha1.NodeSubnetSpec{
					Network: podnetv1alpha1.DefaultPodNetwork, Node: node.Name, NodeUID: node.UID, CIDR: block.String(),
					// The NodeSubnet controller replaces these by what the agent reports.
					Endpoints: internalIPs(node), State: podnetv1alpha1.SubnetActive,
				},
			})
			if err == nil {
				return block, nil
			}
			// Somebody was faster: the block is theirs, and the next one may be free.
			if !apierrors.IsAlreadyExists(err) {
				return netip.Prefix{}, fmt.Errorf("creating NodeSubnet %s for Node %s: %w", name, node.Name, err)
			}
		}
	}
	return netip.Prefix{}, errExhausted
}

// heldBy returns those of a node's NodeSubnets that are its own: not those of a
// node that had its name before, not those given back, and not those made by hand
// that nobody serves. One that a user deleted counts as long as it exists: the
// node's pods go on using it.
func heldBy(subnets []podnetv1alpha1.NodeSubnet, node *corev1.Node) []podnetv1alpha1.NodeSubnet {
	return slices.DeleteFunc(slices.Clone(subnets), func(s podnetv1alpha1.NodeSubnet) bool {
		return s.Spec.Node != node.Name || s.Spec.NodeUID != node.UID ||
			s.Spec.Network != podnetv1alpha1.DefaultPodNetwork || s.Spec.State == podnetv1alpha1.SubnetReleased
	})
}

// lackingFamilies returns, as whether it is IPv4, the families of which the node
// is to hold a block and holds none outside draining ranges.
func lackingFamilies(ranges pool, node *corev1.Node, subnets []podnetv1alpha1.NodeSubnet) []bool {
	held := heldBy(subnets, node)
	return slices.DeleteFunc(ranges.families(node.Labels), func(is4 bool) bool {
		return slices.ContainsFunc(held, func(s podnetv1alpha1.NodeSubnet) bool {
			cidr, err := netip.ParsePrefix(s.Spec.CIDR)
			if err != nil || cidr.Addr().Is4() != is4 {
				return false
			}
			within, found := ranges.containing(cidr)
			return found && !within.draining
		})
	})
}
