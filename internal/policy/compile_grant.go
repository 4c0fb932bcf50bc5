package policy

import (
	"github.com/podnet/podnet/internal/model"
)

// grant returns the ports that a class and an identity have in common: what the tiers
// of the cluster's policies and the NetworkPolicies between them allow.
func (d *decision) grant(c *class, i *identity) ports {
	if known, ok := c.granted[i]; ok {
		return known
	}
	allowed := askAll(c.isolated, i.host,
		func(t model.Tier, next ports) ports {
			return askTier(c.tiers[t], next,
				func(r tierRule) (surely, maybe ports) { return d.match(r, i) },
				func(r tierRule, allowed, matched ports) ports { return allowed.after(r.action, matched, next) })
		},
		func() ports { return d.allowedBy(c.rules, i) },
		allPorts())
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

// after returns what is allowed where a rule that matches matched comes before those that
// allow p, and the tiers behind allow next.
func (p ports) after(action model.PolicyAction, matched, next ports) ports {
	switch action {
	case model.PolicyAccept:
		return p.union(matched)
	case model.PolicyPass:
		return p.minus(matched).union(next.both(matched))
	case model.PolicyDeny:
	}
	return p.minus(matched)
}

// match returns the ports by which a rule surely matches an identity, and those by which
// it may.
func (d *decision) match(r tierRule, i *identity) (surely, maybe ports) {
	stranger := d.isStranger(i)
	return matches(certainty{
		policy: !r.maybe, peer: i.peers.has(r.peer), maybePeer: stranger && d.peers[r.peer].selects(),
		vaguePorts: r.vague || stranger && len(r.ports.names) > 0,
	}, i.portsOf(r.ports), allPorts())
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
