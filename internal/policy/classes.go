package policy

import (
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
	key   string
	rules []rule
	// granted are the ports of each identity; see decision.grant.
	granted map[*identity]ports
}

// rule allows some ports between a pod and its peers.
type rule struct {
	// peer is the index of the rule's peers among those of the direction.
	peer  int
	ports portSpec
}

// classify finds, for each attached pod, what the policies allow it, and returns
// the peers that rules name.
func (b *build) classify(d direction) []*peers {
	c := classifier{direction: d, peerIndex: map[string]int{}, classes: map[string]*class{}, parsed: map[*model.PolicyRule]parsedRule{}}
	for _, l := range b.local {
		b.place(l, &c)
	}
	return c.peers
}

type classifier struct {
	direction direction
	peers     []*peers
	peerIndex map[string]int
	classes   map[string]*class
	// parsed are the rules that were read already: one may apply to many pods.
	parsed map[*model.PolicyRule]parsedRule
}

type parsedRule struct {
	peer  int
	ports portSpec
	key   string
}

// place finds the policies that select a pod, and with them its class.
func (b *build) place(l *localPod, c *classifier) {
	var keys []string
	rules := map[string]rule{}
	for i := range b.policies[l.Namespace] {
		p := &b.policies[l.Namespace][i]
		if !isolates(p, c.direction) {
			continue
		}
		if l.object == nil {
			// Nobody knows whether the policy selects the pod, so that none of its
			// rules may let anything through.
			l.isolated[c.direction], l.unknown = true, true
			continue
		}
		if !p.Pods.Matches(l.object.Labels) {
			continue
		}
		l.isolated[c.direction] = true
		list := rulesOf(p, c.direction)
		for j := range list {
			parsed := c.parse(p.Namespace, &list[j])
			key := parsed.key
			r := rule{parsed.peer, parsed.ports}
			if c.direction == ingress && len(r.ports.names) > 0 {
				// The names are those of the pod itself.
				r.ports = portSpec{fixed: r.ports.resolve(l.object.Ports)}
				key = c.peers[r.peer].key + "\n" + r.ports.key()
			}
			if _, has := rules[key]; !has {
				rules[key] = r
				keys = append(keys, key)
			}
		}
	}
	if !l.isolated[c.direction] {
		return
	}
	slices.Sort(keys)
	key := strings.Join(keys, "\n\n")
	if c.classes[key] == nil {
		made := &class{key: key, granted: map[*identity]ports{}}
		for _, k := range keys {
			made.rules = append(made.rules, rules[k])
		}
		c.classes[key] = made
	}
	l.classes[c.direction] = c.classes[key]
}

// parse reads a rule.
func (c *classifier) parse(namespace string, r *model.PolicyRule) parsedRule {
	if p, ok := c.parsed[r]; ok {
		return p
	}
	who := parsePeers(namespace, r.Peers)
	i, ok := c.peerIndex[who.key]
	if !ok {
		i = len(c.peers)
		c.peers = append(c.peers, who)
		c.peerIndex[who.key] = i
	}
	p := parsedRule{peer: i, ports: parsePorts(r.Ports)}
	p.key = who.key + "\n" + p.ports.key()
	c.parsed[r] = p
	return p
}

// isolates says whether a policy is about a direction.
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
