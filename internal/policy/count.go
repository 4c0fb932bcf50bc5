package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// MostCounted is how many policies a node counts for at most: each costs every packet
// that the node forwards a lookup for each direction.
const MostCounted = 32

// Of one policy mostCountedRules are counted, and the sets of all hold
// mostCountedElements addresses, give or take: more would make changes of the table slow
// for everybody on the node.
const (
	mostCountedRules    = 64
	mostCountedElements = 20_000
)

// CountedRule is a rule of a policy whose packets the kernel counts.
type CountedRule struct {
	// Counter is the name of its counter.
	Counter string
	// Namespace is that of a NetworkPolicy, and empty for a ClusterNetworkPolicy.
	Namespace string
	Policy    string
	// Rule is where it stands in the object, such as ingress[0].
	Rule string
}

// countedPolicy are the rules of one direction of a policy that is to be counted.
type countedPolicy struct {
	// id tells the policy and the direction from others.
	id string
	direction
	// pods are those that the policy surely selects.
	pods  []*localPod
	rules []countedRule
	// ofNode says that it is also about what pods have with their own node.
	ofNode bool
}

type countedRule struct {
	CountedRule
	peers *peers
	ports portSpec
}

// counted returns what is to be counted, and the names of policies that are too many or
// too much. Those of the cluster come first, and then one of each namespace in turn, so
// that nobody takes all there is.
func (b *build) counted() (counted []countedPolicy, left []string) {
	taken, elements := 0, 0
	take := func(name string, directions []countedPolicy) {
		directions = slices.DeleteFunc(directions, func(p countedPolicy) bool { return len(p.pods) == 0 || len(p.rules) == 0 })
		rules, more := 0, 0
		for i := range directions {
			rules += len(directions[i].rules)
		}
		if rules <= mostCountedRules && taken < MostCounted {
			more = b.countedElements(directions)
		}
		switch {
		case len(directions) == 0:
		case taken == MostCounted, rules > mostCountedRules, elements+more > mostCountedElements:
			left = append(left, name)
		default:
			taken++
			elements += more
			counted = append(counted, directions...)
		}
	}
	for _, policies := range b.tiers {
		for i := range policies {
			if p := &policies[i]; p.Count {
				take("ClusterNetworkPolicy "+p.Name, b.countedTier(p))
			}
		}
	}
	inTurn := map[int][]*model.NetworkPolicy{}
	for _, namespace := range slices.Sorted(maps.Keys(b.policies)) {
		turn := 0
		for i := range b.policies[namespace] {
			if p := &b.policies[namespace][i]; p.Count {
				inTurn[turn] = append(inTurn[turn], p)
				turn++
			}
		}
	}
	for _, turn := range slices.Sorted(maps.Keys(inTurn)) {
		for _, p := range inTurn[turn] {
			take("NetworkPolicy "+p.Namespace+"/"+p.Name, b.countedPolicies(p))
		}
	}
	return counted, left
}

// countedElements returns how many addresses the sets of policies hold at most.
func (b *build) countedElements(policies []countedPolicy) int {
	n := 0
	for i := range policies {
		p := &policies[i]
		n += len(p.pods)
		for _, r := range p.rules {
			r.peers.members(b.Index, func(g *podGroup) { n += len(g.pods) })
			if len(r.ports.names) > 0 {
				n += len(b.pods)
			}
			if r.peers.blocks != nil {
				n += len(r.peers.blocks.Ranges())
			}
		}
	}
	return n
}

// countedPolicies returns both directions of a NetworkPolicy.
func (b *build) countedPolicies(p *model.NetworkPolicy) []countedPolicy {
	var out []countedPolicy
	for _, d := range directions {
		if !isolates(p, d) {
			continue
		}
		c := countedPolicy{id: "rule/" + p.Namespace + "/" + p.Name, direction: d}
		for _, l := range b.local {
			if l.Namespace == p.Namespace && l.object != nil && p.Pods.Matches(l.object.Labels) {
				c.pods = append(c.pods, l)
			}
		}
		for i, r := range rulesOf(p, d) {
			c.add(p.Namespace, p.Name, fmt.Sprintf("%s[%d]", words[d].chain, i), parsePeers(p.Namespace, peersOf(&r)), parsePorts(r.Ports))
		}
		out = append(out, c)
	}
	return out
}

// countedTier returns both directions of a policy of the cluster.
func (b *build) countedTier(p *model.ClusterPolicy) []countedPolicy {
	var out []countedPolicy
	for _, d := range directions {
		c := countedPolicy{id: "clusterrule/" + p.Name, direction: d, ofNode: d == egress}
		for _, l := range b.local {
			if is, sure := b.isSubject(p, l.Namespace, l.object); is && sure {
				c.pods = append(c.pods, l)
			}
		}
		for _, r := range tierRulesOf(p, d) {
			c.add("", p.Name, r.Field, parsePeers("", r.Peers), parsePorts(r.Ports))
		}
		out = append(out, c)
	}
	return out
}

// nameBytes is how long a name of podnet's in nftables is at most. The kernel takes 255
// bytes (NFT_NAME_MAXLEN).
const nameBytes = 200

func (c *countedPolicy) add(namespace, policy, field string, who *peers, spec portSpec) {
	// What people read in a listing; nft takes no brackets.
	name := c.id + "/" + strings.NewReplacer("[", "-", "]", "").Replace(field)
	if len(name) > nameBytes {
		name = nameOf("rule", name)
	}
	c.rules = append(c.rules, countedRule{
		CountedRule: CountedRule{Counter: name, Namespace: namespace, Policy: policy, Rule: field}, peers: who, ports: spec,
	})
}
