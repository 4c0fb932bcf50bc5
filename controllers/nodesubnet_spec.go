package controllers

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
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

// state is Draining for a block of a draining range once new pods of the node
// can get an address elsewhere, or once no range of the family is left that would
// give the node another. Until then pods go on getting addresses from it.
func (r *NodeSubnetReconciler) state(
	ctx context.Context, subnet *podnetv1alpha1.NodeSubnet, node *corev1.Node, network *podnetv1alpha1.PodNetwork,
) (podnetv1alpha1.SubnetState, error) {
	cidr, err := netip.ParsePrefix(subnet.Spec.CIDR)
	if err != nil || network == nil {
		return subnet.Spec.State, nil //nolint:nilerr // The API server lets no such CIDR in; and there is nothing to wait for.
	}
	// What does not parse is said in the network's conditions.
	ranges, _ := poolOf(network)
	if within, found := ranges.containing(cidr); !found || !within.draining {
		return podnetv1alpha1.SubnetActive, nil
	}
	own := &podnetv1alpha1.NodeSubnetList{}
	if err := r.List(ctx, own, client.MatchingFields{nodeField: node.Name}); err != nil {
		return "", fmt.Errorf("listing the blocks of Node %s: %w", node.Name, err)
	}
	for _, is4 := range lackingFamilies(ranges, node, own.Items) {
		if is4 == cidr.Addr().Is4() {
			return podnetv1alpha1.SubnetActive, nil
		}
	}
	return podnetv1alpha1.SubnetDraining, nil
}
