package controllers

import (
	"fmt"
	"net/netip"
	"strings"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/internal/ipam"
)

// networkWorst are the conditions of a PodNetwork that can be bad, the worst first, and what
// they are when they are good.
var networkWorst = []struct {
	condition string
	good      metav1.ConditionStatus
}{
	{podnetv1alpha1.ConditionAccepted, metav1.ConditionTrue},
	{podnetv1alpha1.ConditionReady, metav1.ConditionTrue},
	{podnetv1alpha1.ConditionExhausted, metav1.ConditionFalse},
	{podnetv1alpha1.ConditionSubnetsConflict, metav1.ConditionFalse},
	{podnetv1alpha1.ConditionRangesOverlap, metav1.ConditionFalse},
	{podnetv1alpha1.ConditionEndpointsRefused, metav1.ConditionFalse},
	{podnetv1alpha1.ConditionConverged, metav1.ConditionTrue},
	{podnetv1alpha1.ConditionAllocating, metav1.ConditionTrue},
	{podnetv1alpha1.ConditionRunningLow, metav1.ConditionFalse},
}

const (
	// longestMessage and longestList are how long texts of a summary may be, in bytes.
	longestMessage = 1024
	longestList    = 4096
)

// summaryOf returns a PodNetwork's status in the form in which kubectl prints it.
func summaryOf(status *podnetv1alpha1.PodNetworkStatus) podnetv1alpha1.PodNetworkSummary {
	s := podnetv1alpha1.PodNetworkSummary{
		Nodes: fmt.Sprintf("%d/%d", *status.NodesReady, *status.NodesTotal), Message: "The network is as it is asked for.",
	}
	for _, bad := range networkWorst {
		if c := apimeta.FindStatusCondition(status.Conditions, bad.condition); c != nil && c.Status != bad.good {
			s.Problem, s.Message = c.Reason, messages.Clip(longestMessage, c.Message)
			break
		}
	}
	var ranges, blocks, addresses []string
	for _, r := range status.Ranges {
		name := r.CIDR
		if r.State == podnetv1alpha1.RangeDraining {
			name += "(Draining)"
		}
		ranges = append(ranges, name)
		blocks = append(blocks, fmt.Sprintf("%d/%s", *r.BlocksAllocated, ipam.Count(*r.BlocksTotal, 0)))
		bits := 0
		if cidr, err := netip.ParsePrefix(r.CIDR); err == nil {
			bits = cidr.Addr().BitLen() - cidr.Bits()
		}
		addresses = append(addresses, fmt.Sprintf("%d/%s", *r.AddressesAllocated, ipam.Count(*r.AddressesTotal, bits)))
	}
	s.Ranges, s.Blocks, s.Addresses = listed(ranges), listed(blocks), listed(addresses)
	return s
}

// listed joins what kubectl prints in one column.
func listed(items []string) string { return messages.Clip(longestList, strings.Join(items, ",")) }

// networkSummary is the summary as it is applied.
func networkSummary(s podnetv1alpha1.PodNetworkSummary) *podnetv1alpha1ac.PodNetworkSummaryApplyConfiguration {
	out := podnetv1alpha1ac.PodNetworkSummary().WithMessage(s.Message).WithNodes(s.Nodes)
	for _, field := range []struct {
		text string
		with func(string) *podnetv1alpha1ac.PodNetworkSummaryApplyConfiguration
	}{
		{s.Problem, out.WithProblem}, {s.Ranges, out.WithRanges}, {s.Blocks, out.WithBlocks}, {s.Addresses, out.WithAddresses},
	} {
		if field.text != "" {
			field.with(field.text)
		}
	}
	return out
}
