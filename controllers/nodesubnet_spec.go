package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/policy/policyapi"
)

// internalIPs returns the node's first InternalIP of each family, in the order of its status.
func internalIPs(node *corev1.Node) []string {
	var addresses []string
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			addresses = append(addresses, a.Address)
		}
	}
	return oneOfEachFamily(addresses)
}

// oneOfEachFamily returns the first valid address of each family, in the given
// order, each in the form that all compare by.
func oneOfEachFamily(addresses []string) []string {
	var out []string
	seen := map[bool]bool{}
	for _, a := range addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil || addr.Zone() != "" {
			continue
		}
		if addr = addr.Unmap(); !seen[addr.Is4()] {
			seen[addr.Is4()] = true
			out = append(out, addr.String())
		}
	}
	return out
}

// labelsOf returns the labels of the node with the given keys, nil where it has none of them.
func labelsOf(node *corev1.Node, keys []string) map[string]string {
	var out map[string]string
	for _, key := range keys {
		if value, present := node.Labels[key]; present {
			if out == nil {
				out = map[string]string{}
			}
			out[key] = value
		}
	}
	return out
}

// statusAddresses returns the addresses of the node's status, of whatever type, sorted, each in
// the form that all compare by.
func statusAddresses(node *corev1.Node) []string {
	var addrs []netip.Addr
	for _, a := range node.Status.Addresses {
		// A name is an address too.
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Zone() == "" {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var out []string
	for _, a := range slices.Compact(addrs) {
		out = append(out, a.String())
	}
	return out
}

// otherAddresses returns the addresses of the node's status that are no endpoints of it, without those
// that no node can have. One that another node has too stays: it may what both may.
func otherAddresses(node *corev1.Node, endpoints []string, known registry) []string {
	var out []string
	for _, a := range statusAddresses(node) {
		addr, err := netip.ParseAddr(a)
		if err == nil && !slices.Contains(endpoints, a) && ipam.Foreign(addr, known.ranges, known.services) == "" {
			out = append(out, a)
		}
	}
	return out[:min(len(out), podnetv1alpha1.MaxNodeAddresses)]
}

// policyKeysOf returns the keys of labels that the policies select nodes by as peers,
// and whether any of them does, if only by selecting all nodes.
func policyKeysOf(policies []policyv1alpha2.ClusterNetworkPolicy) (keys []string, selects bool) {
	for i := range policies {
		read := policyapi.ClusterPolicy(&policies[i]).Policy
		if read == nil {
			continue
		}
		for _, rule := range read.Egress {
			for _, peer := range rule.Peers {
				if peer.Nodes == nil {
					continue
				}
				selects = true
				for _, requirement := range *peer.Nodes {
					keys = append(keys, requirement.Key)
				}
			}
		}
	}
	return keys, selects
}

// fate says what becomes of a block, and for how long nothing changes that by itself.
func (r *NodeSubnetReconciler) fate(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, node *corev1.Node, network *podnetv1alpha1.PodNetwork,
) (ipam.Fate, time.Duration, error) {
	cidr, err := netip.ParsePrefix(subnet.Spec.CIDR)
	if err != nil || network == nil || subnet.Spec.NodeUID == "" {
		return fateNow(subnet), 0, nil //nolint:nilerr // The API server lets no such CIDR in; and there is nothing to decide by.
	}
	own, report := &podnetv1alpha1.NodeSubnetList{}, &podnetv1alpha1.NodeNetwork{}
	if err := r.List(ctx, own, client.MatchingFields{objects.NodeField: node.Name}); err != nil {
		return 0, 0, fmt.Errorf("list the blocks of Node %s: %w", node.Name, err)
	}
	if err := r.Get(ctx, client.ObjectKeyFromObject(node), report); client.IgnoreNotFound(err) != nil {
		return 0, 0, fmt.Errorf("read NodeNetwork %s: %w", node.Name, err)
	}
	need, of := allocation.CensusOf(network, own.Items).Holdings(node, report).Need(cidr.Addr().Is4(), r.emptyFor)
	i := slices.IndexFunc(of, func(s podnetv1alpha1.NodeSubnet) bool { return s.UID == subnet.UID })
	if i < 0 {
		return ipam.Use, 0, nil // It lies in no range, and nobody serves it.
	}
	if need.Held[i].InForce {
		r.idle.look(subnet.UID, need.Held[i].Used > 0, r.Clock.Now())
		need.Held[i].Empty = r.emptyFor(subnet.UID)
	}
	decision := need.Decide()
	return decision.Fates[i], decision.Wait, nil
}

// fateNow is what became of a block already.
func fateNow(subnet *podnetv1alpha1.NodeSubnet) ipam.Fate {
	if subnet.Spec.State == podnetv1alpha1.SubnetDraining {
		return ipam.Drain
	}
	return ipam.Use
}

// emptyFor is for how long a block is known to have had no pod.
func (r *NodeSubnetReconciler) emptyFor(block types.UID) time.Duration {
	since, known := r.idle[block]
	if !known {
		return 0
	}
	return r.Clock.Since(since)
}
