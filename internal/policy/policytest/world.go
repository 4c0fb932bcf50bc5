package policytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// Namespaces are the names of those that random policies are in.
var Namespaces = []string{"red", "green", "blue"}

// Small alphabets: what is made at random is to meet often.
var (
	labelKeys   = []string{"app", "tier", "zone"}
	labelValues = []string{"a", "b", "c"}
	portNames   = []string{"web", "dns", "metrics"}
	protocolsOf = []string{"TCP", "UDP", "SCTP", ""}
	numbers     = []int32{1, 53, 79, 80, 81, 443, 8080, 65535}
)

// Random makes a world and holds what it draws from.
type Random struct {
	*rand.Rand
	World
	addrs []netip.Addr
}

// NewRandom makes the world of a seed: the same for the same seed.
func NewRandom(seed uint64) *Random {
	r := &Random{Rand: rand.New(rand.NewPCG(7466, seed))}
	r.makeBlocks()
	for _, n := range Namespaces {
		// A pod's namespace may not be known yet.
		if r.IntN(10) > 0 {
			r.Objects.Namespaces = append(r.Objects.Namespaces, model.Namespace{Name: n, Labels: r.labels()})
		}
	}
	for i := range 3 + r.IntN(8) {
		r.addAttached(i)
	}
	for i := range r.IntN(12) {
		r.addRemote(i)
	}
	for i := range r.IntN(7) {
		r.Objects.NetworkPolicies = append(r.Objects.NetworkPolicies, r.Policy(i))
	}
	for i := range pick(r.Rand, []int{0, 0, 1, 2, 4}) {
		r.Objects.ClusterPolicies = append(r.Objects.ClusterPolicies, r.ClusterPolicy(i))
	}
	if chance(r.Rand, 2) {
		r.Objects.Ranges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd44::/48")}
	}
	for _, s := range []string{"192.0.2.250", "198.51.100.7", "0.0.0.0", "255.255.255.255", "2001:db8:f::7", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		r.addrs = append(r.addrs, netip.MustParseAddr(s))
	}
	return r
}

// NewRandomIn draws from a world that there is already, such as one of real pods.
func NewRandomIn(seed uint64, w World) *Random {
	r := &Random{Rand: rand.New(rand.NewPCG(7466, seed)), World: w}
	for _, b := range w.Blocks {
		r.addrs = append(append(r.addrs, b.Endpoints...), b.CIDR.Addr(), b.CIDR.Addr().Next())
	}
	for _, p := range w.Attached {
		r.addrs = append(r.addrs, p.Addrs...)
	}
	return r
}

// Relabel gives all pods and namespaces other labels, and the pods other named ports.
func (r *Random) Relabel() {
	for i := range r.Objects.Namespaces {
		r.Objects.Namespaces[i].Labels = r.labels()
	}
	for i := range r.Objects.Pods {
		p := &r.Objects.Pods[i]
		p.Labels, p.Ports = r.labels(), r.namedPorts()
	}
}

func chance(r *rand.Rand, of int) bool { return r.IntN(of) == 0 }

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// makeBlocks gives three nodes a block of each family. The third has no IPv6 endpoint, and
// may say that it has addresses of pods or of another node.
func (r *Random) makeBlocks() {
	for i := 1; i <= 3; i++ {
		endpoints := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i))}
		if i == 3 {
			endpoints = endpoints[:1]
		}
		addresses := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", i))}
		if i == 3 {
			switch r.IntN(4) {
			case 0:
				addresses = append(addresses, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("10.244.2.2"))
			case 1:
				endpoints = []netip.Addr{netip.MustParseAddr("10.244.2.3"), netip.MustParseAddr("2001:db8::2")}
			}
		}
		labels := r.labels()
		r.addrs = append(append(r.addrs, endpoints...), addresses...)
		for _, cidr := range []string{fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd44:0:0:%d::/64", i)} {
			p := netip.MustParsePrefix(cidr)
			r.Blocks = append(r.Blocks, model.Block{Name: cidr, CIDR: p, Node: fmt.Sprintf("node%d", i), Endpoints: endpoints, Addresses: addresses, Labels: labels, State: model.BlockActive})
			r.addrs = append(r.addrs, p.Addr(), p.Addr().Next())
		}
	}
}

func (r *Random) labels() map[string]string {
	labels := map[string]string{}
	for _, k := range labelKeys {
		if chance(r.Rand, 2) {
			labels[k] = pick(r.Rand, labelValues)
		}
	}
	return labels
}

// podAddrs returns addresses of a node's blocks, of both families or one.
func (r *Random) podAddrs(node, number int) []netip.Addr {
	addrs := []netip.Addr{
		netip.AddrFrom4([4]byte{10, 244, byte(node), byte(number + 2)}),
		netip.MustParseAddr(fmt.Sprintf("fd44:0:0:%d::%x", node, number+2)),
	}
	switch r.IntN(6) {
	case 0:
		addrs = addrs[:1]
	case 1:
		addrs = addrs[1:]
	}
	r.addrs = append(r.addrs, addrs...)
	return addrs
}

func (r *Random) object(name string) model.ClusterPod {
	return model.ClusterPod{
		Namespace: pick(r.Rand, Namespaces), Name: name, UID: name, Labels: r.labels(), Ports: r.namedPorts(),
		Terminating: chance(r.Rand, 4),
	}
}

func (r *Random) namedPorts() []model.NamedPort {
	var ports []model.NamedPort
	for range r.IntN(4) {
		ports = append(ports, model.NamedPort{Name: pick(r.Rand, portNames), Protocol: pick(r.Rand, protocolsOf), Port: uint16(pick(r.Rand, numbers))})
	}
	return ports
}

// addAttached adds a pod of this node, which is node 1. Its object may name other
// addresses, none yet, or be that of a former pod; there may be none at all.
func (r *Random) addAttached(i int) {
	o := r.object(fmt.Sprintf("local%d", i))
	addrs := r.podAddrs(1, i)
	r.Attached = append(r.Attached, model.Pod{
		ContainerID: o.Name, IfName: "eth0", Namespace: o.Namespace, Name: o.Name, UID: o.UID, Addrs: addrs, HostLink: "podn" + o.Name,
	})
	o.Node = "node1"
	switch r.IntN(12) {
	case 0:
		return
	case 1:
		o.UID = "former"
		o.Addrs = r.podAddrs(1, 40+i)
	case 2:
		o.Addrs = r.podAddrs(1, 40+i)
	case 3:
	default:
		o.Addrs = addrs
	}
	r.Objects.Pods = append(r.Objects.Pods, o)
}

// addRemote adds a pod of another node. It may have no address yet, that of its node, or one
// that another pod has or had, of its node or of another one.
func (r *Random) addRemote(i int) {
	o := r.object(fmt.Sprintf("remote%d", i))
	node := 2 + r.IntN(2)
	o.Node = fmt.Sprintf("node%d", node)
	switch r.IntN(10) {
	case 0:
	case 1:
		o.HostNetwork = true
		o.Addrs = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", node))}
	case 2:
		o.Addrs = []netip.Addr{pick(r.Rand, r.addrs)}
	case 3, 4:
		o.Addrs = r.podAddrs(node, r.IntN(3))
	default:
		o.Addrs = r.podAddrs(node, i)
	}
	r.Objects.Pods = append(r.Objects.Pods, o)
}

// Policy makes a policy.
func (r *Random) Policy(i int) model.NetworkPolicy {
	p := model.NetworkPolicy{Namespace: pick(r.Rand, Namespaces), Name: fmt.Sprintf("policy%d", i), Pods: r.selector()}
	p.Types = pick(r.Rand, [][]model.PolicyType{nil, nil, {model.PolicyIngress}, {model.PolicyEgress}, {model.PolicyIngress, model.PolicyEgress}})
	for range r.IntN(4) {
		p.Ingress = append(p.Ingress, r.rule())
	}
	for range r.IntN(4) {
		p.Egress = append(p.Egress, r.rule())
	}
	return p
}

// ClusterPolicy makes a policy of the cluster. Two may have the same priority.
func (r *Random) ClusterPolicy(i int) model.ClusterPolicy {
	p := model.ClusterPolicy{
		Name: fmt.Sprintf("cluster%d", i), Tier: pick(r.Rand, []model.Tier{model.AdminTier, model.BaselineTier}), Priority: r.Int32N(3),
		Namespaces: r.selector(), Pods: r.selector(),
	}
	if chance(r.Rand, 3) {
		p.Pods = nil
	}
	for range r.IntN(4) {
		p.Ingress = append(p.Ingress, r.tierRule(fmt.Sprintf("ingress[%d]", len(p.Ingress)), false))
	}
	for range r.IntN(4) {
		p.Egress = append(p.Egress, r.tierRule(fmt.Sprintf("egress[%d]", len(p.Egress)), true))
	}
	return p
}

func (r *Random) tierRule(field string, egress bool) model.TierRule {
	rule := model.TierRule{Field: field, Action: pick(r.Rand, []model.PolicyAction{model.PolicyAccept, model.PolicyDeny, model.PolicyPass})}
	for range 1 + r.IntN(3) {
		rule.Peers = append(rule.Peers, r.tierPeer(egress))
	}
	if chance(r.Rand, 2) {
		return rule
	}
	for range 1 + r.IntN(3) {
		rule.Ports = append(rule.Ports, r.port())
	}
	return rule
}

func (r *Random) tierPeer(egress bool) model.PolicyPeer {
	kinds := 4
	if egress {
		kinds = 8
	}
	s := r.selector()
	switch r.IntN(kinds) {
	case 0, 1:
		return model.PolicyPeer{Namespaces: &s}
	case 4, 5:
		return model.PolicyPeer{Block: r.block()}
	case 6, 7:
		return model.PolicyPeer{Nodes: &s}
	}
	pods := r.selector()
	return model.PolicyPeer{Namespaces: &s, Pods: &pods}
}

func (r *Random) rule() model.PolicyRule {
	var rule model.PolicyRule
	for range r.IntN(4) {
		rule.Peers = append(rule.Peers, r.peer())
	}
	for range r.IntN(4) {
		rule.Ports = append(rule.Ports, r.port())
	}
	return rule
}

func (r *Random) peer() model.PolicyPeer {
	switch r.IntN(10) {
	case 0:
		return model.PolicyPeer{}
	case 1, 2, 3:
		return model.PolicyPeer{Block: r.block()}
	case 4, 5, 6:
		s := r.selector()
		return model.PolicyPeer{Pods: &s}
	case 7:
		s := r.selector()
		return model.PolicyPeer{Namespaces: &s}
	default:
		n, p := r.selector(), r.selector()
		return model.PolicyPeer{Namespaces: &n, Pods: &p}
	}
}

// block makes a block around an address that is in use, with exceptions that are
// in it, overlap, or have nothing to do with it.
func (r *Random) block() *model.IPBlock {
	b := &model.IPBlock{CIDR: r.prefix()}
	for range r.IntN(3) {
		b.Except = append(b.Except, r.prefix())
	}
	return b
}

func (r *Random) prefix() netip.Prefix {
	a := pick(r.Rand, r.addrs)
	bits := pick(r.Rand, []int{0, 8, 16, 23, 24, 25, 30, 31, 32})
	if a.Is6() {
		bits = pick(r.Rand, []int{0, 1, 32, 48, 63, 64, 120, 127, 128})
	} else if chance(r.Rand, 10) {
		return netip.PrefixFrom(netip.AddrFrom16(a.As16()), 96+bits)
	}
	p := netip.PrefixFrom(a, bits)
	if chance(r.Rand, 3) {
		return p
	}
	return p.Masked()
}

func (r *Random) port() model.PolicyPort {
	p := model.PolicyPort{Protocol: pick(r.Rand, append(protocolsOf, "ICMP"))}
	number, end := pick(r.Rand, numbers), pick(r.Rand, numbers)
	switch r.IntN(10) {
	case 0, 1:
	case 2, 3, 4:
		p.Name = pick(r.Rand, portNames)
	case 5, 6:
		// It may end before it begins.
		p.Port, p.EndPort = &number, &end
	case 7:
		bad := pick(r.Rand, []int32{0, -1, 65536})
		p.Port = &bad
	default:
		p.Port = &number
	}
	return p
}

func (r *Random) selector() model.Selector {
	var s model.Selector
	for range pick(r.Rand, []int{0, 1, 1, 2}) {
		q := model.Requirement{Key: pick(r.Rand, labelKeys), Operator: pick(r.Rand, []model.Operator{model.In, model.In, model.NotIn, model.Exists, model.DoesNotExist})}
		if q.Operator == model.In || q.Operator == model.NotIn {
			for range 1 + r.IntN(2) {
				q.Values = append(q.Values, pick(r.Rand, labelValues))
			}
		}
		s = append(s, q)
	}
	return s
}

// Connection makes a connection of which one end at least is attached, as only such
// ones are anybody's concern here. Its addresses are those in use and their neighbours.
func (r *Random) Connection() Connection {
	local := pick(r.Rand, pick(r.Rand, r.Attached).Addrs)
	other := r.other(local.Is4())
	c := Connection{Client: other, Server: local, Protocol: pick(r.Rand, []string{"tcp", "tcp", "tcp", "udp", "sctp", "icmp"})}
	if chance(r.Rand, 2) {
		c.Client, c.Server = local, other
	}
	if c.Client == local && chance(r.Rand, 4) {
		c.Server, c.ToHost = r.ofHost(local), true
	}
	if c.Protocol != "icmp" {
		c.Port = uint16(pick(r.Rand, numbers))
		if chance(r.Rand, 4) {
			c.Port += uint16(r.IntN(3)) - 1
		}
	}
	return c
}

// ofHost returns an address of the node that has a pod's address; also one that is
// none of those that the cluster knows of.
func (r *Random) ofHost(pod netip.Addr) netip.Addr {
	var node string
	for _, b := range r.Blocks {
		if b.CIDR.Contains(pod) {
			node = b.Node
		}
	}
	addrs := []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("2001:db8:f::1")}
	for _, b := range r.Blocks {
		if b.Node == node {
			addrs = append(append(append(addrs, ipam.NodeAddress(b.CIDR)), b.Endpoints...), b.Addresses...)
		}
	}
	return pick(r.Rand, slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is4() != pod.Is4() }))
}

func (r *Random) other(is4 bool) netip.Addr {
	for {
		a := pick(r.Rand, r.addrs)
		switch r.IntN(6) {
		case 0:
			a = a.Next()
		case 1:
			a = a.Prev()
		}
		if a.IsValid() && a.Is4() == is4 {
			return a
		}
	}
}
