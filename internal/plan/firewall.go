package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// pods matches packets from links that face pods, bridge those from the bridge, and podVeths
// those from veths alone.
const (
	pods      = `iifname "` + model.PodLinkPrefix + `*"`
	bridge    = `iifname "` + model.BridgeLink + `"`
	notBridge = `iifname != "` + model.BridgeLink + `"`
	podVeths  = pods + " " + notBridge
	toPods    = `oifname "` + model.PodLinkPrefix + `*"`
)

// afterServices is the priority of the chains of hostPorts: what kube-proxy has translated they
// do not see.
var afterServices = nft.DstNAT.At(10)

// Chains that only rules lead to: of what pods send, and of what packets go to other nodes.
const (
	chainRawPods   = "raw-pods"
	chainPods      = "pods" // and the family's digit
	chainPodErrors = "pod-errors"
	chainTalking   = "talking"
)

// errorsOfPods leads what pods say of connections to podErrors. A node learns from an error too,
// such as how large a packet to another node may be.
var errorsOfPods = []string{
	"meta l4proto icmp ct state invalid,related " + pods + " jump " + chainPodErrors,
	"meta l4proto ipv6-icmp ct state invalid,related " + pods + " jump " + chainPodErrors,
}

// kubeProxyMark is the bit with which kube-proxy marks packets that it will
// masquerade (its default, --iptables-masquerade-bit).
const kubeProxyMark = 0x4000

// firewall returns podnet's tables without the elements of pods. Rules are the
// same however many pods and nodes there are; these are elements of sets, so
// that a packet costs the same.
//
// Every packet meets the hooks of raw, forward, input and output, so that what decides most
// packets stands first there: a pod's source is looked up once, and TCP, which nothing
// further is about, leaves; a cheap look at the protocol, a flag or a number stands before
// one into a set of prefixes.
func (v *view) firewall() []model.Table {
	inet := nft.Table{Family: nft.Inet, Name: model.FirewallTable, Sets: v.inetSets(), Chains: []nft.Chain{
		filterChain("raw-prerouting", nft.Prerouting, nft.Raw.At(0), v.rawPrerouting()),
		filterChain("raw-output", nft.Output, nft.Raw.At(0), []string{v.vxlanPacket() + " jump " + chainVXLANOut}),
		filterChain("filter-input", nft.Input, nft.Mangle.At(0), append([]string{v.overlayPort() + " jump " + chainVXLANLocal}, errorsOfPods...)),
		filterChain("filter-forward", nft.Forward, nft.Mangle.At(0), v.filterForward()),
		filterChain("filter-output", nft.Output, nft.Filter.At(0), v.filterOutput()),
		natChain("nat-prerouting", nft.Prerouting, afterServices, v.hostPorts(false)),
		natChain("nat-output", nft.Output, afterServices, v.hostPorts(true)),
		natChain("nat-postrouting", nft.Postrouting, nft.SrcNAT.At(-10), v.natPostrouting()),
		part(chainRawPods, v.rawPods()),
		part(chainPods+families[0].digit, v.podsSend4()),
		part(chainPods+families[1].digit, v.podsSend6()),
		part(chainPodErrors, v.podErrors()),
		part(chainTalking, v.talking()),
		part(chainVXLANIn, v.vxlanIn()),
		part(chainVXLANLocal, v.vxlanLocal()),
		part(chainVXLANOut, v.vxlanOut()),
		part(chainVXLANForward, v.vxlanForward()),
	}}
	tables := []model.Table{{Table: inet}}
	if v.active[0] {
		tables = append(tables, model.Table{Table: arpTable()})
	}
	if v.bridge {
		tables = append(tables, model.Table{Table: bridgeTable()})
	}
	return tables
}

// part returns a chain that only rules lead to.
func part(name string, rules []string) nft.Chain {
	return nft.Chain{Name: name, Rules: nft.Rules(rules...)}
}

// filterChain returns a chain that may accept and drop packets at a hook.
func filterChain(name string, hook nft.Hook, priority nft.Priority, rules []string) nft.Chain {
	return nft.Chain{Name: name, Base: nft.Base{Type: nft.TypeFilter, Hook: hook, Priority: priority}, Rules: nft.Rules(rules...)}
}

// natChain returns a chain that translates addresses at a hook.
func natChain(name string, hook nft.Hook, priority nft.Priority, rules []string) nft.Chain {
	return nft.Chain{Name: name, Base: nft.Base{Type: nft.TypeNAT, Hook: hook, Priority: priority}, Rules: nft.Rules(rules...)}
}

func (v *view) inetSets() []nft.Set {
	var sets []nft.Set
	add := func(name string, f family, elements []nft.Element) {
		s := declare(name, f)
		s.Elements = elements
		sets = append(sets, s)
	}
	var own []netip.Prefix
	for _, b := range v.own {
		own = append(own, b.CIDR)
	}
	probes, probers := v.probeAddresses()
	addresses := v.nodeAddresses()
	var remote []netip.Prefix
	for _, p := range v.peers {
		for _, b := range p.blocks {
			remote = append(remote, b.CIDR)
		}
	}
	for i, f := range families {
		add(setEndpoints, f, addressElements(v.endpoints[i]))
		add(setOwnEndpoints, f, addressElements(v.ownEndpoints[i]))
		add(setPodSources, f, nil)
		if !v.active[i] {
			continue
		}
		add(setRanges, f, prefixElements(f, v.network.Ranges))
		add(setBlocks, f, prefixElements(f, own))
		add(setNoMasquerade, f, prefixElements(f, v.network.MasqueradeExclude))
		add(setNodeAddresses, f, addressElements(addresses[i]))
		add(setProbes, f, addressElements(probes[i]))
		add(setProbers, f, addressElements(probers[i]))
		add(setRemote, f, prefixElements(f, remote))
		for _, name := range []string{setSelf, mapHostPorts, mapHostPortsIP, setTalking} {
			add(name, f, nil)
		}
	}
	return sets
}

// rawPrerouting drops what others send in somebody else's name, and keeps conntrack
// from following VXLAN packets. What pods send is checked by rawPods.
func (v *view) rawPrerouting() []string {
	rules := []string{
		pods + " goto " + chainRawPods,
		v.vxlanPacket() + " jump " + chainVXLANIn,
	}
	for i, f := range families {
		if v.active[i] {
			// What this node's pods, and the node in its pod range, send never comes in
			// from elsewhere, whichever way it goes.
			rules = append(rules, fmt.Sprintf(`%s saddr @%s%s iifname != "lo" drop`, f.header, setBlocks, f.digit))
		}
	}
	return append(rules, v.probesFromOthers()...)
}

// rawPods drops what pods send in somebody else's name. Sources of what comes through the
// bridge were checked at its ports. A node may have pods of both attachments: those that were
// attached before the network was recreated with another one keep theirs.
func (v *view) rawPods() []string {
	var rules []string
	if v.bridge {
		rules = append(rules,
			bridge+" meta nfproto ipv4 goto "+chainPods+families[0].digit,
			bridge+" meta nfproto ipv6 goto "+chainPods+families[1].digit)
	}
	return append(rules,
		"iifname . ip saddr @"+setPodSources+"4 goto "+chainPods+families[0].digit,
		"iifname . ip6 saddr @"+setPodSources+"6 goto "+chainPods+families[1].digit,
		// Neighbour discovery alone uses the unspecified source (RFC 4861, section 4.3).
		"ip6 saddr :: meta l4proto ipv6-icmp goto "+chainPods+families[1].digit,
		"drop")
}

// podsSend4 drops of IPv4 what pods must not send with their own addresses either.
func (v *view) podsSend4() []string {
	f := families[0]
	rules := []string{
		// route_localnet, which a hostPort on 127.0.0.1 needs, opens the node's
		// loopback to everything that comes in on the same link.
		"ip daddr 127.0.0.0/8 drop",
		// Nobody has the gateway's address, and nothing is sent to it.
		"ip daddr " + ipam.LinkGateway(true).String() + " drop",
	}
	return append(append(rules, v.probesToPods(f)...), append([]string{
		leavesTCP,
		// A node is no host that pods could tell where its routers are.
		"icmp type redirect drop",
	}, v.probesFromPods(f)...)...)
}

// podsSend6 does the same for IPv6.
func (v *view) podsSend6() []string {
	f := families[1]
	onVeth := ""
	if v.bridge {
		onVeth = notBridge + " "
	}
	rules := []string{
		// Neighbour discovery uses link-local and unspecified sources; nothing else may. The
		// node notes whoever solicits it among the neighbours, of which it can hold only so
		// many: a pod has one link-local address.
		onVeth + "ip6 saddr fe80::/10 meta l4proto != ipv6-icmp drop",
		// The gateway's address is the node's on this link, and for neighbour discovery alone.
		onVeth + "ip6 daddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
		onVeth + "ip6 daddr fe80::/10 drop",
	}
	return append(append(rules, v.probesToPods(f)...), append([]string{
		leavesTCP,
		// A node is no router that pods have to look for, and no host that they could tell where
		// its routers are: whoever does is noted among the neighbours.
		"icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } drop",
	}, v.probesFromPods(f)...)...)
}

// leavesTCP ends what rules that follow, which are not about TCP, would cost it.
const leavesTCP = "meta l4proto tcp accept"

// filterForward keeps forged packets off the overlay, and fits TCP's segments to the
// path: each end's SYN to the way that it goes out.
func (v *view) filterForward() []string {
	rules := append([]string{v.overlayPort() + " jump " + chainVXLANForward}, errorsOfPods...)
	for i, f := range families {
		if v.active[i] {
			rules = append(rules, "tcp flags & (syn | rst) == syn "+v.toRemote(f)+" tcp option maxseg size set rt mtu")
		}
	}
	return append(rules, sometimesTalking)
}

// podErrors drops ICMP errors of pods about anything but their own connections: routers and
// nodes send such, and a pod is neither. Whoever gets an error cannot tell
// who may have sent it, and most of the packet is the sender's to fill.
func (v *view) podErrors() []string {
	var rules []string
	for i, f := range families {
		if v.active[i] {
			for _, end := range []string{"ct original", "ct reply"} {
				rules = append(rules, fmt.Sprintf("%[1]s saddr . %[2]s %[1]s saddr @%[3]s%[4]s return", f.header, end, setSelf, f.digit))
			}
		}
	}
	// Those of ICMPv6 are errors whose type is less than 128 (RFC 4443, section 2.1).
	return append(rules,
		"icmp type { destination-unreachable, source-quench, time-exceeded, parameter-problem } drop",
		"icmpv6 type 0-127 drop")
}

// filterOutput keeps what the node sends itself from being led to the overlay's port by
// a Service, and the node from telling pods of a shorter way: a packet that
// leaves by the link on which it came, as to a service whose only pod is the
// sender, has no other. IPv6 has no parameter for it, and IPv4's holds only where
// all links have it.
func (v *view) filterOutput() []string {
	return []string{
		v.overlayPort() + " ct status dnat jump " + chainVXLANForward,
		"icmp type redirect " + toPods + " drop",
		"icmpv6 type nd-redirect " + toPods + " drop",
		sometimesTalking,
	}
}

// toRemote matches packets to blocks of other nodes.
func (v *view) toRemote(f family) string {
	return fmt.Sprintf("%[1]s daddr @%[2]s%[3]s %[1]s daddr != @%[4]s%[3]s", f.header, setRanges, f.digit, setBlocks)
}

// hostPorts leads packets to ports of the node's addresses to pods. A port of
// one address goes before the same port of all. Local to the kernel are also addresses that
// are a Service's, such as those that kube-proxy keeps on kube-ipvs0: they are no address
// of the node. Those of the loopback are for what the node itself sends: a port of 127.0.0.1 is
// nobody else's, and whoever is on the node's segment can send to that address.
func (v *view) hostPorts(own bool) []string {
	var rules []string
	for i, f := range families {
		if !v.active[i] {
			continue
		}
		// Packets from ::1 cannot leave the node, whatever the parameters are.
		matches := []string{fmt.Sprintf("%s daddr @%s%s", f.header, setNodeAddresses, f.digit)}
		if own && f.is4 {
			matches = append(matches, "ip daddr 127.0.0.0/8")
		}
		for _, match := range matches {
			rules = append(rules,
				fmt.Sprintf("%s dnat %s to %s daddr . meta l4proto . th dport map @%s%s", match, f.header, f.header, mapHostPortsIP, f.digit),
				fmt.Sprintf("%s dnat %s to meta l4proto . th dport map @%s%s", match, f.header, mapHostPorts, f.digit))
		}
	}
	return rules
}

// nodeAddresses returns, by family and sorted, the addresses of this node: those of its
// interfaces that are up, and those that it has in the pod ranges.
func (v *view) nodeAddresses() model.PerFamily[[]netip.Addr] {
	var all model.PerFamily[[]netip.Addr]
	add := func(a netip.Addr) {
		if a.IsValid() {
			i := model.FamilyIndex(a)
			all[i] = append(all[i], a)
		}
	}
	for _, e := range slices.Concat(v.host.Addresses, v.host.Endpoints) {
		add(e.Addr)
	}
	for _, b := range v.own {
		add(ipam.NodeAddress(b.CIDR))
		if v.bridge {
			add(ipam.GatewayAddress(b.CIDR))
		}
	}
	for i := range all {
		slices.SortFunc(all[i], netip.Addr.Compare)
		all[i] = slices.Compact(all[i])
	}
	return all
}

// natPostrouting changes sources, before kube-proxy's chains do.
func (v *view) natPostrouting() []string {
	var rules []string
	for i, f := range families {
		if !v.active[i] {
			continue
		}
		rules = append(rules, fmt.Sprintf("%[1]s saddr . %[1]s daddr @%[2]s%[3]s masquerade fully-random", f.header, setSelf, f.digit))
		if f.is4 {
			rules = append(rules, "ip saddr 127.0.0.0/8 "+toPods+" masquerade fully-random")
		}
		rules = append(rules, v.toRemoteSources(f, v.address[i])...)
		if v.network.Masquerade {
			outside := fmt.Sprintf(` %[1]s daddr != @%[2]s%[3]s %[1]s daddr != @%[4]s%[3]s %[1]s daddr != %[5]s `+
				`oifname != "lo" oifname != "%[6]s*" masquerade fully-random`,
				f.header, setRanges, f.digit, setNoMasquerade, f.multicast, model.PodLinkPrefix)
			// What this node's pods send, wherever their addresses lie, and the node from its
			// address in the pod range: rawPrerouting drops what others send with those of its
			// blocks. Not what they send through it with addresses of other nodes' pods.
			rules = append(rules,
				fmt.Sprintf("%[1]s saddr . %[1]s saddr @%[2]s%[3]s", f.header, setSelf, f.digit)+outside,
				fmt.Sprintf("%s saddr @%s%s", f.header, setBlocks, f.digit)+outside)
		}
	}
	return rules
}

// toRemoteSources gives what leaves for other nodes' blocks the node's own
// address in its pod range, where its source is none of the network's or
// kube-proxy wants another: replies then come back the same kind of way, and a
// switch of the path keeps the connection, which it does not where the source is
// masqueraded, as the kernel ends those when their output device changes. The
// mark goes, so that nothing later masquerades.
func (v *view) toRemoteSources(f family, node netip.Addr) []string {
	if !node.IsValid() {
		return nil
	}
	translate := fmt.Sprintf(" meta mark set meta mark & %#x snat %s to %s fully-random",
		^uint32(kubeProxyMark), f.header, node)
	return []string{
		v.toRemote(f) + fmt.Sprintf(" %s saddr != @%s%s", f.header, setRanges, f.digit) + translate,
		v.toRemote(f) + fmt.Sprintf(" meta mark & %#x == %#x", kubeProxyMark, kubeProxyMark) + translate,
	}
}
