package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// maxFindingCIDRs is how many prefixes a finding names, as the API's validation has it.
const maxFindingCIDRs = 16

// foreign is what others have on an interface: a network on its link, or an address.
type foreign struct {
	prefix netip.Prefix
	link   string
}

// overlapFindings looks for networks on the node's links and for addresses of its
// interfaces that overlap the network's ranges and are not podnet's.
func (p *pass) overlapFindings(links []netlink.Link, ranges []netip.Prefix) ([]model.Finding, error) {
	others := map[int]string{}
	for _, l := range links {
		if a := l.Attrs(); !isOwn(a.Alias) && a.Name != probeLink {
			others[a.Index] = a.Name
		}
	}
	own, err := p.observeRoutes(model.RouteTable)
	if err != nil {
		return nil, err
	}
	addrs, err := p.allAddresses()
	if err != nil {
		return nil, err
	}
	var all []foreign
	for _, a := range addrs {
		addr := prefixOf(a.IPNet).Addr()
		name, ok := others[a.LinkIndex]
		// podnet's own address is on lo where there is no overlay.
		if !ok || name == "lo" && inOwnBlock(own, addr) {
			continue
		}
		all = append(all, foreign{netip.PrefixFrom(addr, addr.BitLen()), name})
	}
	for _, family := range families {
		routes, err := p.routes(family, mainTable)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			name, ok := others[onLink(r)]
			if ok && r.Type == unix.RTN_UNICAST && r.Protocol != model.RouteProtocol {
				all = append(all, foreign{prefixOf(r.Dst), name})
			}
		}
	}
	return overlapFinding(all, ranges), nil
}

// onLink returns the index of the interface on whose link a route's destination
// is, 0 where it is behind a gateway.
func onLink(r netlink.Route) int {
	for _, hop := range r.MultiPath {
		if hop.Gw == nil && hop.Via == nil {
			return hop.LinkIndex
		}
	}
	// A gateway of the other family is in Via (RFC 5549).
	if r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 {
		return r.LinkIndex
	}
	return 0
}

// overlapFinding makes one finding of what overlaps the ranges.
func overlapFinding(all []foreign, ranges []netip.Prefix) []model.Finding {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b foreign) int {
		return cmp.Or(model.ComparePrefix(a.prefix, b.prefix), strings.Compare(a.link, b.link))
	})
	// widest are the last prefixes by link that no other contains.
	widest := map[string]netip.Prefix{}
	var names []string
	var cidrs []netip.Prefix
	for _, f := range all {
		if !f.counts() {
			continue
		}
		// What a prefix contains is sorted after it: an interface's address after its network.
		if w, ok := widest[f.link]; ok && w.Overlaps(f.prefix) {
			continue
		}
		widest[f.link] = f.prefix
		i := slices.IndexFunc(ranges, f.prefix.Overlaps)
		if i < 0 {
			continue
		}
		names = append(names, fmt.Sprintf("%s on %s (range %s)", f.prefix, f.link, ranges[i]))
		if len(cidrs) < maxFindingCIDRs && !slices.Contains(cidrs, f.prefix) {
			cidrs = append(cidrs, f.prefix)
		}
	}
	if len(names) == 0 {
		return nil
	}
	found := finding(FindingRangeOverlap,
		"Interfaces of this node have networks or addresses that overlap the network's ranges: %s. An address of both leads from here "+
			"to the one or to the other: give the network another range and drain this one, or take them off the node.", shorten(names))
	found.CIDRs = cidrs
	return []model.Finding{found}
}

// counts says whether something can overlap a range. The manager tells of ranges
// with addresses that are local to every link or host. Default routes say nothing
// of what is behind them, nor do halves of one, which VPNs set to win over it.
func (f foreign) counts() bool {
	addr := f.prefix.Addr()
	return f.prefix.IsValid() && f.prefix.Bits() > 1 &&
		!addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !addr.IsMulticast()
}
