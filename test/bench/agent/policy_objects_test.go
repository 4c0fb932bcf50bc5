package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/bench/apiserver"
)

// Pods are spread over peers and over namespaces; and each namespace has policies.
const (
	peerNodes            = 100
	podsPerNamespace     = 100
	policiesPerNamespace = 10
)

// Namespaces of the benchmark's own pods: the pod that sends is in the first, and those
// to which it sends are in the others.
const (
	sending  = "sending"
	arriving = "arriving"
	late     = "late"
	waiting  = "waiting"
)

var ownNamespaces = []string{sending, arriving, late, waiting}

// senderAddr is the address of the pod that sends.
var senderAddr = ownBlock.Addr().Next().Next()

// addressIn is the address of the i-th pod of one of the namespaces.
func addressIn(namespace string, i int) netip.Addr {
	return addressOn(i%peerNodes, 200+10*slices.Index(ownNamespaces, namespace)+i/peerNodes)
}

// stored is an API server with the objects of a cluster that grows.
type stored struct {
	*apiserver.Server
	pods, policies int
}

// newStored makes one with the network, the blocks of all nodes, and the benchmark's own
// namespaces.
func newStored(b *testing.B) *stored {
	b.Helper()
	s := &stored{Server: apiserver.Start(b, "../../..")}
	c := newCluster(peerNodes)
	c.blocks[0].Endpoints = peer(0).Endpoints // until there is a node
	objects := []client.Object{&podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec: podnetv1alpha1.PodNetworkSpec{
			Ranges: []podnetv1alpha1.Range{{CIDR: ranges.String(), NodePrefixLength: 24}}, RouteMode: podnetv1alpha1.ModeOverlay,
		},
	}}
	for _, block := range c.blocks {
		name, err := ipam.BlockName(block.CIDR)
		must(b, "naming a block", err)
		objects = append(objects, &podnetv1alpha1.NodeSubnet{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: podnetv1alpha1.NodeSubnetSpec{
				Network: podnetv1alpha1.DefaultPodNetwork, Node: block.Node, CIDR: block.CIDR.String(), State: podnetv1alpha1.SubnetActive,
				Endpoints: []string{block.Endpoints[0].String()}, NodeLabels: block.Labels,
			},
		})
	}
	for _, name := range ownNamespaces {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for _, object := range objects {
		must(b, "creating "+object.GetName(), s.API.Create(b.Context(), object))
	}
	return s
}

// settle says where the node is.
func (s *stored) settle(b *testing.B, endpoint netip.Addr) {
	b.Helper()
	name, err := ipam.BlockName(ownBlock)
	must(b, "naming a block", err)
	block := &podnetv1alpha1.NodeSubnet{ObjectMeta: metav1.ObjectMeta{Name: name}}
	patch := fmt.Sprintf(`{"spec":{"endpoints":[%q]}}`, endpoint)
	must(b, "giving the node an endpoint", s.API.Patch(b.Context(), block, client.RawPatch(types.MergePatchType, []byte(patch))))
}

// grow adds pods and policies until there are so many.
func (s *stored) grow(b *testing.B, pods, policies int) {
	b.Helper()
	from, fromPolicies := s.pods, s.policies
	for n := s.pods / podsPerNamespace; n < pods/podsPerNamespace; n++ {
		must(b, "creating a namespace", s.API.Create(b.Context(), &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: namespaceName(n), Labels: map[string]string{"team": namespaceName(n)}},
		}))
	}
	s.pods, s.policies = pods, policies
	s.Fill(b, func(yield func(string, client.Object) bool) {
		for i := from; i < pods; i++ {
			if p := storedPod(i); !yield("pods/"+p.Namespace+"/"+p.Name, p) {
				return
			}
		}
		for i := fromPolicies; i < policies; i++ {
			if p := storedPolicy(i); !yield("networkpolicies/"+p.Namespace+"/"+p.Name, p) {
				return
			}
		}
	})
}

func namespaceName(n int) string { return fmt.Sprint("ns", n) }

// isOwn says whether the i-th pod is one of the node's: ten in each of the first ten
// namespaces, of as many applications.
func isOwn(i int) bool { return i < 1000 && i%10 == i/10%10 }

// ownPods are the pods of the node, as its agent has recorded them.
func ownPods() []model.Pod {
	var out []model.Pod
	for i := range 1000 {
		if !isOwn(i) {
			continue
		}
		p := storedPod(i)
		out = append(out, model.Pod{
			ContainerID: p.Name, IfName: "eth0", Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), HostLink: model.PodLinkPrefix + p.Name,
			Attachment: model.PointToPoint, Addrs: []netip.Addr{netip.MustParseAddr(p.Status.PodIP)}, Blocks: []netip.Prefix{ownBlock},
		})
	}
	return out
}

// addressOn is an address of a peer's block.
func addressOn(peerNode, host int) netip.Addr {
	a := peer(peerNode).CIDR.Addr().As4()
	a[3] = byte(host)
	return netip.AddrFrom4(a)
}

// storedPod is the i-th pod, with what pods have that policy does not go by.
func storedPod(i int) *corev1.Pod {
	addr, node := addressOn(i%peerNodes, 2+i/peerNodes), peer(i%peerNodes).Node
	if isOwn(i) {
		own := ownBlock.Addr().As4()
		own[3] = byte(10 + i/10)
		addr, node = netip.AddrFrom4(own), self
	}
	p := newPod(namespaceName(i/podsPerNamespace), fmt.Sprint("pod", i), map[string]string{
		"app": fmt.Sprint("a", i%10), "tier": fmt.Sprint("t", i%3), "pod-template-hash": fmt.Sprint("hash", i%10),
	})
	p.Spec.NodeName = node
	p.Status = statusWith(addr)
	return p
}

func statusWith(addr netip.Addr) corev1.PodStatus {
	now := metav1.NewTime(time.Unix(1_700_000_000, 0))
	s := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: addr.String(), PodIPs: []corev1.PodIP{{IP: addr.String()}}, HostIP: "192.0.2.1", StartTime: &now,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Ready: true, Image: "registry.example/team/application:v1.2.3", ContainerID: "containerd://" + string(uuid.NewUUID()),
			ImageID: "registry.example/team/application@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		}},
	}
	for _, t := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return s
}

func newPod(namespace, name string, labels map[string]string) *corev1.Pod {
	main := corev1.Container{
		Name: "main", Image: "registry.example/team/application:v1.2.3", Command: []string{"/bin/application", "--listen=:8080", "--config=/etc/application/config.yaml"},
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: "metrics", ContainerPort: 9090, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		}},
		VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/application"}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromString("http")},
		}},
		TerminationMessagePolicy: corev1.TerminationMessageReadFile, ImagePullPolicy: corev1.PullIfNotPresent,
	}
	for i := range 10 {
		main.Env = append(main.Env, corev1.EnvVar{Name: fmt.Sprint("SETTING_", i), Value: fmt.Sprintf("https://service-%d.example/with/a/path", i)})
	}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: uidOf(namespace, name), Labels: labels, CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)),
			Annotations: map[string]string{"example.dev/checksum": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{main}, RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: ptr.To[int64](30), SecurityContext: &corev1.PodSecurityContext{}, SchedulerName: corev1.DefaultSchedulerName,
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "application"},
			}}}},
		},
	}
}

func uidOf(namespace, name string) types.UID { return types.UID("uid-of-" + namespace + "-" + name) }

// storedPolicy is the i-th policy: of a namespace one isolates all pods, one allows a
// port of all, and the others are about one application each.
func storedPolicy(i int) *networkingv1.NetworkPolicy {
	n, kind := i/policiesPerNamespace, i%policiesPerNamespace
	p := newPolicy(namespaceName(n), fmt.Sprint("policy", i))
	switch kind {
	case 0:
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	case 1:
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}, Ports: port("metrics")}}
	default:
		p.Spec.PodSelector = labelled("app", fmt.Sprint("a", kind))
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
			From:  []networkingv1.NetworkPolicyPeer{{PodSelector: ptr.To(labelled("app", fmt.Sprint("a", kind-1)))}, {NamespaceSelector: ptr.To(labelled("team", namespaceName(n+kind)))}},
			Ports: port("http"),
		}}
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{
			To: []networkingv1.NetworkPolicyPeer{
				{NamespaceSelector: ptr.To(labelled("team", namespaceName(n+2*kind))), PodSelector: ptr.To(labelled("tier", "t1"))},
				{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("198.18.%d.0/24", kind)}},
			},
		}}
	}
	return p
}

func newPolicy(namespace, name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uidOf(namespace, name), Generation: 1},
	}
}

func labelled(key, value string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func port(name string) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{{Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(intstr.FromString(name))}}
}

// prepare makes the pods that arrive, which have no addresses yet, those that wait for
// policies, and the pod that sends, with its policies: it may send to those that arrive.
func (s *stored) prepare(b *testing.B) {
	b.Helper()
	for _, namespace := range ownNamespaces {
		for _, of := range []client.Object{&networkingv1.NetworkPolicy{}, &corev1.Pod{}} {
			must(b, "deleting what was there", s.API.DeleteAllOf(b.Context(), of, client.InNamespace(namespace), client.GracePeriodSeconds(0)))
		}
	}
	s.Fill(b, func(yield func(string, client.Object) bool) {
		sender := newPod(sending, sending, nil)
		sender.Spec.NodeName, sender.Status = self, statusWith(senderAddr)
		more := yield("pods/"+sending+"/"+sending, sender)
		for i := 0; more && i < arrivals*len(ownNamespaces[1:]); i++ {
			number, namespace := i%arrivals, ownNamespaces[1+i/arrivals]
			p := newPod(namespace, fmt.Sprint(namespace, number), map[string]string{"number": fmt.Sprint(number)})
			p.Spec.NodeName = peer(number % peerNodes).Node
			if namespace == waiting {
				p.Status = statusWith(addressIn(namespace, number))
			}
			more = yield("pods/"+namespace+"/"+p.Name, p)
		}
	})
	deny := newPolicy(sending, "deny")
	deny.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	must(b, "making a policy", s.API.Create(b.Context(), deny))
	for _, namespace := range []string{arriving, late} {
		must(b, "making a policy", s.API.Create(b.Context(), egressTo("to-"+namespace, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: ptr.To(labelled(corev1.LabelMetadataName, namespace)),
		})))
	}
}

// egressTo allows the pods that send to send to a peer.
func egressTo(name string, peer networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	p := newPolicy(sending, name)
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{peer}}}
	return p
}

// giveAddress does what a kubelet does when a pod has its address.
func (s *stored) giveAddress(b *testing.B, namespace string, i int) client.Object {
	b.Helper()
	p := &corev1.Pod{}
	must(b, "reading a pod", s.API.Get(b.Context(), client.ObjectKey{Namespace: namespace, Name: fmt.Sprint(namespace, i)}, p))
	p.Status = statusWith(addressIn(namespace, i))
	must(b, "giving a pod its address", s.API.Status().Update(b.Context(), p))
	return p
}

// allow makes a policy that allows to send to one of the pods that wait.
func (s *stored) allow(b *testing.B, i int) client.Object {
	b.Helper()
	p := egressTo(fmt.Sprint("to", i), networkingv1.NetworkPolicyPeer{
		NamespaceSelector: ptr.To(labelled(corev1.LabelMetadataName, waiting)), PodSelector: ptr.To(labelled("number", fmt.Sprint(i))),
	})
	must(b, "making a policy", s.API.Create(b.Context(), p))
	return p
}

// relabel changes a label of pods elsewhere, so many a second, until ctx ends.
func (s *stored) relabel(ctx context.Context, perSecond int) error {
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		p := storedPod(i % s.pods)
		patch := fmt.Sprintf(`{"metadata":{"labels":{"pod-template-hash":"%d-hash%d"}}}`, i/s.pods, i%10)
		if err := s.API.Patch(ctx, p, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil && ctx.Err() == nil {
			return fmt.Errorf("change the labels of pod %s: %w", p.Name, err)
		}
	}
}
