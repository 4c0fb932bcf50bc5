package policyapi

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/podnet/podnet/internal/model"
)

// The API's names are long.
type (
	egressPeer = policyv1alpha2.ClusterNetworkPolicyEgressPeer
	protocolIs = policyv1alpha2.ClusterNetworkPolicyProtocol
	tcp        = policyv1alpha2.ClusterNetworkPolicyProtocolTCP
	udp        = policyv1alpha2.ClusterNetworkPolicyProtocolUDP
	sctp       = policyv1alpha2.ClusterNetworkPolicyProtocolSCTP
)

var (
	everything = model.Selector(nil)
	denyAll    = model.TierRule{Action: model.PolicyDeny, Peers: []model.PolicyPeer{
		blockPeer("0.0.0.0/0"), blockPeer("::/0"), {Namespaces: &model.Selector{}},
	}}
	badSelector = metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
)

// at returns rules as those of a field.
func at(field string, rules []model.TierRule) []model.TierRule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Field = field
	}
	return rules
}

func labelled(key, value string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func in(key, value string) *model.Selector {
	return &model.Selector{{Key: key, Operator: model.In, Values: []string{value}}}
}

func blockPeer(cidr string) model.PolicyPeer {
	return model.PolicyPeer{Block: &model.IPBlock{CIDR: netip.MustParsePrefix(cidr)}}
}

// clusterPolicy is an Admin policy for all pods.
func clusterPolicy(change func(*policyv1alpha2.ClusterNetworkPolicySpec)) *policyv1alpha2.ClusterNetworkPolicy {
	p := &policyv1alpha2.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: policyv1alpha2.ClusterNetworkPolicySpec{
			Tier: policyv1alpha2.AdminTier, Priority: 7, Subject: policyv1alpha2.ClusterNetworkPolicySubject{Namespaces: &metav1.LabelSelector{}},
		},
	}
	change(&p.Spec)
	return p
}

func egress(action string, peers []egressPeer, protocols ...protocolIs) *policyv1alpha2.ClusterNetworkPolicy {
	return clusterPolicy(func(s *policyv1alpha2.ClusterNetworkPolicySpec) {
		s.Egress = []policyv1alpha2.ClusterNetworkPolicyEgressRule{{
			Action: policyv1alpha2.ClusterNetworkPolicyRuleAction(action), To: peers, Protocols: protocols,
		}}
	})
}

func TestClusterPolicyKeepsEveryField(t *testing.T) {
	g := gomega.NewWithT(t)
	pods := &policyv1alpha2.NamespacedPod{NamespaceSelector: labelled("team", "a"), PodSelector: labelled("app", "web")}
	nodes := labelled("rack", "1")
	got := ClusterPolicy(clusterPolicy(func(s *policyv1alpha2.ClusterNetworkPolicySpec) {
		s.Tier = policyv1alpha2.BaselineTier
		s.Subject = policyv1alpha2.ClusterNetworkPolicySubject{Pods: pods}
		s.Ingress = []policyv1alpha2.ClusterNetworkPolicyIngressRule{
			{Name: "in", Action: "Accept", From: []policyv1alpha2.ClusterNetworkPolicyIngressPeer{{Namespaces: &metav1.LabelSelector{}}, {Pods: pods}}},
			{Action: "Pass", From: []policyv1alpha2.ClusterNetworkPolicyIngressPeer{{Namespaces: &metav1.LabelSelector{}}}, Protocols: []protocolIs{
				{DestinationNamedPort: "dns"},
			}},
		}
		s.Egress = []policyv1alpha2.ClusterNetworkPolicyEgressRule{{
			Action: "Deny",
			To:     []egressPeer{{Nodes: &nodes}, {Networks: []policyv1alpha2.CIDR{"10.0.0.0/8", "fd00::/8"}}, {Namespaces: &nodes}, {Pods: pods}},
			Protocols: []protocolIs{
				{TCP: &tcp{DestinationPort: &policyv1alpha2.Port{Number: 80}}},
				{UDP: &udp{DestinationPort: &policyv1alpha2.Port{Range: &policyv1alpha2.PortRange{Start: 5, End: 9}}}},
				{SCTP: &sctp{DestinationPort: &policyv1alpha2.Port{Number: 65535}}},
			},
		}}
	}))
	g.Expect(got.Problems).To(gomega.BeEmpty())
	g.Expect(got.Policy).To(gomega.Equal(&model.ClusterPolicy{
		Name: "p", Tier: model.BaselineTier, Priority: 7, Namespaces: *in("team", "a"), Pods: *in("app", "web"),
		Ingress: []model.TierRule{
			{Field: "ingress[0]", Action: model.PolicyAccept, Peers: []model.PolicyPeer{{Namespaces: &everything}, {Namespaces: in("team", "a"), Pods: in("app", "web")}}},
			{Field: "ingress[1]", Action: model.PolicyPass, Peers: []model.PolicyPeer{{Namespaces: &everything}}, Ports: []model.PolicyPort{
				{Protocol: "TCP", Name: "dns"}, {Protocol: "UDP", Name: "dns"}, {Protocol: "SCTP", Name: "dns"},
			}},
		},
		Egress: []model.TierRule{{
			Field: "egress[0]", Action: model.PolicyDeny,
			Peers: []model.PolicyPeer{
				{Nodes: in("rack", "1")}, blockPeer("10.0.0.0/8"), blockPeer("fd00::/8"),
				{Namespaces: in("rack", "1")}, {Namespaces: in("team", "a"), Pods: in("app", "web")},
			},
			Ports: []model.PolicyPort{
				{Protocol: "TCP", Port: ptr.To(int32(80))},
				{Protocol: "UDP", Port: ptr.To(int32(5)), EndPort: ptr.To(int32(9))}, {Protocol: "SCTP", Port: ptr.To(int32(65535))},
			},
		}},
	}))
}

// What podnet does not understand opens nothing and closes everything.
func TestRuleThatCannotBeReadFailsClosed(t *testing.T) {
	const matchesNothing, deniesAll = ": this part of the rule matches nothing.", ": the rule denies everything until this is corrected."
	good := egressPeer{Networks: []policyv1alpha2.CIDR{"10.0.0.0/8"}}
	web := protocolIs{TCP: &tcp{DestinationPort: &policyv1alpha2.Port{Number: 80}}}
	tcpPort := func(p policyv1alpha2.Port) protocolIs { return protocolIs{TCP: &tcp{DestinationPort: &p}} }
	for name, c := range map[string]struct {
		peers       []egressPeer
		protocols   []protocolIs
		unsupported bool
		// says is what is said of it before what follows.
		says string
		// accepts is what is left of a rule that accepts; none where there is no rule.
		accepts []model.TierRule
	}{
		"domain names": {
			peers: []egressPeer{{DomainNames: []policyv1alpha2.DomainName{"example.org"}}}, unsupported: true,
			says: "egress[0].to[0]: domainNames are not supported",
		},
		"domain names beside a network": {
			peers: []egressPeer{{DomainNames: []policyv1alpha2.DomainName{"example.org"}}, good}, unsupported: true,
			says:    "egress[0].to[0]: domainNames are not supported",
			accepts: []model.TierRule{{Action: model.PolicyAccept, Peers: []model.PolicyPeer{blockPeer("10.0.0.0/8")}}},
		},
		"a peer of a newer API": {
			peers: []egressPeer{{}}, unsupported: true, says: "egress[0].to[0]: it has no field that podnet knows",
		},
		"a network that is none": {
			peers: []egressPeer{{Networks: []policyv1alpha2.CIDR{"10.0.0.0/8", "everything"}}},
			says:  `egress[0].to[0].networks[1]: netip.ParsePrefix("everything"): no '/'`,
			accepts: []model.TierRule{{Action: model.PolicyAccept, Peers: []model.PolicyPeer{
				blockPeer("10.0.0.0/8"),
			}}},
		},
		"a selector of namespaces": {
			peers: []egressPeer{{Namespaces: &badSelector}}, says: `egress[0].to[0].namespaces: "Like" is not a valid label selector operator`,
		},
		"a selector of nodes": {
			peers: []egressPeer{{Nodes: &badSelector}}, says: `egress[0].to[0].nodes: "Like" is not a valid label selector operator`,
		},
		"a selector of pods": {
			peers: []egressPeer{{Pods: &policyv1alpha2.NamespacedPod{PodSelector: badSelector}}},
			says:  `egress[0].to[0].pods.podSelector: "Like" is not a valid label selector operator`,
		},
		"a selector of pods' namespaces": {
			peers: []egressPeer{{Pods: &policyv1alpha2.NamespacedPod{NamespaceSelector: badSelector}}},
			says:  `egress[0].to[0].pods.namespaceSelector: "Like" is not a valid label selector operator`,
		},
		"a protocol of a newer API": {
			peers: []egressPeer{good}, protocols: []protocolIs{{}}, unsupported: true,
			says: "egress[0].protocols[0]: it has no field that podnet knows",
		},
		"a protocol of a newer API beside TCP": {
			peers: []egressPeer{good}, protocols: []protocolIs{web, {}}, unsupported: true,
			says: "egress[0].protocols[1]: it has no field that podnet knows",
			accepts: []model.TierRule{{
				Action: model.PolicyAccept, Peers: []model.PolicyPeer{blockPeer("10.0.0.0/8")}, Ports: []model.PolicyPort{{Protocol: "TCP", Port: ptr.To(int32(80))}},
			}},
		},
		"TCP by a field of a newer API": {
			peers: []egressPeer{good}, protocols: []protocolIs{{TCP: &tcp{}}}, unsupported: true,
			says: "egress[0].protocols[0]: it has no field that podnet knows",
		},
		"a port of a newer API": {
			peers: []egressPeer{good}, protocols: []protocolIs{tcpPort(policyv1alpha2.Port{})}, unsupported: true,
			says: "egress[0].protocols[0]: its destinationPort has no field that podnet knows",
		},
		"a port that is too large": {
			peers: []egressPeer{good}, protocols: []protocolIs{tcpPort(policyv1alpha2.Port{Number: 65536})},
			says: "egress[0].protocols[0]: its destinationPort is no port from 1 to 65535, and no range of them",
		},
		"a range that is upside down": {
			peers: []egressPeer{good}, protocols: []protocolIs{tcpPort(policyv1alpha2.Port{Range: &policyv1alpha2.PortRange{Start: 9, End: 5}})},
			says: "egress[0].protocols[0]: its destinationPort is no port from 1 to 65535, and no range of them",
		},
	} {
		for action, want := range map[string]struct {
			effect string
			rules  []model.TierRule
		}{
			"Accept": {matchesNothing, c.accepts}, "Deny": {deniesAll, []model.TierRule{denyAll}}, "Pass": {deniesAll, []model.TierRule{denyAll}},
		} {
			t.Run(name+" to "+action, func(t *testing.T) {
				g := gomega.NewWithT(t)
				got := ClusterPolicy(egress(action, c.peers, c.protocols...))
				g.Expect(got.Problems).To(gomega.Equal([]ClusterProblem{{Unsupported: c.unsupported, Message: c.says + want.effect}}))
				g.Expect(got.Policy.Egress).To(gomega.Equal(at("egress[0]", want.rules)))
			})
		}
	}
}

func TestIngressPeerThatCannotBeReadFailsClosed(t *testing.T) {
	g := gomega.NewWithT(t)
	got := ClusterPolicy(clusterPolicy(func(s *policyv1alpha2.ClusterNetworkPolicySpec) {
		s.Ingress = []policyv1alpha2.ClusterNetworkPolicyIngressRule{
			{Action: "Accept", From: []policyv1alpha2.ClusterNetworkPolicyIngressPeer{{}}},
			{Action: "Deny", From: []policyv1alpha2.ClusterNetworkPolicyIngressPeer{{}}},
		}
	}))
	g.Expect(got.Problems).To(gomega.HaveLen(2))
	g.Expect(got.Problems[1].Message).To(gomega.HavePrefix("ingress[1].from[0]: it has no field that podnet knows"))
	g.Expect(got.Policy.Ingress).To(gomega.Equal(at("ingress[1]", []model.TierRule{denyAll})))
}

func TestPolicyOfWhichNotEvenItsPlaceCanBeReadIsLeftOut(t *testing.T) {
	const leftOut = ": the policy is not enforced."
	for name, c := range map[string]struct {
		change func(*policyv1alpha2.ClusterNetworkPolicySpec)
		want   ClusterProblem
	}{
		"tier": {
			func(s *policyv1alpha2.ClusterNetworkPolicySpec) { s.Tier = "Middle" },
			ClusterProblem{true, `tier: the tier "Middle" is unknown` + leftOut},
		},
		"subject of a newer API": {
			func(s *policyv1alpha2.ClusterNetworkPolicySpec) { s.Subject.Namespaces = nil },
			ClusterProblem{true, "subject: it has no field that podnet knows" + leftOut},
		},
		"subject's namespaces": {
			func(s *policyv1alpha2.ClusterNetworkPolicySpec) { s.Subject.Namespaces = &badSelector },
			ClusterProblem{false, `subject.namespaces: "Like" is not a valid label selector operator` + leftOut},
		},
		"subject's pods": {
			func(s *policyv1alpha2.ClusterNetworkPolicySpec) {
				s.Subject = policyv1alpha2.ClusterNetworkPolicySubject{Pods: &policyv1alpha2.NamespacedPod{PodSelector: badSelector}}
			},
			ClusterProblem{false, `subject.pods.podSelector: "Like" is not a valid label selector operator` + leftOut},
		},
		"subject's pods' namespaces": {
			func(s *policyv1alpha2.ClusterNetworkPolicySpec) {
				s.Subject = policyv1alpha2.ClusterNetworkPolicySubject{Pods: &policyv1alpha2.NamespacedPod{NamespaceSelector: badSelector}}
			},
			ClusterProblem{false, `subject.pods.namespaceSelector: "Like" is not a valid label selector operator` + leftOut},
		},
		"action": {
			func(s *policyv1alpha2.ClusterNetworkPolicySpec) {
				s.Egress = []policyv1alpha2.ClusterNetworkPolicyEgressRule{
					{Action: "Deny", To: []egressPeer{{}}}, {Action: "Reject", To: []egressPeer{{Networks: []policyv1alpha2.CIDR{"::/0"}}}},
				}
			},
			ClusterProblem{true, `egress[1].action: the action "Reject" is unknown` + leftOut},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := gomega.NewWithT(t)
			g.Expect(ClusterPolicy(clusterPolicy(c.change))).To(gomega.Equal(ClusterReading{Problems: []ClusterProblem{c.want}}))
		})
	}
}

// Without peers a rule selects nobody; the API server lets no such rule in.
func TestRuleWithoutPeersIsNoRule(t *testing.T) {
	g := gomega.NewWithT(t)
	got := ClusterPolicy(egress("Accept", nil))
	g.Expect(got.Problems).To(gomega.BeEmpty())
	g.Expect(got.Policy.Egress).To(gomega.BeEmpty())
}
