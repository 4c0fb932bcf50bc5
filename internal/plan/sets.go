package plan

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Names of the firewall's sets and maps, to which the family's digit is added.
const (
	// setEndpoints holds the addresses of all nodes, and those that they had until lately.
	setEndpoints = "endpoints"
	// setOwnEndpoints holds those of them that are this node's own.
	setOwnEndpoints = "ownendpoints"
	// setNodeAddresses holds the addresses of this node that hostPorts are for.
	setNodeAddresses = "nodeaddresses"
	// setRanges holds the ranges of the network, setBlocks this node's blocks of them.
	setRanges = "ranges"
	setBlocks = "blocks"
	// setNoMasquerade holds the destinations outside the ranges to which pods
	// send with their own addresses.
	setNoMasquerade = "nomasq"
	// setPodSources holds which link may send from which address: in the bridge
	// table with the MAC in between. In the arp table it is for IPv4 alone.
	setPodSources = "podsources"
	// setSelf holds the addresses of this node's pods, each as both ends of what its pod
	// sends to itself: with it two fields of a packet are compared.
	setSelf = "self"
	// setProbes holds the addresses from which this node probes its paths.
	setProbes = "probes"
	// setProbers holds the addresses from which other nodes probe.
	setProbers = "probers"
	// setRemote holds other nodes' blocks.
	setRemote = "remote"
	// setTalking holds what the kernel notes by the rules of talking.
	setTalking = model.TalkingSet
	// mapHostPorts leads from ports of all addresses of the node to pods,
	// mapHostPortsIP from ports of one address.
	mapHostPorts   = "hostports"
	mapHostPortsIP = "hostportsip"
	// setPodMACs, of the bridge table and of no family, holds which port may send
	// from which MAC.
	setPodMACs = "podmacs"
	// setPodTargets, of the bridge table and of IPv6, holds which port may say from which
	// MAC that it has which address.
	setPodTargets = "podtargets"
)

// targetOfAdvert is the target in a neighbour advertisement (RFC 4861, section 4.4), for
// which nft has a word only since 1.0.8.
const targetOfAdvert = "@th,64,128"

// talkingTime is how long a destination is remembered.
const talkingTime = time.Minute

// declare returns a set of the inet table without elements.
func declare(name string, f family) nft.Set {
	s := nft.Set{Name: name + f.digit}
	switch name {
	case setEndpoints, setOwnEndpoints, setNodeAddresses, setProbes, setProbers:
		s.Key = f.address
	case setTalking:
		s.Key, s.Forgets = f.address, talkingTime
	case setRanges, setBlocks, setRemote, setNoMasquerade:
		s.Key, s.Interval = f.address, true
	case setPodSources:
		s.Key = "ifname . " + f.address
	case setSelf:
		s.Key = f.address + " . " + f.address
	case mapHostPorts:
		s.Key, s.Value = "inet_proto . inet_service", f.address+" . inet_service"
	case mapHostPortsIP:
		s.Key, s.Value = f.address+" . inet_proto . inet_service", f.address+" . inet_service"
	}
	return s
}

// declareBridge returns a set of the bridge table without elements.
func declareBridge(name string, f family) nft.Set {
	switch name {
	case setPodMACs:
		return nft.Set{Name: name, Key: "ifname . ether_addr"}
	case setPodTargets:
		return nft.Set{Name: name + f.digit, Key: "ifname . ether_addr . integer", TypeOf: "iifname . ether saddr . " + targetOfAdvert}
	default:
		return nft.Set{Name: name + f.digit, Key: "ifname . ether_addr . " + f.address}
	}
}

// integer writes an address as nft does the value of a field that it has no word for.
func integer(a netip.Addr) string { return fmt.Sprintf("%#x", new(big.Int).SetBytes(a.AsSlice())) }

// prefixElements writes the prefixes of a family as elements of an interval set:
// without those that lie in another one, since nft refuses overlaps, and as nft
// prints them, since what is found is compared with what is wanted.
func prefixElements(f family, prefixes []netip.Prefix) []nft.Element {
	var masked []netip.Prefix
	for _, p := range prefixes {
		if p.IsValid() && p.Addr().Is4() == f.is4 {
			masked = append(masked, p.Masked())
		}
	}
	slices.SortFunc(masked, model.ComparePrefix)
	var elements []nft.Element
	var last netip.Prefix
	for _, p := range masked {
		// Prefixes overlap only by one containing the other, which is sorted before it.
		if last.IsValid() && last.Contains(p.Addr()) {
			continue
		}
		last = p
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		elements = append(elements, nft.Element{Key: []string{text}})
	}
	return elements
}

// addressElements writes addresses as elements of a set.
func addressElements(addresses []netip.Addr) []nft.Element {
	var elements []nft.Element
	for _, a := range addresses {
		elements = append(elements, nft.Element{Key: []string{a.String()}})
	}
	return elements
}
