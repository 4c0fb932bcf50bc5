package allocation

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
)

// Reasons and action of the Events about blocks.
const (
	eventBlockReclaimed = "BlockReclaimed"
	eventBlockDisputed  = "BlockDisputed"
	eventBlockTakenBack = "BlockTakenBack"
	// ActionAllocate is also that of the Events by which others report an Outcome.
	ActionAllocate = "Allocate"
)

// claims are the blocks of the ranges that a node's agent says that it uses: those
// that pods have addresses of, and those that it gives addresses of. An agent may
// not have heard yet that the object of such a block is gone, and a block goes
// without its agent's knowledge only where it was not released. What an agent says
// is no evidence: see Claim and rollCall.
func claims(report *podnetv1alpha1.NodeNetwork, ranges Pool) []netip.Prefix {
	var out []netip.Prefix
	for _, b := range report.Status.Blocks {
		cidr, err := netip.ParsePrefix(b.CIDR)
		if err != nil || b.State != podnetv1alpha1.SubnetActive && ptr.Deref(b.AddressesUsed, 0) == 0 {
			continue
		}
		// One that was made by hand may have any length.
		if _, found := ranges.containing(cidr); found && cidr == cidr.Masked() {
			out = append(out, cidr)
		}
	}
	return out
}

// Claim deals with the blocks that a node's agent says that it uses although the
// objects do not say so, and reports whether some wait for the roll call. Those
// whose NodeSubnets are gone, lost by a restore of etcd or deleted by force, are recreated
// where the manager has evidence that they were the node's: it saw them
// vanish, or a roll call is open. Those that the node held under a former UID
// are taken back. One that another node holds stays that node's.
func (a *Allocator) Claim(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork,
) (pending bool, err error) {
	ranges, _ := PoolOf(network) // What does not parse is said in the network's conditions.
	var errs []error
	var lost, disputed []netip.Prefix
	for _, cidr := range claims(report, ranges) {
		holder, err := a.nodeSubnetOf(ctx, cidr)
		switch b, _ := objects.Block(report, cidr.String()); {
		case err != nil:
			errs = append(errs, err)
		case holder == nil && a.ledger.lostBy(cidr) == node.Name:
			errs = append(errs, a.reclaim(ctx, node, network, cidr))
		case holder == nil:
			lost = append(lost, cidr)
		case ptr.Deref(b.AddressesUsed, 0) == 0:
		case holder.Spec.Node != node.Name:
			disputed = append(disputed, cidr)
		default:
			errs = append(errs, a.takeBack(ctx, node, holder))
		}
	}
	pending, refused, err := a.answer(ctx, node, network, report, lost)
	if err := errors.Join(append(errs, err)...); err != nil || pending {
		return pending, err
	}
	// What it answered was dealt with, so that nothing it says later counts.
	a.rollCall.close(node.Name, report.Status.RollCall)
	if refused = append(disputed, refused...); len(refused) > 0 {
		a.Events.Eventf(network, node, corev1.EventTypeWarning, eventBlockDisputed, ActionAllocate,
			"Pods of Node %s use blocks that the node does not hold, and nothing shows that it ever held them: %s. Delete these pods: their replacements get other addresses.",
			node.Name, someBlocks(refused))
	}
	return false, nil
}

// nodeSubnetOf returns the NodeSubnet of a block, nil where there is none.
func (a *Allocator) nodeSubnetOf(ctx context.Context, cidr netip.Prefix) (*podnetv1alpha1.NodeSubnet, error) {
	name, err := ipam.BlockName(cidr)
	if err != nil {
		return nil, fmt.Errorf("name a block: %w", err)
	}
	subnet := &podnetv1alpha1.NodeSubnet{}
	switch err = a.Client.Get(ctx, client.ObjectKey{Name: name}, subnet); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read NodeSubnet %s: %w", name, err)
	}
	return subnet, nil
}

// answer deals with the blocks that a node claims, that have no NodeSubnet, and that
// this manager did not see vanish. They are the node's where it answers the roll
// call with them and no other node does, up to as many as it may hold. All others
// are refused; those that the node could hold are kept from other nodes as long as
// it claims them.
func (a *Allocator) answer(
	ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, report *podnetv1alpha1.NodeNetwork, lost []netip.Prefix,
) (pending bool, refused []netip.Prefix, err error) {
	if len(lost) == 0 {
		a.ledger.reserve(node.Name, nil)
		return false, nil, nil
	}
	hears := a.rollCall.hears(report)
	if hears {
		if complete, err := a.rollCall.complete(ctx, a.Client); err != nil || !complete {
			return err == nil, nil, err
		}
	} else if report.Status.RollCall != "" && report.Status.RollCall != a.rollCall.ID() {
		return false, nil, nil // It answers a former call, and its answer to this one comes back here.
	}
	held, err := takeCensus(ctx, a.Client, network)
	if err != nil {
		return false, nil, err
	}
	counted := held.countable(node.Name, lost)
	a.ledger.reserve(node.Name, counted)
	refused = slices.DeleteFunc(slices.Clone(lost), func(p netip.Prefix) bool { return slices.Contains(counted, p) })
	if !hears {
		return false, append(refused, counted...), nil
	}
	var errs []error
	for _, cidr := range counted {
		if a.rollCall.claim(node.Name, cidr) {
			errs = append(errs, a.recreate(ctx, node, network, cidr))
		} else {
			refused = append(refused, cidr)
		}
	}
	return false, refused, errors.Join(errs...)
}

// takeBack makes a block that a node held under a former UID that of the node as it is
// now: its pods have outlived the Node object and use it. One that rests already is
// served again: in its quarantine it is nobody else's.
func (a *Allocator) takeBack(ctx context.Context, node *corev1.Node, subnet *podnetv1alpha1.NodeSubnet) error {
	if subnet.Spec.NodeUID == "" || subnet.Spec.NodeUID == node.UID || subnet.Spec.Network != podnetv1alpha1.DefaultPodNetwork {
		return nil
	}
	subnet.Spec.NodeUID = node.UID
	if subnet.Spec.State == podnetv1alpha1.SubnetReleased {
		subnet.Spec.State = podnetv1alpha1.SubnetActive
		delete(subnet.Annotations, podnetv1alpha1.ReleasedAtAnnotation)
	}
	err := a.Client.Update(ctx, subnet)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // What changed it comes back here.
	}
	if err != nil {
		return fmt.Errorf("make NodeSubnet %s that of Node %s again: %w", subnet.Name, node.Name, err)
	}
	a.Events.Eventf(node, subnet, corev1.EventTypeNormal, eventBlockTakenBack, ActionAllocate,
		"Node %s was recreated, and its pods still use the block %s: the node holds it again.", node.Name, subnet.Spec.CIDR)
	return nil
}

// reclaim recreates the NodeSubnet of a block that was seen to vanish, unless others
// overlap it by now.
func (a *Allocator) reclaim(ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, cidr netip.Prefix) error {
	// The objects decide, and not the ledger: it may still hold the one that is gone.
	held, err := takeCensus(ctx, a.Client, network)
	if err != nil {
		return err
	}
	if held.Taken.Overlaps(cidr) {
		a.Events.Eventf(network, node, corev1.EventTypeWarning, eventBlockDisputed, ActionAllocate,
			"Pods of Node %s use the block %s, whose NodeSubnet disappeared, and others overlap it by now. Delete these pods: their replacements get other addresses.",
			node.Name, cidr)
		return nil
	}
	return a.recreate(ctx, node, network, cidr)
}

// recreate makes a NodeSubnet again, at a moment at which no range is being counted.
func (a *Allocator) recreate(ctx context.Context, node *corev1.Node, network *podnetv1alpha1.PodNetwork, cidr netip.Prefix) error {
	a.Counting.RLock()
	defer a.Counting.RUnlock()
	subnet, err := a.createSubnet(ctx, node, cidr)
	if apierrors.IsAlreadyExists(err) {
		return nil // Its creation comes back here.
	}
	if err == nil {
		a.Events.Eventf(network, subnet, corev1.EventTypeWarning, eventBlockReclaimed, ActionAllocate,
			"Node %s uses the block %s, whose NodeSubnet disappeared without being released (was etcd restored?): it was recreated.", node.Name, cidr)
	}
	return err
}

// someBlocks names the first few and counts the rest.
func someBlocks(cidrs []netip.Prefix) string {
	names := make([]string, len(cidrs))
	for i, cidr := range cidrs {
		names[i] = cidr.String()
	}
	return messages.Some(names)
}
