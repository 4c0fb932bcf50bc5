package policy

import (
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// This file states once what policies mean: for the compiler, which asks for all connections
// between two ends at a time and gets the ports that they may use, and for explanations, which
// ask for one connection and get a yes or no.

// outcome is what policies make of connections.
type outcome[T any] interface {
	// both returns what is allowed in both of two outcomes.
	both(T) T
}

// askAll asks the admins' tier, then the NetworkPolicies where any isolates the pod, and
// otherwise the baseline. NetworkPolicies have no say in what a pod has with its own node.
// tier is given what becomes of that which its rules do not decide.
func askAll[T any](isolated, ofNode bool, tier func(t model.Tier, next T) T, networkPolicies func() T, allowed T) T {
	next := allowed
	switch {
	case !isolated:
		next = tier(model.BaselineTier, allowed)
	case !ofNode:
		next = networkPolicies()
	}
	return tier(model.AdminTier, next)
}

// askTier asks the rules of a tier. The first that matches decides, so that the last is
// applied first. A rule of which it is not sure that it matches can deny and not allow: it is
// applied, and not, and what both allow is allowed. apply returns what is allowed where a
// rule that matches matched comes before those that allow allowed.
func askTier[R, M any, T outcome[T]](rules []R, next T, match func(R) (surely, maybe M), apply func(rule R, allowed T, matched M) T) T {
	allowed := next
	for _, r := range slices.Backward(rules) {
		surely, maybe := match(r)
		allowed = allowed.both(apply(r, allowed, maybe))
		allowed = apply(r, allowed, surely)
	}
	return allowed
}

// certainty is what is known of whether a rule is about the other end of connections.
type certainty struct {
	// policy says that the policy surely selects the pod.
	policy bool
	// peer says that the other end is one of the peers, and maybePeer that it may be one.
	peer, maybePeer bool
	// vaguePorts says that it is unknown which ports have the names that the rule uses.
	vaguePorts bool
}

// matches returns what the rule surely matches, and what it may, where byPorts is what its
// ports match of all.
func matches[M any](c certainty, byPorts, all M) (surely, maybe M) {
	if !c.peer && !c.maybePeer {
		return surely, maybe
	}
	if maybe = byPorts; c.vaguePorts {
		maybe = all
	}
	if c.policy && c.peer {
		surely = byPorts
	}
	return surely, maybe
}

// selecting returns the NetworkPolicies that select a pod of a namespace in a direction, and
// whether any isolates it. Where the pod's object is unknown, which is nil then, every one
// may: none of its rules may allow anything.
func (x *Index) selecting(d direction, namespace string, object *indexedPod) (selected []*model.NetworkPolicy, isolated bool) {
	for i := range x.policies[namespace] {
		p := &x.policies[namespace][i]
		switch {
		case !isolates(p, d):
		case object == nil:
			isolated = true
		case p.Pods.Matches(object.Labels):
			selected, isolated = append(selected, p), true
		}
	}
	return selected, isolated
}

// askedRule is a rule of a cluster's policy that may be about a pod.
type askedRule struct {
	*model.TierRule
	policy string
	// sure says that the policy surely selects the pod.
	sure bool
}

// asked returns the rules of a tier that may be about a pod, whose object is nil where it
// is unknown, in the order in which they are asked.
func (x *Index) asked(t model.Tier, d direction, namespace string, object *indexedPod) []askedRule {
	var out []askedRule
	for i := range x.tiers[t] {
		p := &x.tiers[t][i]
		is, sure := x.isSubject(p, namespace, object)
		if !is {
			continue
		}
		rules := tierRulesOf(p, d)
		for j := range rules {
			out = append(out, askedRule{&rules[j], p.Name, sure})
		}
	}
	return out
}

// isSubject reports whether a policy may be about a pod of a namespace, whose object is nil
// where it is unknown, and whether that is sure.
func (x *Index) isSubject(p *model.ClusterPolicy, namespace string, object *indexedPod) (is, sure bool) {
	labels, known := x.namespaces[namespace]
	switch {
	case namespace == "":
		return false, true
	case known && !p.Namespaces.Matches(labels):
		return false, true
	case object != nil && !p.Pods.Matches(object.Labels):
		return false, true
	}
	return true, (known || len(p.Namespaces) == 0) && (object != nil || len(p.Pods) == 0)
}

// isolates reports whether a policy is about a direction.
func isolates(p *model.NetworkPolicy, d direction) bool {
	kind := model.PolicyIngress
	if d == egress {
		kind = model.PolicyEgress
	}
	if len(p.Types) == 0 {
		return d == ingress || len(p.Egress) > 0
	}
	return slices.Contains(p.Types, kind)
}

func rulesOf(p *model.NetworkPolicy, d direction) []model.PolicyRule {
	if d == egress {
		return p.Egress
	}
	return p.Ingress
}

func tierRulesOf(p *model.ClusterPolicy, d direction) []model.TierRule {
	if d == egress {
		return p.Egress
	}
	return p.Ingress
}

// peersOf returns the peers of a NetworkPolicy's rule: everybody where it names none.
func peersOf(r *model.PolicyRule) []model.PolicyPeer {
	if len(r.Peers) == 0 {
		return everybody
	}
	return r.Peers
}
