package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/convert"
	"github.com/podnet/podnet/internal/ipam"
)

// Reason and action of the Event about ranges that overlap something.
const (
	eventRangesOverlap = podnetv1alpha1.ReasonRangesOverlap
	actionCompare      = "Compare"
)

// reportedOverlaps are the overlaps that Events have reported.
type reportedOverlaps struct {
	// network is the PodNetwork that they are of: a recreated one starts afresh.
	network types.UID
	keys    map[ipam.OverlapKey]bool
}

// +kubebuilder:rbac:groups=networking.k8s.io,resources=servicecidrs,verbs=get;list;watch

// serviceCIDRs lists the ranges of services, those that are being deleted
// included: services keep their addresses as long as the object exists.
func (r *PodNetworkReconciler) serviceCIDRs(ctx context.Context) ([]networkingv1.ServiceCIDR, error) {
	list := &networkingv1.ServiceCIDRList{}
	if err := r.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list ServiceCIDRs: %w", err)
	}
	return list.Items, nil
}

// overlapping says what of the cluster, and of any network, the ranges overlap.
func (v *view) overlapping() metav1.Condition {
	v.overlaps = ipam.Overlaps(v.Ranges.CIDRs(), v.claims())
	if len(v.overlaps) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionRangesOverlap, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonNoOverlap,
			Message: "No range overlaps service CIDRs, addresses of nodes, networks on their interfaces, or reserved prefixes.",
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionRangesOverlap, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonRangesOverlap,
		Message: messages.Clip(messages.Condition, overlapMessage(v.overlaps)),
	}
}

// overlapMessage tells the first few overlaps and counts the rest.
func overlapMessage(overlaps []ipam.Overlap) string {
	var sentences []string
	for _, o := range overlaps[:min(len(overlaps), messages.Named)] {
		sentences = append(sentences, o.String())
	}
	if more := len(overlaps) - len(sentences); more > 0 {
		sentences = append(sentences, fmt.Sprintf("%d more are not listed.", more))
	}
	return strings.Join(sentences, " ")
}

// claims returns what the cluster uses for something else than pods.
func (v *view) claims() []ipam.Claim {
	claims := convert.ServiceCIDRs(v.services)
	add := func(kind ipam.ClaimKind, by string, cidrs ...string) {
		for _, text := range cidrs {
			// What is no prefix can overlap none: others have to tell its writer.
			if cidr, err := netip.ParsePrefix(text); err == nil {
				claims = append(claims, ipam.Claim{CIDR: cidr, Kind: kind, By: by})
			}
		}
	}
	for i := range v.everyNode {
		node := &v.everyNode[i]
		report := v.reports[node.Name]
		if report != nil && !objects.OwnedBy(report, node) {
			report = nil
		}
		for _, addr := range v.addressesOf(node, report) {
			claims = append(claims, ipam.Claim{CIDR: netip.PrefixFrom(addr, addr.BitLen()), Kind: ipam.ClaimNode, By: node.Name})
		}
		if report != nil {
			add(ipam.ClaimInterface, node.Name, foreignCIDRs(report)...)
		}
	}
	return claims
}

// addressesOf returns the addresses of a node that Kubernetes or its agent know,
// without the one that podnet gave it: that of its block.
func (v *view) addressesOf(node *corev1.Node, report *podnetv1alpha1.NodeNetwork) []netip.Addr {
	var texts []string
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			texts = append(texts, a.Address)
		}
	}
	if report != nil {
		texts = append(texts, report.Status.Endpoints...)
	}
	var addrs []netip.Addr
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		addr = addr.Unmap().WithZone("")
		own := slices.ContainsFunc(v.ByNode[node.Name], func(s podnetv1alpha1.NodeSubnet) bool {
			block, err := netip.ParsePrefix(s.Spec.CIDR)
			return err == nil && ipam.NodeAddress(block) == addr
		})
		if !own && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// foreignCIDRs returns what a node's agent found on its interfaces that overlaps the ranges.
func foreignCIDRs(report *podnetv1alpha1.NodeNetwork) []string {
	var cidrs []string
	for _, f := range report.Status.Findings {
		if f.Type == podnetv1alpha1.FindingRangeOverlap {
			cidrs = append(cidrs, f.CIDRs...)
		}
	}
	return cidrs
}

// overlapFindingsChanged lets through what changes foreignCIDRs.
func overlapFindingsChanged() predicate.Predicate {
	return updates(func(before, after *podnetv1alpha1.NodeNetwork) bool {
		return !slices.Equal(foreignCIDRs(before), foreignCIDRs(after))
	})
}

// tellOverlaps makes an Event of the overlaps that are new, given the network as
// it was before its status was written. That more nodes have a part in one that
// was told is no news, nor that it has gone. It is not safe for concurrent use.
func (r *PodNetworkReconciler) tellOverlaps(network *podnetv1alpha1.PodNetwork, overlaps []ipam.Overlap) {
	if network.Name != podnetv1alpha1.DefaultPodNetwork {
		return
	}
	known := r.told.keys
	if r.told.network != network.UID {
		known = nil
		// A manager that has just started does not repeat what another one has told.
		before := apimeta.FindStatusCondition(network.Status.Conditions, podnetv1alpha1.ConditionRangesOverlap)
		if len(overlaps) > 0 && before != nil && before.Message == messages.Clip(messages.Condition, overlapMessage(overlaps)) {
			known = keysOf(overlaps)
		}
	}
	r.told = reportedOverlaps{network: network.UID, keys: keysOf(overlaps)}
	fresh := slices.DeleteFunc(slices.Clone(overlaps), func(o ipam.Overlap) bool { return known[o.OverlapKey] })
	if len(fresh) > 0 {
		r.Events.Eventf(network, nil, corev1.EventTypeWarning, eventRangesOverlap, actionCompare, "%s", messages.Clip(messages.Note, overlapMessage(fresh)))
	}
}

func keysOf(overlaps []ipam.Overlap) map[ipam.OverlapKey]bool {
	keys := make(map[ipam.OverlapKey]bool, len(overlaps))
	for _, o := range overlaps {
		keys[o.OverlapKey] = true
	}
	return keys
}
