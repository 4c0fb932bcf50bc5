package policy

import (
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// grant returns the ports that a class and an identity have in common: what the tiers
// of the cluster's policies and the NetworkPolicies between them allow.
func (d *decision) grant(c *class, i *identity) ports {
	if known, ok := c.granted[i]; ok {
		return known
	}
	allowed := allPorts()
	switch {
	case !c.isolated:
		allowed = d.tier(c.tiers[model.BaselineTier], i, allowed)
	case !i.host:
		allowed = d.allowedBy(c.rules, i)
	}
	allowed = d.tier(c.tiers[model.AdminTier], i, allowed)
	c.granted[i] = allowed
	return allowed
}

// allowedBy returns what any of the rules of NetworkPolicies allows.
func (d *decision) allowedBy(rules []rule, i *identity) ports {
	var all []ports
	for _, r := range rules {
		if i.peers.has(r.peer) {
			all = append(all, i.portsOf(r.ports))
		}
	}
	return ports{}.union(all...)
}

// tier returns what is allowed where a tier is asked first, and what it does not decide
// is allowed as after says. The first rule that matches decides, so that the last is
// applied first. A rule of which it is not known whether it matches can forbid and not
// allow: it is applied, and not, and what both allow is allowed.
func (d *decision) tier(rules []tierRule, i *identity, after ports) ports {
	allowed := after
	for _, r := range slices.Backward(rules) {
		surely, maybe := d.match(r, i)
		allowed = allowed.intersect(r.action.apply(allowed, after, maybe))
		allowed = r.action.apply(allowed, after, surely)
	}
	return allowed
}

// action is what becomes of connections that a rule matches.
type action model.PolicyAction

// apply returns what is allowed where a rule comes before those that allow allowed, and
// the tiers behind allow after.
func (a action) apply(allowed, after, matched ports) ports {
	switch model.PolicyAction(a) {
	case model.PolicyAccept:
		return allowed.union(matched)
	case model.PolicyPass:
		return allowed.minus(matched).union(after.intersect(matched))
	case model.PolicyDeny:
	}
	return allowed.minus(matched)
}

// match returns the ports by which a rule surely matches an identity, and those by which
// it may.
func (d *decision) match(r tierRule, i *identity) (surely, maybe ports) {
	is, stranger := i.peers.has(r.peer), d.isStranger(i)
	if !is && (!stranger || !d.peers[r.peer].selects()) {
		return ports{}, ports{}
	}
	surely = i.portsOf(r.ports)
	maybe = surely
	if r.vague || stranger && len(r.ports.names) > 0 {
		// Nobody knows what ports have these names.
		maybe = allPorts()
	}
	if !is || r.maybe {
		surely = ports{}
	}
	return surely, maybe
}

// portsOf resolves names of ports that are those of the other end.
func (i *identity) portsOf(s portSpec) ports {
	out := s.fixed
	for _, n := range s.names {
		if number, ok := i.numbers[n]; ok {
			var one ports
			one.of[n.protocol] = []portRange{{number, number}}
			out = out.union(one)
		}
	}
	return out
}
