package policyapi

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// NetworkPolicy turns a NetworkPolicy into a value. What cannot be read, which the API
// server's validation does not let through, selects nobody, and the error says what it is.
func NetworkPolicy(p *networkingv1.NetworkPolicy) (model.NetworkPolicy, error) {
	out := model.NetworkPolicy{Namespace: p.Namespace, Name: p.Name, Count: isCounted(p)}
	var problems []string
	r := policyReader{problem: func(field string, err error) {
		problems = append(problems, fmt.Sprintf("%s: %v", field, err))
	}}
	if s := r.selector("podSelector", &p.Spec.PodSelector); s != nil {
		out.Pods = *s
	}
	for _, t := range p.Spec.PolicyTypes {
		out.Types = append(out.Types, model.PolicyType(t))
	}
	for i, rule := range p.Spec.Ingress {
		out.Ingress = append(out.Ingress, r.rule(fmt.Sprintf("ingress[%d]", i), rule.From, rule.Ports))
	}
	for i, rule := range p.Spec.Egress {
		out.Egress = append(out.Egress, r.rule(fmt.Sprintf("egress[%d]", i), rule.To, rule.Ports))
	}
	if len(problems) > 0 {
		return out, fmt.Errorf("NetworkPolicy %s/%s: %s", p.Namespace, p.Name, strings.Join(problems, "; "))
	}
	return out, nil
}

// isCounted reports whether somebody asks for the packets of a policy's rules to be counted.
func isCounted(policy metav1.Object) bool {
	return policy.GetAnnotations()[podnetv1alpha1.CountAnnotation] == "true"
}

// policyReader reads parts of a NetworkPolicy.
type policyReader struct {
	problem func(field string, err error)
}

func (r policyReader) selector(field string, s *metav1.LabelSelector) *model.Selector {
	if s == nil {
		return nil
	}
	out, err := Selector(s)
	if err != nil {
		r.problem(field, err)
		return &nobody
	}
	return &out
}

func (r policyReader) rule(field string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) model.PolicyRule {
	var out model.PolicyRule
	for i, p := range peers {
		at := fmt.Sprintf("%s.peers[%d]", field, i)
		peer := model.PolicyPeer{Namespaces: r.selector(at, p.NamespaceSelector), Pods: r.selector(at, p.PodSelector)}
		if p.IPBlock != nil {
			peer.Block = r.block(at, p.IPBlock)
		}
		out.Peers = append(out.Peers, peer)
	}
	for _, p := range ports {
		port := model.PolicyPort{EndPort: p.EndPort}
		if p.Protocol != nil {
			port.Protocol = string(*p.Protocol)
		}
		if p.Port != nil {
			if p.Port.Type == intstr.String {
				port.Name = p.Port.StrVal
			} else {
				port.Port = &p.Port.IntVal
			}
		}
		out.Ports = append(out.Ports, port)
	}
	return out
}

// block reads a block. Without all of its exceptions it would hold too much, so that
// one which cannot be read makes it nobody's.
func (r policyReader) block(field string, b *networkingv1.IPBlock) *model.IPBlock {
	var out model.IPBlock
	var err error
	if out.CIDR, err = parseBlock(b.CIDR); err != nil {
		r.problem(field+".ipBlock.cidr", err)
		return nil
	}
	for _, e := range b.Except {
		except, err := parseBlock(e)
		if err != nil {
			r.problem(field+".ipBlock.except", err)
			return nil
		}
		out.Except = append(out.Except, except)
	}
	return &out
}
