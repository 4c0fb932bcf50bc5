package policyapi

import (
	"net/netip"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestNetworkPolicyKeepsEveryField(t *testing.T) {
	g := gomega.NewWithT(t)
	udp := corev1.ProtocolUDP
	got, err := NetworkPolicy(&networkingv1.NetworkPolicy{
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
	got, err := NetworkPolicy(&networkingv1.NetworkPolicy{
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

func TestPoliciesAreCountedOnRequest(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "": false, "True": false} {
		g := gomega.NewWithT(t)
		annotations := map[string]string{podnetv1alpha1.CountAnnotation: value}
		got, err := NetworkPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(got.Count).To(gomega.Equal(want))
		p := clusterPolicy(func(*policyv1alpha2.ClusterNetworkPolicySpec) {})
		p.Annotations = annotations
		g.Expect(ClusterPolicy(p).Policy.Count).To(gomega.Equal(want))
	}
}
