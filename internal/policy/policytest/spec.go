// Package policytest says for tests what network policy is: Allowed is a plain
// reading of the specification, Verdict runs the rules of a table as the kernel
// does, and Random makes clusters to compare the two on. Nothing here is meant to be
// fast, and nothing is shared with internal/policy but the values.
package policytest

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// World is a cluster as one of its nodes sees it.
type World struct {
	Objects model.PolicyObjects
	Blocks  []model.Block
	// Attached are the pods that hang on this node.
	Attached []model.Pod

	// holders are, in a reading of the world, the owners of addresses that more than one
	// says it has; see readings.
	holders map[netip.Addr]owner
}

// owner is the pod or the node that has an address; neither is nobody.
type owner struct {
	pod  *model.ClusterPod
	node string
}

// Connection is from a client to a port of a server. What Services made of the
// server is done: it is the pod that they led to.
type Connection struct {
	Client, Server netip.Addr
	// Protocol is tcp, udp, sctp or icmp; the latter has no port.
	Protocol string
	Port     uint16
	// ToHost says that the server is the client's own node.
	ToHost bool
}

// Allowed reports whether the policies of this node's pods allow a connection that is
// forwarded by this node, or ends at it.
func (w World) Allowed(c Connection) bool {
	if c.Client == c.Server {
		// "A Pod cannot block access to itself."
		return true
	}
	for _, reading := range w.readings(c) {
		if !reading.allowed(c) {
			return false
		}
	}
	return true
}

// readings are the worlds that this one may be, as far as a connection is concerned: one for
// each choice between those who say that they have the addresses of its ends.
func (w World) readings(c Connection) []World {
	var out []World
	for _, client := range w.owners(c.Client) {
		for _, server := range w.owners(c.Server) {
			w.holders = map[netip.Addr]owner{c.Client: client, c.Server: server}
			out = append(out, w)
		}
	}
	return out
}

// allowed says what Allowed does, where it is known whose the ends' addresses are.
func (w World) allowed(c Connection) bool {
	for _, pod := range w.Attached {
		if slices.Contains(pod.Addrs, c.Client) && !w.allowedBy(pod, c, model.PolicyEgress) {
			return false
		}
		if slices.Contains(pod.Addrs, c.Server) && !w.allowedBy(pod, c, model.PolicyIngress) {
			return false
		}
	}
	return true
}

// allowedBy reports whether the policies of one end allow a connection: "Admin tier,
// NetworkPolicy tier, Baseline tier", and who is not selected by any is free.
func (w World) allowedBy(pod model.Pod, c Connection, direction model.PolicyType) bool {
	baseline := func() bool {
		return w.tierAllows(w.tierRules(model.BaselineTier, pod, direction), pod, c, direction, func() bool { return true })
	}
	namespaced := func() bool {
		isolated, allowed := w.networkPoliciesAllow(pod, c, direction)
		if isolated {
			return allowed || c.ToHost
		}
		return baseline()
	}
	return w.tierAllows(w.tierRules(model.AdminTier, pod, direction), pod, c, direction, namespaced)
}

// networkPoliciesAllow reports whether NetworkPolicies select a pod, and allow a connection
// then. They are additive: one that allows it is enough.
func (w World) networkPoliciesAllow(pod model.Pod, c Connection, direction model.PolicyType) (isolated, allowed bool) {
	self, known := w.object(pod)
	for _, p := range w.Objects.NetworkPolicies {
		if p.Namespace != pod.Namespace || !appliesTo(p, direction) {
			continue
		}
		if !known {
			// It may select the pod.
			isolated = true
			continue
		}
		if !selects(p.Pods, self.Labels) {
			continue
		}
		isolated = true
		rules, other := p.Ingress, c.Client
		if direction == model.PolicyEgress {
			rules, other = p.Egress, c.Server
		}
		for _, r := range rules {
			if w.anyPeer(p.Namespace, r.Peers, other) && w.anyPort(r.Ports, c) {
				return true, true
			}
		}
	}
	return isolated, false
}

// appliesTo reports whether a policy is about a direction, as its types say, or else: "it
// will default based on the existence of ingress or egress rules; policies that contain
// an egress section are assumed to affect egress, and all policies (whether or not they
// contain an ingress section) are assumed to affect ingress".
func appliesTo(p model.NetworkPolicy, direction model.PolicyType) bool {
	if len(p.Types) > 0 {
		return slices.Contains(p.Types, direction)
	}
	return direction == model.PolicyIngress || len(p.Egress) > 0
}

// object returns the object of an attached pod.
func (w World) object(pod model.Pod) (model.ClusterPod, bool) {
	for _, o := range w.Objects.Pods {
		if !o.HostNetwork && o.Namespace == pod.Namespace && o.Name == pod.Name && o.UID == pod.UID {
			return o, true
		}
	}
	return model.ClusterPod{}, false
}

// owners returns those of whom one has an address, and nobody where nobody says so. A
// node has the base addresses of its blocks and, outside the addresses of pods, what it says. A
// pod has addresses of its node's blocks, and loses them while it is being deleted to one
// that is not. Attached pods have the addresses that they were attached with, and no others.
func (w World) owners(a netip.Addr) []owner {
	for _, pod := range w.Attached {
		if slices.Contains(pod.Addrs, a) {
			if o, known := w.object(pod); known {
				return []owner{{pod: &o}}
			}
			return []owner{{}}
		}
	}
	if nodes := w.nodesAt(a); len(nodes) > 0 {
		return nodes
	}
	var staying, leaving []owner
	for i := range w.Objects.Pods {
		o := &w.Objects.Pods[i]
		if o.HostNetwork || !slices.Contains(o.Addrs, a) || w.isAttached(*o) || !w.belongs(*o, a) {
			continue
		}
		if o.Terminating {
			leaving = append(leaving, owner{pod: o})
		} else {
			staying = append(staying, owner{pod: o})
		}
	}
	switch {
	case len(staying) > 0:
		return staying
	case len(leaving) > 0:
		return leaving
	}
	return []owner{{}}
}

// nodesAt returns the nodes that may have an address.
func (w World) nodesAt(a netip.Addr) []owner {
	var nodes []owner
	add := func(node string) {
		if !slices.Contains(nodes, owner{node: node}) {
			nodes = append(nodes, owner{node: node})
		}
	}
	for _, b := range w.Blocks {
		if w.isServed(b) && ipam.NodeAddress(b.CIDR) == a {
			add(b.Node)
		}
	}
	if w.mayBePod(a) {
		return nodes
	}
	// Blocks of nodes that have gone count where there are no others.
	for _, gone := range []bool{false, true} {
		for _, b := range w.Blocks {
			if len(nodes) > 0 && gone {
				return nodes
			}
			if (b.State == model.BlockReleased) == gone && (slices.Contains(b.Endpoints, a) || slices.Contains(b.Addresses, a)) {
				add(b.Node)
			}
		}
	}
	return nodes
}

// belongs reports whether an address is one that a pod of a node can have.
func (w World) belongs(o model.ClusterPod, a netip.Addr) bool {
	return slices.ContainsFunc(w.Blocks, func(b model.Block) bool {
		return b.Node == o.Node && b.CIDR.Contains(a) && w.isServed(b) && !ipam.Reserved(b.CIDR, a)
	})
}

// isServed reports whether a block is the oldest of those that it overlaps.
func (w World) isServed(b model.Block) bool {
	return !slices.ContainsFunc(w.Blocks, func(o model.Block) bool {
		older := o.Created.Before(b.Created) || o.Created.Equal(b.Created) && o.Name < b.Name
		return o.CIDR.Overlaps(b.CIDR) && older
	})
}

// podAt returns the pod that has an address, if it is known.
func (w World) podAt(a netip.Addr) (model.ClusterPod, bool) {
	if pod := w.holders[a].pod; pod != nil {
		return *pod, true
	}
	return model.ClusterPod{}, false
}

// isAttached reports whether an object is that of an attached pod, whose addresses are
// those that it was attached with.
func (w World) isAttached(o model.ClusterPod) bool {
	return slices.ContainsFunc(w.Attached, func(p model.Pod) bool {
		return p.Namespace == o.Namespace && p.Name == o.Name && p.UID == o.UID
	})
}

// isNode reports whether an address is a node's.
func (w World) isNode(a netip.Addr) bool { return w.holders[a].node != "" }

// asBlocksSee returns the address that blocks of addresses go by: of a node's own
// address in the pod range that is the node's.
func (w World) asBlocksSee(a netip.Addr) netip.Addr {
	for _, b := range w.Blocks {
		if w.isServed(b) && ipam.NodeAddress(b.CIDR) == a {
			for _, e := range b.Endpoints {
				if e.Is4() == a.Is4() && !w.mayBePod(e) {
					return e
				}
			}
		}
	}
	return a
}

// anyPeer reports whether an address is one of the peers, which are all "if this field is
// empty or missing".
func (w World) anyPeer(namespace string, peers []model.PolicyPeer, a netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	for _, p := range peers {
		if p.Block != nil {
			if inBlock(*p.Block, w.asBlocksSee(a)) {
				return true
			}
			continue
		}
		if p.Pods == nil && p.Namespaces == nil {
			continue
		}
		pod, ok := w.podAt(a)
		if !ok {
			continue
		}
		if p.Namespaces == nil && pod.Namespace != namespace {
			continue
		}
		if p.Namespaces != nil && w.inNamespace(*p.Namespaces, pod.Namespace) != yes {
			continue
		}
		if p.Pods == nil || selects(*p.Pods, pod.Labels) {
			return true
		}
	}
	return false
}

// inBlock reports whether an address is in a block, as Go's net package reads it.
func inBlock(b model.IPBlock, a netip.Addr) bool {
	in := func(p netip.Prefix) bool {
		_, block, err := net.ParseCIDR(p.String())
		return err == nil && block.Contains(a.AsSlice())
	}
	return in(b.CIDR) && !slices.ContainsFunc(b.Except, in)
}

// anyPort reports whether a connection is to one of the ports, which are all "if this field
// is empty or missing".
func (w World) anyPort(ports []model.PolicyPort, c Connection) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		protocol := strings.ToLower(p.Protocol)
		if protocol == "" {
			protocol = "tcp"
		}
		if protocol != c.Protocol || protocol == "icmp" {
			continue
		}
		switch {
		case p.Name != "":
			server, ok := w.podAt(c.Server)
			if number, has := numberOf(server, p.Name, protocol); ok && has && number == c.Port {
				return true
			}
		case p.Port == nil:
			return true
		case p.EndPort == nil:
			if *p.Port == int32(c.Port) && c.Port > 0 {
				return true
			}
		default:
			// A range that begins before the first port, or ends behind the last, is none.
			if *p.Port > 0 && *p.EndPort < 65536 && *p.Port <= int32(c.Port) && int32(c.Port) <= *p.EndPort {
				return true
			}
		}
	}
	return false
}

// numberOf returns the number of a pod's first port of a name and protocol.
func numberOf(pod model.ClusterPod, name, protocol string) (uint16, bool) {
	for _, p := range pod.Ports {
		if p.Name == name && (strings.ToLower(p.Protocol) == protocol || p.Protocol == "" && protocol == "tcp") {
			return p.Port, true
		}
	}
	return 0, false
}

// selects reports whether labels fulfil a selector.
func selects(s model.Selector, labels map[string]string) bool {
	for _, r := range s {
		value, has := labels[r.Key]
		is := has && slices.Contains(r.Values, value)
		if r.Operator == model.In && !is || r.Operator == model.NotIn && is ||
			r.Operator == model.Exists && !has || r.Operator == model.DoesNotExist && has {
			return false
		}
	}
	return true
}
