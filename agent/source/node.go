package source

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// InternalIPs returns a function that reads the addresses by which Kubernetes knows a
// node, in the order of its status. A reader that keeps no cache watches no Nodes.
func InternalIPs(live client.Reader, name string) func(context.Context) ([]netip.Addr, error) {
	return func(ctx context.Context) ([]netip.Addr, error) {
		var node corev1.Node
		if err := live.Get(ctx, client.ObjectKey{Name: name}, &node); err != nil {
			return nil, fmt.Errorf("read Node %s: %w", name, err)
		}
		var out []netip.Addr
		for _, a := range node.Status.Addresses {
			if a.Type != corev1.NodeInternalIP {
				continue
			}
			if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Zone() == "" {
				out = append(out, addr.Unmap())
			}
		}
		return out, nil
	}
}
