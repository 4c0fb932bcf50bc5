package policytest

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// answer is that to a question about somebody who may not be known.
type answer int

const (
	no answer = iota
	maybe
	yes
)

func answerOf(is bool) answer {
	if is {
		return yes
	}
	return no
}

// asked is a rule, with whether the policy that it is of selects the pod.
type asked struct {
	model.TierRule
	selected answer
}

// tierRules returns the rules of a tier that may be about a pod: "policies with lower
// priority values have higher precedence", "a rule that appears at the top … would take
// the highest precedence". Of two policies of equal priority the name decides.
func (w World) tierRules(tier model.Tier, pod model.Pod, direction model.PolicyType) []asked {
	policies := slices.Clone(w.Objects.ClusterPolicies)
	slices.SortFunc(policies, func(a, b model.ClusterPolicy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Name, b.Name))
	})
	var out []asked
	for _, p := range policies {
		selected := w.isSubject(p, pod)
		if p.Tier != tier || selected == no {
			continue
		}
		rules := p.Ingress
		if direction == model.PolicyEgress {
			rules = p.Egress
		}
		for _, r := range rules {
			out = append(out, asked{r, selected})
		}
	}
	return out
}

// isSubject reports whether a policy selects an attached pod. Labels that are unknown may
// be any, and there are selectors that select any.
func (w World) isSubject(p model.ClusterPolicy, pod model.Pod) answer {
	namespace := w.inNamespace(p.Namespaces, pod.Namespace)
	self, known := w.object(pod)
	labels := answerOf(known && selects(p.Pods, self.Labels))
	if !known {
		labels = maybe
		if len(p.Pods) == 0 {
			labels = yes
		}
	}
	return min(namespace, labels)
}

func (w World) inNamespace(s model.Selector, name string) answer {
	if len(s) == 0 {
		return yes
	}
	for _, n := range w.Objects.Namespaces {
		if n.Name == name {
			return answerOf(selects(s, n.Labels))
		}
	}
	return maybe
}

// tierAllows asks the rules one after the other. One that may match forbids what it would
// forbid, and does not allow what it would allow. Where none matches, the next tier
// is asked.
func (w World) tierAllows(rules []asked, pod model.Pod, c Connection, direction model.PolicyType, next func() bool) bool {
	for i, r := range rules {
		matches := min(r.selected, w.peersMatch(r.Peers, c, direction), w.portsMatch(r.Ports, pod, c, direction))
		if matches == no {
			continue
		}
		var allowed bool
		switch r.Action {
		case model.PolicyAccept:
			allowed = true
		case model.PolicyDeny:
			allowed = false
		case model.PolicyPass:
			allowed = next()
		}
		if matches == maybe {
			return allowed && w.tierAllows(rules[i+1:], pod, c, direction, next)
		}
		return allowed
	}
	return next()
}

func (w World) peersMatch(peers []model.PolicyPeer, c Connection, direction model.PolicyType) answer {
	other := c.Client
	if direction == model.PolicyEgress {
		other = c.Server
	}
	out := no
	for _, p := range peers {
		out = max(out, w.peerMatches(p, other))
	}
	return out
}

// peerMatches reports whether an address is that of a peer. "Note that host-networked pods
// are not included".
func (w World) peerMatches(p model.PolicyPeer, a netip.Addr) answer {
	if p.Block != nil {
		return answerOf(inBlock(*p.Block, w.asBlocksSee(a)))
	}
	pod, ok := w.podAt(a)
	switch {
	case p.Nodes != nil:
		if slices.ContainsFunc(w.Blocks, func(b model.Block) bool { return b.Node == w.holders[a].node && selects(*p.Nodes, b.Labels) }) {
			return yes
		}
	case ok && w.inNamespace(*p.Namespaces, pod.Namespace) == yes && (p.Pods == nil || selects(*p.Pods, pod.Labels)):
		return yes
	}
	if w.isStranger(a) {
		return maybe
	}
	return no
}

// isStranger reports whether an address is one that pods may have, and it is unknown
// what pod has it, or not what its namespace is like.
func (w World) isStranger(a netip.Addr) bool {
	if w.isNode(a) || !w.mayBePod(a) {
		return false
	}
	pod, ok := w.podAt(a)
	return !ok || !slices.ContainsFunc(w.Objects.Namespaces, func(n model.Namespace) bool { return n.Name == pod.Namespace })
}

func (w World) mayBePod(a netip.Addr) bool {
	return slices.ContainsFunc(w.Objects.Ranges, func(p netip.Prefix) bool { return p.Contains(a) }) ||
		slices.ContainsFunc(w.Blocks, func(b model.Block) bool { return b.CIDR.Contains(a) })
}

// portsMatch reports whether a connection is to one of the ports. "DestinationNamedPort
// selects a destination port on a pod based on the ContainerPort name": of a pod that is
// unknown it may be any.
func (w World) portsMatch(ports []model.PolicyPort, pod model.Pod, c Connection, direction model.PolicyType) answer {
	if w.anyPort(ports, c) {
		return yes
	}
	named := slices.ContainsFunc(ports, func(p model.PolicyPort) bool { return p.Name != "" && p.Protocol != "ICMP" })
	unknown := w.isStranger(c.Server)
	if direction == model.PolicyIngress {
		_, known := w.object(pod)
		unknown = !known
	}
	if named && unknown {
		return maybe
	}
	return no
}
