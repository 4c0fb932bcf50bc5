package policyapi

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/podnet/podnet/internal/model"
)

// ClusterReading is what was read of a ClusterNetworkPolicy.
type ClusterReading struct {
	// Policy is what podnet enforces of it; nil where that is nothing.
	Policy *model.ClusterPolicy
	// Problems are what podnet does not enforce as it stands, in the order of the fields.
	Problems []ClusterProblem
}

// ClusterProblem is a part of a ClusterNetworkPolicy that is not enforced as it stands.
type ClusterProblem struct {
	// Unsupported says that the part may mean something that podnet does not know; if
	// not, it has no meaning.
	Unsupported bool
	// Message is a sentence: the field, what is wrong with it, and what follows.
	Message string
}

// ClusterPolicy turns a ClusterNetworkPolicy into a value. It fails closed as the
// comments of the API's types ask: of a rule that accepts, what cannot be read matches
// nothing; a rule that denies or passes denies everything where a part of it cannot be
// read. A policy of which it cannot be read for whom and when it is, or what it does, is
// left out.
func ClusterPolicy(p *policyv1alpha2.ClusterNetworkPolicy) ClusterReading {
	r := clusterReader{policy: &model.ClusterPolicy{Name: p.Name, Priority: p.Spec.Priority, Count: isCounted(p)}}
	switch p.Spec.Tier {
	case policyv1alpha2.AdminTier:
		r.policy.Tier = model.AdminTier
	case policyv1alpha2.BaselineTier:
		r.policy.Tier = model.BaselineTier
	default:
		r.leaveOut("tier", unsupported("the tier %q is unknown", p.Spec.Tier))
	}
	if field, err := r.subject(p.Spec.Subject); err != nil {
		r.leaveOut(field, err)
	}
	for i, rule := range p.Spec.Ingress {
		in := clusterRule{field: fmt.Sprintf("ingress[%d]", i), action: rule.Action, protocols: rule.Protocols}
		for j, from := range rule.From {
			// An ingress peer is an egress peer with fewer fields.
			in.peers = append(in.peers, clusterPeer{
				fmt.Sprintf("%s.from[%d]", in.field, j), policyv1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: from.Namespaces, Pods: from.Pods},
			})
		}
		r.policy.Ingress = append(r.policy.Ingress, r.rule(in)...)
	}
	for i, rule := range p.Spec.Egress {
		out := clusterRule{field: fmt.Sprintf("egress[%d]", i), action: rule.Action, protocols: rule.Protocols}
		for j, to := range rule.To {
			out.peers = append(out.peers, clusterPeer{fmt.Sprintf("%s.to[%d]", out.field, j), to})
		}
		r.policy.Egress = append(r.policy.Egress, r.rule(out)...)
	}
	if len(r.leftOut) > 0 {
		return ClusterReading{Problems: r.leftOut}
	}
	return ClusterReading{Policy: r.policy, Problems: r.problems}
}

// clusterReader reads the parts of a ClusterNetworkPolicy.
type clusterReader struct {
	policy *model.ClusterPolicy
	// leftOut are the problems for which the whole policy is left out.
	leftOut, problems []ClusterProblem
}

// unsupportedError is of parts that may mean something in other versions of the API.
type unsupportedError struct{ error }

func unsupported(format string, args ...any) error {
	return unsupportedError{fmt.Errorf(format, args...)}
}

func problem(field string, err error, effect string) ClusterProblem {
	_, isUnsupported := errors.AsType[unsupportedError](err)
	return ClusterProblem{Unsupported: isUnsupported, Message: fmt.Sprintf("%s: %v: %s.", field, err, effect)}
}

// leaveOut leaves the whole policy out.
func (r *clusterReader) leaveOut(field string, err error) {
	r.leftOut = append(r.leftOut, problem(field, err, "the policy is not enforced"))
}

// failClosed takes note of a part of a rule that cannot be read.
func (r *clusterReader) failClosed(field string, err error, effect string) {
	r.problems = append(r.problems, problem(field, err, effect))
}

// subject reads whom the policy applies to, and returns which field cannot be read.
func (r *clusterReader) subject(s policyv1alpha2.ClusterNetworkPolicySubject) (string, error) {
	var err error
	switch {
	case s.Namespaces != nil:
		r.policy.Namespaces, err = Selector(s.Namespaces)
		return "subject.namespaces", err
	case s.Pods != nil:
		if r.policy.Namespaces, err = Selector(&s.Pods.NamespaceSelector); err != nil {
			return "subject.pods.namespaceSelector", err
		}
		r.policy.Pods, err = Selector(&s.Pods.PodSelector)
		return "subject.pods.podSelector", err
	}
	return "subject", unsupported("it has no field that podnet knows")
}

// clusterRule is a rule of either direction.
type clusterRule struct {
	field     string
	action    policyv1alpha2.ClusterNetworkPolicyRuleAction
	peers     []clusterPeer
	protocols []policyv1alpha2.ClusterNetworkPolicyProtocol
}

type clusterPeer struct {
	field string
	is    policyv1alpha2.ClusterNetworkPolicyEgressPeer
}

// rule returns the rule, or none where it matches nothing.
func (r *clusterReader) rule(rule clusterRule) []model.TierRule {
	out := model.TierRule{Field: rule.field, Action: model.PolicyAction(rule.action)}
	effect := "the rule denies everything until this is corrected"
	switch out.Action {
	case model.PolicyDeny, model.PolicyPass:
	case model.PolicyAccept:
		effect = "this part of the rule matches nothing"
	default:
		r.leaveOut(rule.field+".action", unsupported("the action %q is unknown", rule.action))
		return nil
	}
	before := len(r.problems)
	for _, p := range rule.peers {
		out.Peers = append(out.Peers, r.peers(p, effect)...)
	}
	for i, p := range rule.protocols {
		ports, err := protocol(p)
		if err != nil {
			r.failClosed(fmt.Sprintf("%s.protocols[%d]", rule.field, i), err, effect)
		}
		out.Ports = append(out.Ports, ports...)
	}
	switch {
	case out.Action != model.PolicyAccept && len(r.problems) > before:
		return []model.TierRule{{Field: rule.field, Action: model.PolicyDeny, Peers: everybody()}}
	case len(out.Peers) == 0 || len(rule.protocols) > 0 && len(out.Ports) == 0:
		// No ports would be all ports.
		return nil
	}
	return []model.TierRule{out}
}

// everybody is all addresses, and all pods, which are no addresses.
func everybody() []model.PolicyPeer {
	var out []model.PolicyPeer
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		out = append(out, model.PolicyPeer{Block: &model.IPBlock{CIDR: netip.PrefixFrom(all, 0)}})
	}
	return append(out, model.PolicyPeer{Namespaces: &model.Selector{}})
}

// peers returns what can be read of a peer.
func (r *clusterReader) peers(p clusterPeer, effect string) []model.PolicyPeer {
	selector := func(field string, s *metav1.LabelSelector) *model.Selector {
		out, err := Selector(s)
		if err != nil {
			r.failClosed(p.field+field, err, effect)
			return nil
		}
		return &out
	}
	var out model.PolicyPeer
	switch {
	case p.is.Namespaces != nil:
		if out.Namespaces = selector(".namespaces", p.is.Namespaces); out.Namespaces == nil {
			return nil
		}
	case p.is.Pods != nil:
		out.Namespaces = selector(".pods.namespaceSelector", &p.is.Pods.NamespaceSelector)
		out.Pods = selector(".pods.podSelector", &p.is.Pods.PodSelector)
		if out.Namespaces == nil || out.Pods == nil {
			return nil
		}
	case p.is.Nodes != nil:
		if out.Nodes = selector(".nodes", p.is.Nodes); out.Nodes == nil {
			return nil
		}
	case len(p.is.Networks) > 0:
		return r.networks(p, effect)
	case len(p.is.DomainNames) > 0:
		r.failClosed(p.field, unsupported("domainNames are not supported"), effect)
		return nil
	default:
		r.failClosed(p.field, unsupported("it has no field that podnet knows"), effect)
		return nil
	}
	return []model.PolicyPeer{out}
}

func (r *clusterReader) networks(p clusterPeer, effect string) []model.PolicyPeer {
	var out []model.PolicyPeer
	for i, n := range p.is.Networks {
		cidr, err := parseBlock(string(n))
		if err != nil {
			r.failClosed(fmt.Sprintf("%s.networks[%d]", p.field, i), err, effect)
			continue
		}
		out = append(out, model.PolicyPeer{Block: &model.IPBlock{CIDR: cidr}})
	}
	return out
}

// protocol returns the ports that a protocol selects. A port that has a name may be of
// any protocol.
func protocol(p policyv1alpha2.ClusterNetworkPolicyProtocol) ([]model.PolicyPort, error) {
	switch {
	case p.TCP != nil:
		return numbered(corev1.ProtocolTCP, p.TCP.DestinationPort)
	case p.UDP != nil:
		return numbered(corev1.ProtocolUDP, p.UDP.DestinationPort)
	case p.SCTP != nil:
		return numbered(corev1.ProtocolSCTP, p.SCTP.DestinationPort)
	case p.DestinationNamedPort != "":
		var out []model.PolicyPort
		for _, of := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			out = append(out, model.PolicyPort{Protocol: string(of), Name: p.DestinationNamedPort})
		}
		return out, nil
	}
	return nil, unsupported("it has no field that podnet knows")
}

// numbered returns the port or range of ports. Without one the API server must know a
// field that podnet does not: the protocol has to have some.
func numbered(of corev1.Protocol, port *policyv1alpha2.Port) ([]model.PolicyPort, error) {
	out := model.PolicyPort{Protocol: string(of)}
	switch {
	case port == nil:
		return nil, unsupported("it has no field that podnet knows")
	case port.Number != 0:
		out.Port = &port.Number
	case port.Range != nil:
		out.Port, out.EndPort = &port.Range.Start, &port.Range.End
	default:
		return nil, unsupported("its destinationPort has no field that podnet knows")
	}
	if !isPort(*out.Port) || out.EndPort != nil && (!isPort(*out.EndPort) || *out.EndPort < *out.Port) {
		return nil, errors.New("its destinationPort is no port from 1 to 65535, and no range of them")
	}
	return []model.PolicyPort{out}, nil
}

func isPort(n int32) bool { return n >= 1 && n <= 65535 }
