// Package convert turns objects of the API into values. What of them is enforced of network
// policy is left to internal/policy/policyapi.
package convert

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy/policyapi"
)

// Network turns a PodNetwork into values. What the API server's validation lets
// through converts; an error says which field did not.
func Network(n *podnetv1alpha1.PodNetwork) (*model.Network, error) {
	out := &model.Network{
		ID:         string(n.UID),
		Attachment: model.Attachment(n.Spec.Attachment),
		Mode:       model.Mode(n.Spec.RouteMode),
		VNI:        uint32(n.Spec.Overlay.VNI),  //nolint:gosec // 24 bits by validation.
		Port:       uint16(n.Spec.Overlay.Port), //nolint:gosec // 16 bits by validation.
		Masquerade: n.Spec.Masquerade.Enabled == nil || *n.Spec.Masquerade.Enabled,
		MaxBlocks:  int(n.Spec.NodeBlocks.Max),
		Exhausted:  Exhausted(n.Status.Ranges),
		Denied:     model.DeniedPackets(n.Spec.Policy.Denied),
		Generation: n.Generation,
	}
	if n.Spec.MTU != nil {
		out.MTU = int(*n.Spec.MTU)
	}
	for _, r := range n.Spec.Ranges {
		of, err := Range(r)
		if err != nil {
			return nil, fmt.Errorf("PodNetwork %s: range: %w", n.Name, err)
		}
		out.Ranges = append(out.Ranges, of.CIDR.Masked())
		i := model.FamilyIndex(of.CIDR.Addr())
		out.BlockBits[i] = max(out.BlockBits[i], of.BlockBits)
	}
	for _, c := range n.Spec.Masquerade.ExcludeCIDRs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			return nil, fmt.Errorf("PodNetwork %s: masquerade.excludeCIDRs: %w", n.Name, err)
		}
		out.MasqueradeExclude = append(out.MasqueradeExclude, p.Masked())
	}
	return out, nil
}

// Range turns a range of a PodNetwork into a value, with the length that its blocks have where it
// names none.
func Range(r podnetv1alpha1.Range) (ipam.Range, error) {
	cidr, err := netip.ParsePrefix(r.CIDR)
	if err != nil {
		return ipam.Range{}, err
	}
	return ipam.Range{CIDR: cidr, BlockBits: cmp.Or(int(r.NodePrefixLength), ipam.DefaultBlockBits(cidr.Addr().Is4()))}, nil
}

// ServiceCIDRs turns ServiceCIDRs into what they claim. What does not parse claims nothing.
func ServiceCIDRs(services []networkingv1.ServiceCIDR) []ipam.Claim {
	var out []ipam.Claim
	for i := range services {
		for _, text := range services[i].Spec.CIDRs {
			if cidr, err := netip.ParsePrefix(text); err == nil {
				out = append(out, ipam.Claim{CIDR: cidr, Kind: ipam.ClaimServices, By: services[i].Name})
			}
		}
	}
	return out
}

// Exhausted says of which families the ranges have blocks and none is free.
func Exhausted(ranges []podnetv1alpha1.RangeStatus) [2]bool {
	var has, free [2]bool
	for _, r := range ranges {
		p, err := netip.ParsePrefix(r.CIDR)
		if err != nil || r.BlocksFree == nil {
			continue
		}
		i := model.FamilyIndex(p.Addr())
		has[i] = true
		free[i] = free[i] || *r.BlocksFree > 0
	}
	return [2]bool{has[0] && !free[0], has[1] && !free[1]}
}

// Block turns a NodeSubnet into a value.
func Block(s *podnetv1alpha1.NodeSubnet) (model.Block, error) {
	p, err := netip.ParsePrefix(s.Spec.CIDR)
	if err != nil {
		return model.Block{}, fmt.Errorf("NodeSubnet %s: cidr: %w", s.Name, err)
	}
	b := model.Block{
		Name:        s.Name,
		CIDR:        p.Masked(),
		Node:        s.Spec.Node,
		State:       model.BlockState(s.Spec.State),
		Labels:      s.Spec.NodeLabels,
		AgentSilent: ptr.Deref(s.Spec.AgentNotResponding, false),
		Created:     s.CreationTimestamp.Time,

		Generation: s.Generation,
	}
	if b.Endpoints, err = addresses(s.Spec.Endpoints); err != nil {
		return model.Block{}, fmt.Errorf("NodeSubnet %s: endpoints: %w", s.Name, err)
	}
	if b.Addresses, err = addresses(s.Spec.NodeAddresses); err != nil {
		return model.Block{}, fmt.Errorf("NodeSubnet %s: nodeAddresses: %w", s.Name, err)
	}
	return b, nil
}

func addresses(texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// RouteMode turns a RouteMode into a value.
func RouteMode(r *podnetv1alpha1.RouteMode) (model.RouteMode, error) {
	out := model.RouteMode{
		Name: r.Name, Mode: model.Mode(r.Spec.Mode), Forced: r.Spec.Proof == podnetv1alpha1.ProofSkipped, Created: r.CreationTimestamp.Time, Generation: r.Generation,
	}
	if r.Spec.Priority != nil {
		out.Priority = *r.Spec.Priority
	}
	var errs []error
	for i := range r.Spec.Between {
		// The conversion checks what the schema cannot: operators that ask for
		// values and those that forbid them.
		between, err := policyapi.Selector(&r.Spec.Between[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("RouteMode %s: between[%d]: %w", r.Name, i, err))
			continue
		}
		out.Between = append(out.Between, between)
	}
	return out, errors.Join(errs...)
}

// RangeSummary says, for people, how many blocks each range has and has free.
func RangeSummary(ranges []podnetv1alpha1.RangeStatus) string {
	out := ""
	for _, r := range ranges {
		if r.BlocksTotal == nil || r.BlocksFree == nil {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf("range %s has %d blocks of which %d are free", r.CIDR, *r.BlocksTotal, *r.BlocksFree)
	}
	return out
}
