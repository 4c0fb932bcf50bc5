package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/clusterpolicies"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy/policyapi"
)

// CacheOptions say what caches keep of objects that are no kinds of podnet's. There
// may be 100,000 pods: what policy does not go by is not kept, and those that have
// ended are not even sent.
func CacheOptions() map[client.Object]cache.ByObject {
	strip := cache.TransformStripManagedFields()
	return map[client.Object]cache.ByObject{
		&corev1.Pod{}: {
			Transform: stripPod,
			Field:     fields.AndSelectors(fields.OneTermNotEqualSelector("status.phase", "Succeeded"), fields.OneTermNotEqualSelector("status.phase", "Failed")),
		},
		&corev1.Namespace{}: {Transform: func(o any) (any, error) {
			if n, ok := o.(*corev1.Namespace); ok {
				n.Annotations, n.Spec, n.Status = nil, corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
			}
			return strip(o)
		}},
	}
}

// stripPod leaves of a pod what clusterPod reads.
func stripPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels, DeletionTimestamp: p.DeletionTimestamp,
			ResourceVersion: p.ResourceVersion,
		},
		Spec:   corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork},
		Status: corev1.PodStatus{PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs},
	}
	if hash, ok := p.Annotations[mirrorHash]; ok {
		out.Annotations = map[string]string{mirrorHash: hash}
	}
	var named []corev1.ContainerPort
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, port := range c.Ports {
			if port.Name != "" {
				named = append(named, corev1.ContainerPort{Name: port.Name, Protocol: port.Protocol, ContainerPort: port.ContainerPort})
			}
		}
	}
	if len(named) > 0 {
		out.Spec.Containers = []corev1.Container{{Ports: named}}
	}
	return out, nil
}

// mirrorHash is the annotation that has, on the object that mirrors a static pod, the
// UID by which the runtime knows the pod.
const mirrorHash = "kubernetes.io/config.hash"

// clusterPod turns a pod into a value.
func clusterPod(p *corev1.Pod) model.ClusterPod {
	out := model.ClusterPod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels,
		Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, Terminating: !p.DeletionTimestamp.IsZero(),
	}
	if hash, ok := p.Annotations[mirrorHash]; ok {
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

// pods are those of the cluster as values. A list of the cache would copy all of
// them for each change of one.
type pods struct {
	mu   sync.Mutex
	byID map[types.NamespacedName]model.ClusterPod
}

// handler keeps the pods, and calls changed when one differs in what policy goes by.
func (p *pods) handler(changed func()) toolscache.ResourceEventHandler {
	put := func(o any) {
		pod, ok := o.(*corev1.Pod)
		if !ok {
			return
		}
		is := clusterPod(pod)
		id := types.NamespacedName{Namespace: is.Namespace, Name: is.Name}
		p.mu.Lock()
		was, has := p.byID[id]
		p.byID[id] = is
		p.mu.Unlock()
		if !has || !reflect.DeepEqual(was, is) {
			changed()
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, after any) { put(after) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if pod, ok := o.(*corev1.Pod); ok {
				p.mu.Lock()
				delete(p.byID, types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
				p.mu.Unlock()
				changed()
			}
		},
	}
}

func (p *pods) list() []model.ClusterPod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.byID))
}

// kept is what network policy goes by, where no list of a cache will do.
type kept struct {
	pods     *pods
	policies *clusterpolicies.Watcher
}

// Policies is what the API holds of what network policy goes by.
type Policies struct {
	Objects model.PolicyObjects
	// Blocks are those of all nodes.
	Blocks []model.Block
	// Uninstall says that podnet shall be taken off every node.
	Uninstall bool
	// Denied says how denied packets are told of.
	Denied model.DeniedPackets
	// Problems are what could not be read, a sentence each.
	Problems []model.Problem
}

// Policies reads the caches. It fails before they are complete.
func (s *Source) Policies(ctx context.Context) (Policies, error) {
	s.mu.Lock()
	from, kept := s.cache, s.kept
	s.mu.Unlock()
	var out Policies
	if from == nil || kept == nil {
		return out, errors.New("the agent has not heard all from the API server yet")
	}
	// It reads the blocks, and what became of those that are gone.
	snap, err := s.Snapshot(ctx)
	if err != nil {
		return out, err
	}
	out.Blocks, out.Uninstall = snap.Blocks, snap.Uninstall
	if snap.Network != nil {
		out.Objects.Ranges = snap.Network.Ranges
		out.Denied = snap.Network.Denied
	}
	out.Objects.Pods = kept.pods.list()
	var namespaces corev1.NamespaceList
	if err := from.List(ctx, &namespaces); err != nil {
		return out, fmt.Errorf("read namespaces: %w", err)
	}
	for i := range namespaces.Items {
		n := &namespaces.Items[i]
		out.Objects.Namespaces = append(out.Objects.Namespaces, model.Namespace{Name: n.Name, Labels: n.Labels})
	}
	var policies networkingv1.NetworkPolicyList
	if err := from.List(ctx, &policies); err != nil {
		return out, fmt.Errorf("read NetworkPolicies: %w", err)
	}
	for i := range policies.Items {
		p, err := policyapi.NetworkPolicy(&policies.Items[i])
		if err != nil {
			out.Problems = append(out.Problems, model.Problem{
				Reason:  podnetv1alpha1.ReasonDegraded,
				Message: fmt.Sprintf("%v; what cannot be read allows nothing until it is mended.", err),
			})
		}
		out.Objects.NetworkPolicies = append(out.Objects.NetworkPolicies, p)
	}
	clusterPolicies, err := kept.policies.List(ctx)
	if err != nil {
		return out, err
	}
	for i := range clusterPolicies {
		read := policyapi.ClusterPolicy(&clusterPolicies[i])
		for _, p := range read.Problems {
			out.Problems = append(out.Problems, model.Problem{
				Reason: podnetv1alpha1.ReasonDegraded, Message: fmt.Sprintf("ClusterNetworkPolicy %s: %s", clusterPolicies[i].Name, p.Message),
			})
		}
		if read.Policy != nil {
			out.Objects.ClusterPolicies = append(out.Objects.ClusterPolicies, *read.Policy)
		}
	}
	return out, nil
}
