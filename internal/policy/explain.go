package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// Denial is why a packet was denied.
type Denial struct {
	// Pod is the attached pod whose policies deny it, and Direction theirs.
	Pod       model.Pod
	Direction model.PolicyType
	// Peer is the pod at the other end; nil where it is none, or unknown.
	Peer *model.ClusterPod
	// Port is the protocol of the connection and, where it has one, the server's port, such as
	// TCP-80.
	Port string
	// Connection and Reason say what was denied and why, in words.
	Connection, Reason string
}

// String is a sentence for each.
func (d Denial) String() string {
	return fmt.Sprintf("%s of pod %s/%s denied: %s. %s.", d.Direction, d.Pod.Namespace, d.Pod.Name, d.Connection, d.Reason)
}

// Explain says which policies deny a packet that the kernel of a node has denied, with
// these pods attached. It returns false where neither end is one of them any more.
func (x *Index) Explain(attached []model.Pod, p model.DeniedPacket) (Denial, bool) {
	client, server, _ := p.Connection()
	var out Denial
	found := false
	// Where more than one pod or node may have an address, what is denied to any is denied.
	for _, c := range x.ends(attached, client) {
		for _, s := range x.ends(attached, server) {
			denial, allowed, ok := x.explain(p, [len(directions)]end{egress: c, ingress: s})
			switch {
			case !ok:
			case !allowed:
				return denial, true
			case !found:
				out, found = denial, true
			}
		}
	}
	return out, found
}

// explain says which policies deny a packet between two ends, and whether none does; ok is
// false where neither end is attached.
func (x *Index) explain(p model.DeniedPacket, ends [len(directions)]end) (out Denial, allowed, ok bool) {
	_, _, port := p.Connection()
	q := question{Index: x, protocol: p.Protocol, port: port, server: ends[ingress], toNode: p.ToNode, stray: p.Way == model.WayStray}
	if out.Port = protocolName(p.Protocol); port > 0 {
		out.Port += fmt.Sprintf("-%d", port)
	}
	out.Connection = fmt.Sprintf("%s from %s to %s%s", protocolName(p.Protocol), ends[egress], portOf(port), ends[ingress])
	// As the kernel does, the client's policies are asked first.
	for _, d := range []direction{egress, ingress} {
		pod, other := ends[d], ends[ingress+egress-d]
		if pod.attached == nil {
			continue
		}
		is := q.ask(d, pod, other)
		if ok && is.allowed {
			continue
		}
		ok, allowed = true, is.allowed
		out.Pod, out.Direction, out.Peer, out.Reason = *pod.attached, directionNames[d], nil, is.reason
		if other.object != nil {
			out.Peer = other.object.ClusterPod
		}
		if !is.allowed {
			break
		}
	}
	return out, allowed, ok
}

// directionNames are those of the API.
var directionNames = [len(directions)]model.PolicyType{ingress: model.PolicyIngress, egress: model.PolicyEgress}

// end is one end of a connection.
type end struct {
	netip.Addr
	// attached is the pod of this node that it is; nil for none.
	attached *model.Pod
	// object is that of the pod that it is; nil where it is none, or unknown.
	object *indexedPod
	// node is what the address of a node goes by, and isNode says that it is one.
	node   nodeAddress
	isNode bool
	// stranger says that it may be a pod that is still unknown.
	stranger bool
}

// ends finds out whose an address is: of several of whom nobody knows which it is, all.
func (x *Index) ends(attached []model.Pod, a netip.Addr) []end {
	var ends []end
	if i := slices.IndexFunc(attached, func(p model.Pod) bool { return slices.Contains(p.Addrs, a) }); i >= 0 {
		ends = []end{{attached: &attached[i], object: x.lookup(attached[i])}}
	} else if nodes := x.nodes[a]; len(nodes) > 0 {
		for _, n := range nodes {
			ends = append(ends, end{node: n, isNode: true})
		}
	} else {
		for _, p := range x.remote(attached, a) {
			ends = append(ends, end{object: p})
		}
	}
	if len(ends) == 0 {
		ends = []end{{}}
	}
	for i := range ends {
		e := &ends[i]
		e.Addr = a
		known := e.isNode
		if e.object != nil {
			_, known = x.namespaces[e.object.Namespace]
		}
		e.stranger = !known && x.ranges.Contains(a)
	}
	return ends
}

// remote returns the pods that may have an address and are not attached. It looks at all
// pods, which is no index's worth: a few packets a second are explained.
func (x *Index) remote(attached []model.Pod, a netip.Addr) []*indexedPod {
	isAttached := func(p *indexedPod) bool {
		return slices.ContainsFunc(attached, func(l model.Pod) bool { return x.lookup(l) == p })
	}
	if pods := x.contested[a]; len(pods) > 0 {
		return claimants(pods, isAttached)
	}
	for _, p := range x.pods {
		if slices.ContainsFunc(p.addrs, func(k addrKey) bool { return k.Addr == a }) && !isAttached(p) {
			return []*indexedPod{p}
		}
	}
	return nil
}

// String names the end for people.
func (e end) String() string {
	switch {
	case e.attached != nil:
		return fmt.Sprintf("pod %s/%s (%s)", e.attached.Namespace, e.attached.Name, e.Addr)
	case e.object != nil:
		return fmt.Sprintf("pod %s/%s (%s)", e.object.Namespace, e.object.Name, e.Addr)
	case e.isNode:
		return fmt.Sprintf("node %s (%s)", e.node.name, e.Addr)
	}
	return e.Addr.String()
}

// question is whether policies allow a connection.
type question struct {
	*Index
	protocol      string
	port          uint16
	server        end
	toNode, stray bool
}

// answer is whether they do, and else why not.
type answer struct {
	allowed bool
	reason  string
}

// permitted is the answer where no policy denies the connection, which is asked for as the
// kernel has denied it.
var permitted = answer{allowed: true, reason: "The policies of the moment allow it: they, or the pods, have changed since"}

// protocolName names a protocol for people.
func protocolName(protocol string) string {
	switch {
	case strings.Trim(protocol, "0123456789") == "":
		return "IP protocol " + protocol
	case protocol == "ipv6-icmp":
		return "ICMPv6"
	}
	return strings.ToUpper(protocol)
}

func portOf(port uint16) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprintf("port %d of ", port)
}

// ask asks the policies of one end: the admins', those of its namespace, and the baseline.
func (q question) ask(d direction, pod, other end) answer {
	policies, isolated := q.selecting(d, pod.attached.Namespace, pod.object)
	if q.stray {
		if isolated || q.asksTiers(d, pod) {
			return answer{reason: "It belongs to no connection that the kernel knows, so that nobody can tell whether policies allow it"}
		}
		return permitted
	}
	return askAll(isolated, q.toNode,
		func(t model.Tier, next answer) answer {
			return askTier(q.asked(t, d, pod.attached.Namespace, pod.object), next,
				func(r askedRule) (surely, maybe bool) { return q.match(r, d, pod, other) },
				func(r askedRule, is answer, matched bool) answer { return is.after(r, matched, next) })
		},
		func() answer { return q.networkPolicies(d, pod, other, policies) },
		permitted)
}

// asksTiers reports whether policies of the cluster are about a pod.
func (q question) asksTiers(d direction, pod end) bool {
	return len(q.asked(model.AdminTier, d, pod.attached.Namespace, pod.object)) > 0 ||
		len(q.asked(model.BaselineTier, d, pod.attached.Namespace, pod.object)) > 0
}

// networkPolicies asks the NetworkPolicies that select a pod: one rule that allows the
// connection is enough.
func (q question) networkPolicies(d direction, pod, other end, policies []*model.NetworkPolicy) answer {
	if pod.object == nil {
		return answer{reason: "The labels of the pod are unknown, so that every NetworkPolicy of its namespace isolates it"}
	}
	var names []string
	for _, p := range policies {
		names = append(names, p.Name)
		for _, r := range rulesOf(p, d) {
			if q.isOneOf(parsePeers(p.Namespace, peersOf(&r)), other) && q.hasPort(parsePorts(r.Ports)) {
				return permitted
			}
		}
	}
	return answer{reason: fmt.Sprintf("No rule of the NetworkPolicies that select the pod (%s) allows it", some(names))}
}

// namedPolicies is how many policies a sentence names.
const namedPolicies = 3

// some names the first of many.
func some(names []string) string {
	text := strings.Join(names[:min(len(names), namedPolicies)], ", ")
	if more := len(names) - namedPolicies; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// after returns the answer where a rule comes before those that answer a, and the tiers
// behind answer next.
func (a answer) after(r askedRule, matched bool, next answer) answer {
	switch {
	case !matched:
		return a
	case r.Action == model.PolicyAccept:
		return permitted
	case r.Action == model.PolicyPass:
		return next
	}
	return answer{reason: fmt.Sprintf("Rule %s of ClusterNetworkPolicy %s denies it", r.Field, r.policy)}
}

// both returns the first of two answers that denies. The second is the answer where a rule
// matches of which that is not sure.
func (a answer) both(b answer) answer {
	if !a.allowed || b.allowed {
		return a
	}
	b.reason += ", as far as is known yet of the pods"
	return b
}

// match reports whether a rule surely matches, and whether it may.
func (q question) match(r askedRule, d direction, pod, other end) (surely, maybe bool) {
	who, spec := parsePeers("", r.Peers), parsePorts(r.Ports)
	unknown := d == ingress && pod.object == nil || d == egress && other.stranger
	return matches(certainty{
		policy: r.sure, peer: q.isOneOf(who, other), maybePeer: other.stranger && who.selects(),
		vaguePorts: unknown && len(spec.names) > 0,
	}, q.hasPort(spec), true)
}

// isOneOf reports whether an end is one of a rule's peers.
func (q question) isOneOf(who *peers, other end) bool {
	address := other.Addr
	if other.isNode {
		address = other.node.seenAs
	}
	if who.blocks != nil && who.blocks.Contains(address) {
		return true
	}
	if other.isNode && who.selectsNode(other.node) {
		return true
	}
	return other.object != nil && slices.ContainsFunc(who.selectors, func(s podSelector) bool {
		return s.selects(q.Index, other.object.Namespace) && s.pods.Matches(other.object.Labels)
	})
}

// hasPort reports whether the connection is to one of a rule's ports.
func (q question) hasPort(spec portSpec) bool {
	var named []model.NamedPort
	if q.server.object != nil {
		named = q.server.object.Ports
	}
	return spec.resolve(named).has(q.protocol, q.port)
}

// has reports whether a set holds a port of a protocol.
func (p ports) has(protocol string, port uint16) bool {
	i, ok := protocolIndex(cmp.Or(protocol, "none"))
	if !ok {
		return p.others
	}
	return slices.ContainsFunc(p.of[i], func(r portRange) bool { return r.first <= port && port <= r.last })
}
