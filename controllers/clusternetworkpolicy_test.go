package controllers

import (
	"context"
	"net/netip"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// policyList is all ClusterNetworkPolicies of a cluster.
type policyList []policyv1alpha2.ClusterNetworkPolicy

func (l policyList) List(context.Context) ([]policyv1alpha2.ClusterNetworkPolicy, error) {
	return l, nil
}

// policy is one of the tier Admin for all pods, with one rule for each peer.
func policy(name string, priority int32, peers ...policyv1alpha2.ClusterNetworkPolicyEgressPeer) policyv1alpha2.ClusterNetworkPolicy {
	p := policyv1alpha2.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 3},
		Spec: policyv1alpha2.ClusterNetworkPolicySpec{
			Tier: policyv1alpha2.AdminTier, Priority: priority,
			Subject: policyv1alpha2.ClusterNetworkPolicySubject{Namespaces: &metav1.LabelSelector{}},
		},
	}
	for _, peer := range peers {
		p.Spec.Egress = append(p.Spec.Egress, policyv1alpha2.ClusterNetworkPolicyEgressRule{
			Action: policyv1alpha2.ClusterNetworkPolicyRuleActionAccept, To: []policyv1alpha2.ClusterNetworkPolicyEgressPeer{peer},
		})
	}
	return p
}

func TestClusterNetworkPolicyIsToldWhatIsNotEnforced(t *testing.T) {
	type peer = policyv1alpha2.ClusterNetworkPolicyEgressPeer
	networks := peer{Networks: []policyv1alpha2.CIDR{"10.0.0.0/8"}}
	names := peer{DomainNames: []policyv1alpha2.DomainName{"example.org"}}
	invalid := peer{Networks: []policyv1alpha2.CIDR{"x"}}
	ofNobody := policy("a", 7, networks)
	ofNobody.Spec.Subject.Namespaces = nil
	baseline := policy("b", 7)
	baseline.Spec.Tier = policyv1alpha2.BaselineTier
	const (
		inForce  = "The policy is in force."
		allElse  = " The rest of the policy is in force."
		noDomain = "egress[0].to[0]: domainNames are not supported: this part of the rule matches nothing."
		noCIDR   = `egress[1].to[0].networks[0]: netip.ParsePrefix("x"): no '/': this part of the rule matches nothing.`
	)
	for name, c := range map[string]struct {
		policies policyList // The first is judged.
		status   metav1.ConditionStatus
		reason   string
		message  string
	}{
		"all of it can be enforced":  {policyList{policy("a", 7, networks)}, metav1.ConditionTrue, podnetv1alpha1.ReasonAccepted, inForce},
		"domain names":               {policyList{policy("a", 7, names)}, metav1.ConditionFalse, podnetv1alpha1.ReasonUnsupported, noDomain + allElse},
		"no CIDR after domain names": {policyList{policy("a", 7, names, invalid)}, metav1.ConditionFalse, podnetv1alpha1.ReasonInvalid, noDomain + " " + noCIDR + allElse},
		"a subject of a newer API": {
			policyList{ofNobody, policy("b", 7)}, metav1.ConditionFalse, podnetv1alpha1.ReasonUnsupported,
			"subject: it has no field that podnet knows: the policy is not enforced.",
		},
		"others of the same priority": {
			policyList{policy("a", 7, networks), policy("c", 7), policy("d", 8), baseline, policy("b", 7)}, metav1.ConditionTrue, podnetv1alpha1.ReasonAccepted,
			inForce + " Other policies of the tier Admin have the priority 7 too: b, c. The one whose name sorts first is asked first.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := gomega.NewWithT(t)
			g.Expect(accepted(&c.policies[0], c.policies)).To(gomega.Equal(metav1.Condition{
				Type: "podnet.dev/Accepted", Status: c.status, Reason: c.reason, Message: c.message, ObservedGeneration: 3,
			}))
		})
	}
}

func TestOtherAddressesAreAllThatAreNoEndpoints(t *testing.T) {
	g := gomega.NewWithT(t)
	node := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "node-1"},
		{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		{Type: corev1.NodeInternalIP, Address: "2001:DB8::1"},
		{Type: corev1.NodeExternalIP, Address: "203.0.113.7"},
		{Type: corev1.NodeHostName, Address: "203.0.113.7"},
		{Type: corev1.NodeInternalIP, Address: "10.0.0.1"},
		{Type: corev1.NodeInternalIP, Address: "fe80::1%eth0"},
		{Type: corev1.NodeExternalIP, Address: "10.244.1.2"},
	}}}
	known := registry{ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	g.Expect(otherAddresses(node, []string{"192.0.2.1", "2001:db8::1"}, known)).To(gomega.Equal([]string{"10.0.0.1", "203.0.113.7"}))
	g.Expect(otherAddresses(node, []string{"192.0.2.1", "2001:db8::1", "203.0.113.7", "10.0.0.1"}, known)).To(gomega.BeNil())
}

func TestPoliciesSelectNodesByTheKeysOfTheirPeers(t *testing.T) {
	g := gomega.NewWithT(t)
	type peer = policyv1alpha2.ClusterNetworkPolicyEgressPeer
	keys, selects := policyKeysOf(policyList{policy("a", 1, peer{Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}})})
	g.Expect(keys).To(gomega.BeEmpty())
	g.Expect(selects).To(gomega.BeFalse())
	keys, selects = policyKeysOf(policyList{policy("a", 1, peer{Nodes: &metav1.LabelSelector{}})})
	g.Expect(keys).To(gomega.BeEmpty())
	g.Expect(selects).To(gomega.BeTrue(), "an empty selector selects every node")
	keys, selects = policyKeysOf(policyList{policy("a", 1, peer{Nodes: &metav1.LabelSelector{
		MatchLabels:      map[string]string{"rack": "1"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "zone", Operator: metav1.LabelSelectorOpExists}},
	}})})
	g.Expect(keys).To(gomega.ConsistOf("rack", "zone"))
	g.Expect(selects).To(gomega.BeTrue())
}
