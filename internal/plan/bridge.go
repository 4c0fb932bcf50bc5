package plan

import (
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// reserved are the Ethernet addresses that a bridge keeps to itself (IEEE 802.1D, 7.12.6).
// Frames to them reach the port's own interface and pass no rule of prerouting.
const reserved = "01:80:c2:00:00:00-01:80:c2:00:00:0f"

// bridgeTable checks what pods send at the ports of the bridge, where the
// sender is known: the MAC with each address, ARP's and neighbour discovery's
// included, and nothing but IP.
//
// Rules accept, and the last one drops, since a rule whose match cannot be read from a
// packet, such as the target of an advertisement that a fragment cuts off, does not hold.
func bridgeTable() nft.Table {
	t := nft.Table{Family: nft.Bridge, Name: model.FirewallTable, Sets: []nft.Set{
		declareBridge(setPodMACs, family{}), declareBridge(setPodTargets, families[1]),
	}}
	for _, f := range families {
		t.Sets = append(t.Sets, declareBridge(setPodSources, f))
	}
	const (
		source  = " iifname . ether saddr . ip6 saddr @podsources6"
		isLocal = " ip6 saddr fe80::/10"
		advert  = pods + " icmpv6 type nd-neighbor-advert"
		// Listener reports may come from whoever has no address (RFC 3590, RFC 3810 5.2.13).
		reports = "mld-listener-report, mld2-listener-report"
		groups  = "ip6 daddr ff02::/16"
	)
	t.Chains = []nft.Chain{
		filterChain("prerouting", nft.Prerouting, nft.Priority{Offset: -300}, []string{
			// The type is read from the frame, where a tag has one of its own. All that
			// follows, and what sees packets of the bridge after it, reads behind the tag or
			// not at all.
			pods + " ether type != { ip, ip6, arp } drop",
			pods + " icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } drop",
			advert + " iifname . ether saddr . " + targetOfAdvert + " @podtargets6" + source + " accept",
			advert + " drop",
			pods + " iifname . ether saddr . ip saddr @podsources4 accept",
			pods + " iifname . ether saddr . arp saddr ip @podsources4 iifname . arp saddr ether . arp saddr ip @podsources4 accept",
			pods + " ip6 saddr != fe80::/10" + source + " accept",
			// Link-local and unspecified sources are for neighbour discovery, and for nothing else.
			pods + isLocal + source + " meta l4proto ipv6-icmp accept",
			// Who has no address yet asks whether anybody has it, and says to what it listens.
			pods + " iifname . ether saddr @podmacs ip6 saddr :: " + groups + " icmpv6 type { nd-neighbor-solicit, " + reports + " } accept",
			pods + " drop",
		}),
		// Ports send back what came by them (hairpin), for pods that reach themselves through
		// a Service. What is for all would teach a bridge inside of the pod, behind which a
		// virtual machine has the pod's MAC, that the machine is outside.
		filterChain("forward", nft.Forward, nft.Priority{Offset: -300}, []string{
			toPods + " meta pkttype { broadcast, multicast } oifname . ether saddr @podmacs drop",
			// A frame that is for one pod has to have one of that pod's addresses: rules above
			// IP, policies among them, go by the address, and the MAC says who gets it.
			toPods + " meta pkttype { broadcast, multicast } accept",
			toPods + " ether type arp accept",
			toPods + " oifname . ether daddr . ip daddr @podsources4 accept",
			toPods + " oifname . ether daddr . ip6 daddr @podsources6 accept",
			toPods + " " + groups + " icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, " + reports + " } accept",
			toPods + " drop",
		}),
		filterChain("input", nft.Input, nft.Priority{Offset: -300}, []string{pods + " ether daddr " + reserved + " drop"}),
	}
	return t
}

// arpTable lets a pod ask for its gateway on a link of its own, with its own address, and
// nothing else: the kernel notes whoever asks among the neighbours, of which it can hold
// only so many.
func arpTable() nft.Table {
	return nft.Table{
		Family: nft.ARP, Name: model.FirewallTable,
		Sets: []nft.Set{declare(setPodSources, families[0])},
		Chains: []nft.Chain{filterChain("input", nft.Input, nft.Filter.At(0), []string{
			podVeths + " iifname . arp saddr ip != @podsources4 drop",
			podVeths + " arp daddr ip != " + ipam.LinkGateway(true).String() + " drop",
		})},
	}
}
