package cluster

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// policySpecs are about network policy under real kubelets and services. That the rules judge as the specification does is
// for other tests.
func policySpecs(a *actors) {
	It("enforces a NetworkPolicy on pods, behind services and from outside, and lets go of it", func(ctx context.Context) {
		policy := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "b1-for-a1"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: actor("b1"),
				Ingress: []networkingv1.NetworkPolicyIngressRule{{
					From:  []networkingv1.NetworkPolicyPeer{{PodSelector: ptr.To(actor("a1"))}},
					Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromInt32(webPort))}},
				}},
			},
		}
		apply(ctx, policy)
		for _, f := range families {
			expectSilence(ctx, a.in("a2"), append(a.askActor("b1", f.is4)[:1], a.askService("b1", f.is4)...))
			expectSilence(ctx, a.in("host"), a.askActor("b1", f.is4)[:1])
			expectSilence(ctx, outside{}, []ask{askWeb("TCP from outside", local.nodes[1].address(f.is4), a.nodePort("b1", "web"), "/hostname", "b1")})
			expectSilence(ctx, a.in("a1"), a.askService("b1", f.is4)[1:])
			expectAnswers(ctx, a.in("a1"), append(a.askActor("b1", f.is4)[:2], a.askService("b1", f.is4)[:1]...))
		}
		// Its own node asks it every second whether it is ready.
		Consistently(func(g Gomega) {
			pod := &corev1.Pod{}
			g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(a.pods["b1"]), pod)).To(Succeed())
			g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
		}).WithTimeout(5 * time.Second).Should(Succeed())
		Expect(kube.Delete(ctx, policy)).To(Succeed())
		for _, f := range families {
			expectAnswersSoon(ctx, a.in("a2"), append(a.askActor("b1", f.is4), a.askService("b1", f.is4)...))
		}
	}, SpecTimeout(3*time.Minute))

	It("asks ClusterNetworkPolicies before and after NetworkPolicies, and says that it does", func(ctx context.Context) {
		everyone := []policyv1alpha2.ClusterNetworkPolicyIngressPeer{{Namespaces: &metav1.LabelSelector{}}}
		baseline := a.clusterPolicy("c1-for-nobody", policyv1alpha2.BaselineTier, "c1")
		baseline.Spec.Ingress = []policyv1alpha2.ClusterNetworkPolicyIngressRule{{Action: policyv1alpha2.ClusterNetworkPolicyRuleActionDeny, From: everyone}}
		apply(ctx, baseline)
		expectAccepted(ctx, baseline)
		for _, f := range families {
			expectSilence(ctx, a.in("a1"), a.askActor("c1", f.is4)[:1])
		}

		apply(ctx, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: "c1-for-all"},
			Spec:       networkingv1.NetworkPolicySpec{PodSelector: actor("c1"), Ingress: []networkingv1.NetworkPolicyIngressRule{{}}},
		})
		for _, f := range families {
			expectAnswersSoon(ctx, a.in("a1"), a.askActor("c1", f.is4))
		}

		admin := a.clusterPolicy("c1-not-for-a1", policyv1alpha2.AdminTier, "c1")
		admin.Spec.Ingress = []policyv1alpha2.ClusterNetworkPolicyIngressRule{{
			Action: policyv1alpha2.ClusterNetworkPolicyRuleActionDeny,
			From: []policyv1alpha2.ClusterNetworkPolicyIngressPeer{{Pods: &policyv1alpha2.NamespacedPod{
				NamespaceSelector: a.itsNamespace(), PodSelector: actor("a1"),
			}}},
		}}
		apply(ctx, admin)
		expectAccepted(ctx, admin)
		for _, f := range families {
			expectSilence(ctx, a.in("a1"), append(a.askActor("c1", f.is4)[:1], a.askService("c1", f.is4)[:1]...))
			expectAnswers(ctx, a.in("a2"), a.askActor("c1", f.is4)[:2])
		}
	}, SpecTimeout(3*time.Minute))

	It("keeps pods from nodes, their own too, where a ClusterNetworkPolicy says so", func(ctx context.Context) {
		first := local.nodes[0]
		web := func(is4 bool) []ask {
			return []ask{askWeb("TCP to "+first.name, first.address(is4), hostWebPort, "/hostname", first.name)}
		}
		for _, f := range families {
			expectAnswers(ctx, a.in("a1"), web(f.is4))
		}
		policy := a.clusterPolicy("no-nodes", policyv1alpha2.AdminTier, "a1", "b1")
		policy.Spec.Egress = []policyv1alpha2.ClusterNetworkPolicyEgressRule{{
			Action: policyv1alpha2.ClusterNetworkPolicyRuleActionDeny,
			To: []policyv1alpha2.ClusterNetworkPolicyEgressPeer{{
				Nodes: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: first.name}},
			}},
			Protocols: []policyv1alpha2.ClusterNetworkPolicyProtocol{{
				TCP: &policyv1alpha2.ClusterNetworkPolicyProtocolTCP{DestinationPort: &policyv1alpha2.Port{Number: hostWebPort}},
			}},
		}}
		apply(ctx, policy)
		expectAccepted(ctx, policy)
		for _, f := range families {
			expectSilence(ctx, a.in("a1"), web(f.is4))
			expectSilence(ctx, a.in("b1"), web(f.is4))
			expectAnswers(ctx, a.in("a2"), web(f.is4))
			expectAnswers(ctx, a.in("a1"), a.askActor("b1", f.is4)[:1])
		}
	}, SpecTimeout(3*time.Minute))
}

func actor(name string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{"actor": name}}
}

func (a *actors) itsNamespace() metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: a.namespace}}
}

// clusterPolicy is a policy about actors, without rules.
func (a *actors) clusterPolicy(name string, tier policyv1alpha2.Tier, actors ...string) *policyv1alpha2.ClusterNetworkPolicy {
	return &policyv1alpha2.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1alpha2.ClusterNetworkPolicySpec{
			Tier: tier, Priority: 10,
			Subject: policyv1alpha2.ClusterNetworkPolicySubject{Pods: &policyv1alpha2.NamespacedPod{
				NamespaceSelector: a.itsNamespace(),
				PodSelector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "actor", Operator: metav1.LabelSelectorOpIn, Values: actors},
				}},
			}},
		},
	}
}

// apply makes an object that goes with the spec.
func apply(ctx context.Context, o client.Object) {
	GinkgoHelper()
	Expect(kube.Create(ctx, o)).To(Succeed())
	DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(kube.Delete(ctx, o))).To(Succeed()) })
}

// expectAccepted waits until podnet has said that it enforces a policy as it is.
func expectAccepted(ctx context.Context, p *policyv1alpha2.ClusterNetworkPolicy) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(kube.Get(ctx, client.ObjectKeyFromObject(p), p)).To(Succeed())
		c := meta.FindStatusCondition(p.Status.Conditions, podnetv1alpha1.ConditionPolicyAccepted)
		g.Expect(c).NotTo(BeNil())
		g.Expect(c.Status).To(Equal(metav1.ConditionTrue), c.Message)
		g.Expect(c.ObservedGeneration).To(Equal(p.Generation))
	}).Should(Succeed())
}
