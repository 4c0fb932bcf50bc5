package source

import (
	"net/netip"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/podnet/podnet/internal/model"
)

// fullPod is a pod with more than policy goes by.
func fullPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "red", Name: "p", UID: "1", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"long": "text"},
			CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)), ResourceVersion: "7",
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
		},
		Spec: corev1.PodSpec{
			NodeName:       "n",
			Containers:     []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {ContainerPort: 9}}}},
			InitContainers: []corev1.Container{{Name: "sidecar", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.2", PodIPs: []corev1.PodIP{{IP: "10.244.1.2"}, {IP: "fd44::2"}}},
	}
}

func TestStrippedPodKeepsWhatPolicyGoesBy(t *testing.T) {
	g := gomega.NewWithT(t)
	stripped, err := stripPod(fullPod())
	g.Expect(err).NotTo(gomega.HaveOccurred())
	p := stripped.(*corev1.Pod)
	g.Expect(p.ManagedFields).To(gomega.BeNil())
	g.Expect(p.Annotations).To(gomega.BeNil())
	g.Expect(p.ResourceVersion).To(gomega.Equal("7"))
	g.Expect(clusterPod(p)).To(gomega.Equal(model.ClusterPod{
		Namespace: "red", Name: "p", UID: "1", Labels: map[string]string{"app": "a"}, Node: "n", Created: time.Unix(1_700_000_000, 0),
		Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd44::2")},
		Ports: []model.NamedPort{{Name: "web", Protocol: "TCP", Port: 8080}, {Name: "metrics", Port: 9090}},
	}))
	gone := toolscache.DeletedFinalStateUnknown{Key: "red/p"}
	g.Expect(stripPod(gone)).To(gomega.Equal(gone))
}

// The runtime knows a static pod by its own UID, and the API by that of its mirror.
func TestStaticPodHasTheUIDThatTheRuntimeKnows(t *testing.T) {
	g := gomega.NewWithT(t)
	p := fullPod()
	p.Annotations["kubernetes.io/config.hash"] = "hash"
	stripped, err := stripPod(p)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(clusterPod(stripped.(*corev1.Pod)).UID).To(gomega.Equal("hash"))
}

func TestPodsThatChangeNothingForPolicyAreNotTold(t *testing.T) {
	g := gomega.NewWithT(t)
	told := 0
	keeps := &pods{byID: map[types.NamespacedName]model.ClusterPod{}}
	h := keeps.handler(func() { told++ })
	h.OnAdd(fullPod(), true)
	g.Expect(told).To(gomega.Equal(1))
	later := fullPod()
	later.ResourceVersion, later.Status.Phase, later.Annotations = "8", corev1.PodPending, nil
	h.OnUpdate(fullPod(), later)
	g.Expect(told).To(gomega.Equal(1))
	later.Labels = map[string]string{"app": "b"}
	h.OnUpdate(fullPod(), later)
	g.Expect(told).To(gomega.Equal(2))
	g.Expect(keeps.list()).To(gomega.HaveLen(1))
	h.OnDelete(toolscache.DeletedFinalStateUnknown{Obj: later})
	g.Expect(told).To(gomega.Equal(3))
	g.Expect(keeps.list()).To(gomega.BeEmpty())
}

func TestNetworkPolicyKeepsEveryField(t *testing.T) {
	g := gomega.NewWithT(t)
	udp := corev1.ProtocolUDP
	got, err := networkPolicy(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "p"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}, {PodSelector: &metav1.LabelSelector{}}},
			}},
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}},
				Ports: []networkingv1.NetworkPolicyPort{
					{Protocol: &udp, Port: ptr.To(intstr.FromInt32(53)), EndPort: ptr.To(int32(60))}, {Port: ptr.To(intstr.FromString("web"))}, {},
				},
			}},
		},
	})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	everything := model.Selector(nil)
	g.Expect(got).To(gomega.Equal(model.NetworkPolicy{
		Namespace: "red", Name: "p", Pods: model.Selector{{Key: "app", Operator: model.In, Values: []string{"a"}}},
		Types:   []model.PolicyType{model.PolicyEgress},
		Ingress: []model.PolicyRule{{Peers: []model.PolicyPeer{{Namespaces: &everything}, {Pods: &everything}}}},
		Egress: []model.PolicyRule{{
			Peers: []model.PolicyPeer{{Block: &model.IPBlock{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}}},
			Ports: []model.PolicyPort{{Protocol: "UDP", Port: ptr.To(int32(53)), EndPort: ptr.To(int32(60))}, {Name: "web"}, {}},
		}},
	}))
}

func TestWhatOfAPolicyCannotBeReadAllowsNothing(t *testing.T) {
	g := gomega.NewWithT(t)
	bad := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
	got, err := networkPolicy(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "p"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: bad}, {IPBlock: &networkingv1.IPBlock{CIDR: "everything"}}, {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"x"}}},
			{IPBlock: &networkingv1.IPBlock{CIDR: "010.002.0.00/16"}},
		}}}},
	})
	g.Expect(err).To(gomega.MatchError(gomega.And(gomega.HavePrefix("NetworkPolicy red/p: ingress[0].peers[0]"), gomega.ContainSubstring("ingress[0].peers[2].ipBlock.except"))))
	peers := got.Ingress[0].Peers
	g.Expect(peers).To(gomega.HaveLen(4))
	g.Expect(peers[0].Pods.Matches(map[string]string{})).To(gomega.BeFalse())
	g.Expect(peers[1:3]).To(gomega.Equal([]model.PolicyPeer{{}, {}}))
	g.Expect(peers[3].Block.CIDR).To(gomega.Equal(netip.MustParsePrefix("10.2.0.0/16")))
}
