// Package status reports to the API server, and thereby to people, what the agent found
// and did on its node: it turns a Report into the status of the node's
// NodeNetwork and writes it when it has changed. Deciding what to do about
// anything is left to others.
package status

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// Bounds of what a status holds, as the API's validation has them.
const (
	maxExceptions = 10
	maxFindings   = 32
	maxBlocks     = 256
	maxRouteModes = 64
	maxMessage    = 500
	// maxFindingCIDRs is how many prefixes a finding names.
	maxFindingCIDRs = 16
)

// Report is what one pass of the agent found and did.
type Report struct {
	// Plan is what the node shall be.
	Plan model.Plan
	// Host is what was found on the node.
	Host model.Host
	// Pods are the pods attached on the node.
	Pods []model.Pod
	// Problems are those of Plan and any others, in order of importance.
	Problems []model.Problem
	// Findings are the things that are, or may come, in the way.
	Findings []model.Finding
	// InForce says that new pods get their addresses as Plan asks, and that the
	// kernel has what all of them need. Refused says that it lacks something else.
	InForce, Refused bool
	// Used is the number of addresses in use of each block of which any is, those
	// of pods that are just being attached included.
	Used map[netip.Prefix]int64
	// Waiting is the number of pods that wait for an address of IPv4 and of IPv6.
	Waiting [2]int64
	// RollCall is the manager's last roll call, which the report answers.
	RollCall string
	// Removed says that podnet was taken off the node, as an uninstall asked.
	Removed bool
}

// Build turns a report into a status. Conditions keep their transition times
// from previous where they did not change.
func Build(r Report, previous []metav1.Condition, generation int64, version string) podnetv1alpha1.NodeNetworkStatus {
	st := podnetv1alpha1.NodeNetworkStatus{
		Conditions:   slices.Clone(previous),
		AgentVersion: version,
		Pods:         ptr.To(int32(len(r.Pods))), //nolint:gosec // A node has some hundred pods.
		Paths:        paths(r),
	}
	for _, e := range r.Host.Endpoints {
		st.Endpoints = append(st.Endpoints, e.Addr.String())
	}
	if len(r.Host.Endpoints) > 0 {
		st.Interface = r.Host.Endpoints[0].Link
	}
	if r.Plan.MTU > 0 {
		st.MTU = ptr.To(int32(r.Plan.MTU)) //nolint:gosec // At most 65535.
	}
	st.RollCall = r.RollCall
	st.Blocks, st.Addresses = blocks(r), addresses(r)
	st.RouteModes = routeModes(r)
	findings := slices.Concat(corrupted(r.Plan.Paths), r.Findings)
	for _, f := range findings[:min(len(findings), maxFindings)] {
		found := podnetv1alpha1.Finding{Type: f.Type, Message: clip(f.Message)}
		for _, cidr := range f.CIDRs[:min(len(f.CIDRs), maxFindingCIDRs)] {
			found.CIDRs = append(found.CIDRs, cidr.String())
		}
		st.Findings = append(st.Findings, found)
	}
	conditions := []metav1.Condition{programmed(r), unobstructed(findings)}
	if knowsBlocks(r) {
		conditions = append(conditions, addressesServed(r))
	} else {
		meta.RemoveStatusCondition(&st.Conditions, podnetv1alpha1.ConditionAddressesServed)
	}
	if len(r.Plan.Blocks) > 0 {
		conditions = append(conditions, pathsProven(r.Plan.Paths), pathMTU(r.Plan.Paths))
	} else {
		// Nothing is sent to other nodes, and nothing said of the way.
		meta.RemoveStatusCondition(&st.Conditions, podnetv1alpha1.ConditionPathsProven)
		meta.RemoveStatusCondition(&st.Conditions, podnetv1alpha1.ConditionPathMTUReduced)
	}
	for _, c := range conditions {
		c.ObservedGeneration = generation
		was := meta.FindStatusCondition(st.Conditions, c.Type)
		if changed := was != nil && was.Reason != c.Reason; meta.SetStatusCondition(&st.Conditions, c) && changed {
			// That paths are other ones than before, and still proven, is a transition too.
			meta.FindStatusCondition(st.Conditions, c.Type).LastTransitionTime = metav1.Now()
		}
	}
	if r.Removed {
		meta.SetStatusCondition(&st.Conditions, metav1.Condition{
			Type: podnetv1alpha1.ConditionRemoved, Status: metav1.ConditionTrue, ObservedGeneration: generation,
			Reason:  podnetv1alpha1.ReasonUninstall,
			Message: "Everything that podnet made on this node was taken off it.",
		})
	} else {
		meta.RemoveStatusCondition(&st.Conditions, podnetv1alpha1.ConditionRemoved)
	}
	st.Summary = summary(st)
	// What is written has whole seconds, and is compared with what was.
	for i := range st.Conditions {
		st.Conditions[i].LastTransitionTime = metav1.NewTime(st.Conditions[i].LastTransitionTime.Truncate(time.Second))
	}
	return st
}

func programmed(r Report) metav1.Condition {
	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionProgrammed, Status: metav1.ConditionTrue,
		Reason: podnetv1alpha1.ReasonProgrammed, Message: "The node's kernel is as the objects ask.",
	}
	if r.Removed {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, podnetv1alpha1.ReasonUninstall, "podnet was taken off this node."
		return c
	}
	if len(r.Problems) == 0 {
		return c
	}
	c.Reason = podnetv1alpha1.ReasonDegraded
	// A fatal problem gives the reason; the message holds them all.
	if i := slices.IndexFunc(r.Problems, func(p model.Problem) bool { return p.Fatal }); i >= 0 {
		c.Status, c.Reason = metav1.ConditionFalse, r.Problems[i].Reason
	}
	messages := make([]string, 0, len(r.Problems))
	for _, p := range r.Problems {
		messages = append(messages, p.Message)
	}
	c.Message = clip(strings.Join(messages, " "))
	return c
}

func unobstructed(findings []model.Finding) metav1.Condition {
	if len(findings) == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionHostUnobstructed, Status: metav1.ConditionTrue,
			Reason: podnetv1alpha1.ReasonNothingFound, Message: "Nothing on the node is in the network's way.",
		}
	}
	types := make([]string, 0, len(findings))
	for _, f := range findings {
		types = append(types, f.Type)
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionHostUnobstructed, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonFindings,
		Message: clip(fmt.Sprintf("Found on the node: %s. See status.findings.", strings.Join(slices.Compact(types), ", "))),
	}
}

// routeModes counts, for each RouteMode, the paths that it decides on this node.
// What the kernel refused is not in force, and nothing is said of it.
func routeModes(r Report) []podnetv1alpha1.RouteModePaths {
	if !r.InForce || r.Refused {
		return nil
	}
	type counts struct{ decided, diverging int32 }
	byName := map[string]counts{}
	for _, p := range r.Plan.Paths {
		c := byName[p.RouteMode]
		c.decided++
		if p.Diverges {
			c.diverging++
		}
		byName[p.RouteMode] = c
	}
	var out []podnetv1alpha1.RouteModePaths
	for _, mode := range r.Plan.RouteModes[:min(len(r.Plan.RouteModes), maxRouteModes)] {
		c := byName[mode.Name]
		out = append(out, podnetv1alpha1.RouteModePaths{
			Name: mode.Name, ObservedGeneration: mode.Generation, Paths: &c.decided, Diverging: &c.diverging,
		})
	}
	return out
}

// blocks are the blocks that the node holds, and those that pods have addresses of
// although the node does not hold them. The manager gives none of the latter to
// others.
func blocks(r Report) []podnetv1alpha1.BlockStatus {
	var out []podnetv1alpha1.BlockStatus
	held := map[netip.Prefix]bool{}
	for _, b := range r.Plan.Blocks {
		if b.Vanished {
			continue
		}
		held[b.CIDR] = true
		of := podnetv1alpha1.BlockStatus{
			CIDR: b.CIDR.String(), AddressesTotal: ptr.To(ipam.AddressCount(b.CIDR)), AddressesUsed: ptr.To(r.Used[b.CIDR]),
		}
		if r.InForce {
			of.State, of.ObservedGeneration = podnetv1alpha1.SubnetState(b.State), b.Generation
		}
		out = append(out, of)
	}
	for _, b := range slices.SortedFunc(maps.Keys(r.Used), netip.Prefix.Compare) {
		if !held[b] && r.Used[b] > 0 {
			out = append(out, podnetv1alpha1.BlockStatus{CIDR: b.String(), AddressesUsed: ptr.To(r.Used[b])})
		}
	}
	return out[:min(len(out), maxBlocks)]
}

// addresses counts the addresses of each family of which the node has blocks or pods wait.
func addresses(r Report) []podnetv1alpha1.AddressesStatus {
	var total, used [2]int64
	var has [2]bool
	for _, b := range r.Plan.Blocks {
		i := model.FamilyIndex(b.CIDR.Addr())
		has[i] = true
		if b.State == model.BlockActive {
			total[i] += min(ipam.AddressCount(b.CIDR), math.MaxInt64-total[i])
		}
	}
	for b, n := range r.Used {
		i := model.FamilyIndex(b.Addr())
		has[i] = has[i] || n > 0
		used[i] += n
	}
	lost := unserved(r)
	var out []podnetv1alpha1.AddressesStatus
	for i, family := range []podnetv1alpha1.AddressFamily{podnetv1alpha1.IPv4, podnetv1alpha1.IPv6} {
		if has[i] || r.Waiting[i] > 0 {
			out = append(out, podnetv1alpha1.AddressesStatus{
				Family: family, Total: ptr.To(total[i]), Used: ptr.To(used[i]), Waiting: ptr.To(r.Waiting[i]),
				Unserved: ptr.To(lost[i]),
			})
		}
	}
	return out
}

// clip keeps a message within the API's bounds.
func clip(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-len(" …")], "") + " …"
}
