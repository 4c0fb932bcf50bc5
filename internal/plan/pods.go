package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// PodParts returns what one pod adds to the plan: its routes, neighbours, port,
// parameters and gateway, and its elements in the firewall's sets. Its tables hold nothing
// but sets with these elements. Build uses the same for every pod of c, so what
// a CNI ADD makes is what the next pass wants.
func PodParts(c model.Cluster, p model.Pod) model.State {
	s := podParts(served(refuseOwn(c), p), hostPortsOf(append(slices.Clone(c.Pods), p)))
	s.Sort()
	return s
}

// Displaced returns what of other pods' parts goes when one more is attached: the
// elements of the host ports that it takes over.
func Displaced(c model.Cluster, p model.Pod) model.State {
	c = refuseOwn(c)
	others := slices.DeleteFunc(slices.Clone(c.Pods), func(o model.Pod) bool { return attachmentOf(o) == attachmentOf(p) })
	before, after := hostPortsOf(others), hostPortsOf(append(others, p))
	inet := newPartial(nft.Inet)
	asked := map[uint16]bool{}
	for _, port := range p.HostPorts {
		asked[port.Host] = true
	}
	for _, o := range others {
		if !slices.ContainsFunc(o.HostPorts, func(port model.HostPort) bool { return asked[port.Host] }) {
			continue
		}
		had, has := newPartial(nft.Inet), newPartial(nft.Inet)
		for _, addr := range served(c, o).Addrs {
			addHostPorts(had, o, addr, before)
			addHostPorts(has, o, addr, after)
		}
		had.each(func(set nft.Set, e nft.Element) {
			if !has.seen[elementKey(set, e)] {
				inet.add(set, e)
			}
		})
	}
	if len(inet.table.Sets) == 0 {
		return model.State{}
	}
	return model.State{Firewall: []model.Table{{Table: inet.table}}}
}

// addPods adds the parts of all pods to a state that has the tables already.
func addPods(s *model.State, c model.Cluster) {
	taken := hostPortsOf(c.Pods)
	type setKey struct {
		family     nft.Family
		table, set string
	}
	elements := map[setKey][]nft.Element{}
	for _, p := range sortedPods(c.Pods) {
		part := podParts(served(c, p), taken)
		s.Routes = append(s.Routes, part.Routes...)
		s.Neighbours = append(s.Neighbours, part.Neighbours...)
		s.Ports = append(s.Ports, part.Ports...)
		s.Addresses = append(s.Addresses, part.Addresses...)
		s.Sysctls = append(s.Sysctls, part.Sysctls...)
		for _, t := range part.Firewall {
			for _, set := range t.Sets {
				key := setKey{t.Family, t.Name, set.Name}
				elements[key] = append(elements[key], set.Elements...)
			}
		}
	}
	for i := range s.Firewall {
		t := &s.Firewall[i]
		for j := range t.Sets {
			set := &t.Sets[j]
			set.Elements = append(set.Elements, elements[setKey{t.Family, t.Name, set.Name}]...)
		}
	}
}

// attachment is the key of a pod's attachment.
type attachment struct{ container, link string }

func attachmentOf(p model.Pod) attachment { return attachment{p.ContainerID, p.IfName} }

func sortedPods(pods []model.Pod) []model.Pod {
	return slices.SortedFunc(slices.Values(pods), func(a, b model.Pod) int {
		return cmp.Or(strings.Compare(a.ContainerID, b.ContainerID), strings.Compare(a.IfName, b.IfName))
	})
}

// hostPortKey is a port of the node in one family.
type hostPortKey struct {
	family   int
	ip       netip.Addr
	protocol string
	port     uint16
}

// hostPortsOf says which pod has which port of the node. The scheduler gives a
// port to one pod, but a pod that goes may still be attached when the next one
// comes, and a map of nft has one value for a key: the port is the younger one's.
func hostPortsOf(pods []model.Pod) map[hostPortKey]attachment {
	taken := map[hostPortKey]attachment{}
	youngest := sortedPods(pods)
	slices.SortStableFunc(youngest, func(a, b model.Pod) int { return b.Since.Compare(a.Since) })
	for _, p := range youngest {
		for _, port := range p.HostPorts {
			for _, addr := range p.Addrs {
				key, ok := hostPortKeyOf(port, addr)
				if _, has := taken[key]; ok && !has {
					taken[key] = attachmentOf(p)
				}
			}
		}
	}
	return taken
}

// hostPortKeyOf returns the port of the node that leads to a pod's address, and
// false where the port is restricted to an address of the other family.
func hostPortKeyOf(port model.HostPort, pod netip.Addr) (hostPortKey, bool) {
	ip := port.HostIP
	// The unspecified addresses are another way to write all addresses of a family.
	if ip.IsValid() && ip.Is4() != pod.Is4() {
		return hostPortKey{}, false
	}
	if ip.IsUnspecified() {
		ip = netip.Addr{}
	}
	return hostPortKey{model.FamilyIndex(pod), ip, strings.ToLower(port.Protocol), port.Host}, true
}

// served returns a pod with those of its addresses whose family the node serves. It may
// have others since before the node's interface, or its parameters, changed.
func served(c model.Cluster, p model.Pod) model.Pod {
	mtu, _ := podMTU(*c.Network, c.Host)
	active, _ := activeFamilies(*c.Network, c.Host, mtu)
	addrs := p.Addrs
	p.Addrs = nil
	for _, a := range addrs {
		if active[model.FamilyIndex(a)] {
			p.Addrs = append(p.Addrs, a)
		}
	}
	return p
}

func podParts(p model.Pod, taken map[hostPortKey]attachment) model.State {
	var s model.State
	link := p.HostLink
	if p.Attachment == model.Bridge {
		link = model.BridgeLink
	}
	inet, bridge, arp := newPartial(nft.Inet), newPartial(nft.Bridge), newPartial(nft.ARP)
	if p.Attachment == model.Bridge {
		s.Ports = append(s.Ports, model.Port{Link: p.HostLink, Bridge: model.BridgeLink})
		bridge.add(declareBridge(setPodMACs, family{}), nft.Element{Key: []string{p.HostLink, p.PodMAC.String()}})
	}
	for _, addr := range p.Addrs {
		f := families[model.FamilyIndex(addr)]
		s.Routes = append(s.Routes, model.Route{Dst: host(addr), Link: link})
		s.Neighbours = append(s.Neighbours, model.Neighbour{Link: link, Addr: addr, MAC: p.PodMAC})
		inet.add(declare(setSelf, f), nft.Element{Key: []string{addr.String(), addr.String()}})
		if p.Attachment == model.Bridge {
			addBridgeSources(bridge, p, addr)
		} else {
			addLinkSources(&s, inet, arp, p, addr)
		}
		if addHostPorts(inet, p, addr, taken) && f.is4 && p.Attachment != model.Bridge {
			s.Sysctls = append(s.Sysctls, routeLocalnet(link))
		}
	}
	for _, t := range []*partial{arp, bridge, inet} {
		if len(t.table.Sets) > 0 {
			s.Firewall = append(s.Firewall, model.Table{Table: t.table})
		}
	}
	return s
}

// sources are the addresses that a pod may send from because it has one: with an IPv6
// address it has the link-local one of its MAC.
func sources(p model.Pod, addr netip.Addr) []netip.Addr {
	if addr.Is4() {
		return []netip.Addr{addr}
	}
	return []netip.Addr{addr, linkLocal(p.PodMAC)}
}

// addBridgeSources adds what a pod on the bridge may send from because of an address.
func addBridgeSources(bridge *partial, p model.Pod, addr netip.Addr) {
	f := families[model.FamilyIndex(addr)]
	for _, source := range sources(p, addr) {
		at := []string{p.HostLink, p.PodMAC.String()}
		bridge.add(declareBridge(setPodSources, f), nft.Element{Key: append(at, source.String())})
		if !f.is4 {
			bridge.add(declareBridge(setPodTargets, f), nft.Element{Key: append(slices.Clone(at), integer(source))})
		}
	}
}

// addLinkSources adds what a pod on a link of its own may send from because of an
// address, and what makes the node the gateway that the pod finds there.
func addLinkSources(s *model.State, inet, arp *partial, p model.Pod, addr netip.Addr) {
	f := families[model.FamilyIndex(addr)]
	for _, source := range sources(p, addr) {
		element := nft.Element{Key: []string{p.HostLink, source.String()}}
		inet.add(declare(setPodSources, f), element)
		if f.is4 {
			arp.add(declare(setPodSources, f), element)
		}
	}
	s.Sysctls = append(s.Sysctls, routes(f, p.HostLink)...)
	if f.is4 {
		s.Sysctls = append(s.Sysctls, answersARP(p.HostLink)...)
		return
	}
	s.Addresses = append(s.Addresses, model.Address{Link: p.HostLink, Addr: host(ipam.LinkGateway(false))})
}

// addHostPorts adds the elements that lead from the node's ports to one address
// of a pod, and reports whether there are any.
func addHostPorts(t *partial, p model.Pod, addr netip.Addr, taken map[hostPortKey]attachment) bool {
	f := families[model.FamilyIndex(addr)]
	led := false
	for _, port := range p.HostPorts {
		key, ok := hostPortKeyOf(port, addr)
		if !ok || taken[key] != attachmentOf(p) {
			continue
		}
		led = true
		at := []string{key.protocol, strconv.Itoa(int(port.Host))}
		to := []string{addr.String(), strconv.Itoa(int(port.Pod))}
		if key.ip.IsValid() {
			t.add(declare(mapHostPortsIP, f), nft.Element{Key: append([]string{key.ip.String()}, at...), Value: to})
		} else {
			t.add(declare(mapHostPorts, f), nft.Element{Key: at, Value: to})
		}
	}
	return led
}

// partial is a table that holds nothing but elements of its sets.
type partial struct {
	table nft.Table
	// sets are the indices of the sets by their names, and seen says which elements each has.
	sets map[string]int
	seen map[string]bool
}

func newPartial(tableFamily nft.Family) *partial {
	return &partial{
		table: nft.Table{Family: tableFamily, Name: model.FirewallTable}, sets: map[string]int{}, seen: map[string]bool{},
	}
}

// add adds an element to the set that the declaration names, once.
func (t *partial) add(declaration nft.Set, element nft.Element) {
	i, ok := t.sets[declaration.Name]
	if !ok {
		i = len(t.table.Sets)
		t.sets[declaration.Name] = i
		t.table.Sets = append(t.table.Sets, declaration)
	}
	if key := elementKey(declaration, element); !t.seen[key] {
		t.seen[key] = true
		t.table.Sets[i].Elements = append(t.table.Sets[i].Elements, element)
	}
}

// elementKey tells the elements of a table apart.
func elementKey(declaration nft.Set, element nft.Element) string {
	return declaration.Name + " " + strings.Join(element.Key, " ")
}

// each calls f with every element, and the declaration of its set.
func (t *partial) each(f func(declaration nft.Set, element nft.Element)) {
	for _, s := range t.table.Sets {
		declaration := s
		declaration.Elements = nil
		for _, e := range s.Elements {
			f(declaration, e)
		}
	}
}
