package convert

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podnet/podnet/internal/model"
)

// MirrorHash is the annotation that has, on the object that mirrors a static pod, the
// UID by which the runtime knows the pod.
const MirrorHash = "kubernetes.io/config.hash"

// Pod turns a pod into a value.
func Pod(p *corev1.Pod) model.ClusterPod {
	out := model.ClusterPod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels,
		Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, Terminating: !p.DeletionTimestamp.IsZero(),
	}
	if hash, ok := p.Annotations[MirrorHash]; ok {
		out.UID = hash
	}
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if a, err := netip.ParseAddr(ip.IP); err == nil && !slices.Contains(out.Addrs, a.Unmap()) {
			out.Addrs = append(out.Addrs, a.Unmap())
		}
	}
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			out.Ports = append(out.Ports, model.NamedPort{
				Name: port.Name, Protocol: string(port.Protocol),
				Port: uint16(port.ContainerPort), //nolint:gosec // 16 bits by validation.
			})
		}
	}
	return out
}
