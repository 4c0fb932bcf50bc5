package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// direction is that of connections, as the isolated pod sees them.
type direction int

// The directions.
const (
	ingress direction = iota
	egress
)

var directions = [...]direction{ingress, egress}

// class is what is allowed in one direction to pods with which the policies do the
// same.
type class struct {
	// isolated says that a NetworkPolicy selects the pods: what none of rules allows is
	// forbidden.
	isolated bool
	rules    []rule
	// tiers are the rules of the cluster's policies, in the order in which they are asked.
	tiers [tierCount][]tierRule
	// granted are the ports of each identity; see decision.grant.
	granted map[*identity]ports
}

// rule is about some ports between a pod and its peers.
type rule struct {
	// peer is the index of the rule's peers among those of the direction.
	peer  int
	ports portSpec
	key   string
}

// tierRule is one of a cluster's policy.
type tierRule struct {
	rule
	action model.PolicyAction
	// maybe says that it is unknown whether the policy selects the pod, and vague that
	// it is unknown which ports of the pod have the names that the rule uses.
	maybe, vague bool
}

// classify finds, for each attached pod, what the policies allow it.
func (b *build) classify(d *decision) {
	c := classifier{decision: d, peerIndex: map[string]int{}, classes: map[string]*class{}, parsed: map[any]rule{}}
	for _, l := range b.local {
		b.place(l, &c)
	}
}

type classifier struct {
	*decision
	peerIndex map[string]int
	classes   map[string]*class
	// parsed are the rules that were read already: one may apply to many pods.
	parsed map[any]rule
}

// place finds the policies that select a pod, and with them its class.
func (b *build) place(l *localPod, c *classifier) {
	made := &class{granted: map[*identity]ports{}}
	key, concerned := b.placePolicies(l, c, made)
	for t := range b.tiers {
		tierKey, has := b.placeTier(t, l, c, made)
		key += tierKey
		concerned = concerned || has
	}
	if !concerned {
		return
	}
	if c.classes[key] == nil {
		c.classes[key] = made
		c.decision.classes = append(c.decision.classes, made)
	}
	l.classes[c.direction] = c.classes[key]
}

// placePolicies finds what NetworkPolicies allow a pod. It returns a key that tells it
// from other things allowed, and whether any policy selects the pod.
func (b *build) placePolicies(l *localPod, c *classifier, made *class) (key string, selected bool) {
	var keys []string
	seen := map[string]bool{}
	policies, isolated := b.selecting(c.direction, l.Namespace, l.object)
	made.isolated = isolated
	l.unknown = l.unknown || isolated && l.object == nil
	for _, p := range policies {
		list := rulesOf(p, c.direction)
		for j := range list {
			r := c.ofPod(l.object, c.parse(&list[j], p.Namespace, peersOf(&list[j]), list[j].Ports))
			if !seen[r.key] {
				seen[r.key] = true
				keys = append(keys, r.key)
				made.rules = append(made.rules, r)
			}
		}
	}
	slices.Sort(keys)
	slices.SortFunc(made.rules, func(a, b rule) int { return strings.Compare(a.key, b.key) })
	return fmt.Sprintf("isolated %t\n\n%s", made.isolated, strings.Join(keys, "\n\n")), made.isolated
}

// placeTier finds what the cluster's policies of a tier say of a pod, as placePolicies
// does.
func (b *build) placeTier(tier int, l *localPod, c *classifier, made *class) (key string, selected bool) {
	key = fmt.Sprintf("\n\ntier %d", tier)
	for _, is := range b.asked(model.Tier(tier), c.direction, l.Namespace, l.object) {
		read := c.parse(is.TierRule, "", is.Peers, is.Ports)
		r := tierRule{
			rule: c.ofPod(l.object, read), action: is.Action, maybe: !is.sure,
			vague: c.direction == ingress && l.object == nil && len(read.ports.names) > 0,
		}
		l.unknown = l.unknown || r.maybe || r.vague
		key += fmt.Sprintf("\n\n%s %t %t %s", r.action, r.maybe, r.vague, r.key)
		made.tiers[tier] = append(made.tiers[tier], r)
		selected = true
	}
	return key, selected
}

// parse reads a rule, which the pointer stands for.
func (c *classifier) parse(id any, namespace string, list []model.PolicyPeer, ports []model.PolicyPort) rule {
	if r, ok := c.parsed[id]; ok {
		return r
	}
	who := parsePeers(namespace, list)
	r := rule{peer: c.indexOf(who), ports: parsePorts(ports)}
	r.key = who.key + "\n" + r.ports.key()
	c.parsed[id] = r
	return r
}

// indexOf returns the index of peers among those of the direction.
func (c *classifier) indexOf(who *peers) int {
	i, ok := c.peerIndex[who.key]
	if !ok {
		i = len(c.peers)
		c.peers = append(c.peers, who)
		c.peerIndex[who.key] = i
	}
	return i
}

// ofPod resolves names of ports where they are those of the pod that is selected, whose
// object is nil where it is unknown.
func (c *classifier) ofPod(object *indexedPod, r rule) rule {
	if c.direction == egress || len(r.ports.names) == 0 {
		return r
	}
	fixed := r.ports.fixed
	if object != nil {
		fixed = r.ports.resolve(object.Ports)
	}
	r.ports = portSpec{fixed: fixed}
	r.key = c.peers[r.peer].key + "\n" + fixed.key()
	return r
}
