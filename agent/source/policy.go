package source

import (
	"context"
	"fmt"
	"maps"
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

	"github.com/podnet/podnet/agent/state"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/clusterpolicies"
	"github.com/podnet/podnet/internal/convert"
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

// stripPod leaves of a pod what convert.Pod reads.
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
	if hash, ok := p.Annotations[convert.MirrorHash]; ok {
		out.Annotations = map[string]string{convert.MirrorHash: hash}
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
		is := convert.Pod(pod)
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

// Policies implements state.Source. It fails before the caches are complete.
func (s *Source) Policies(ctx context.Context) (state.Policies, error) {
	s.mu.Lock()
	from, kept := s.cache, s.kept
	s.mu.Unlock()
	var out state.Policies
	if from == nil || kept == nil {
		return out, errUnheard
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
				Message: fmt.Sprintf("%v. What cannot be read allows nothing: correct it.", err),
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
