package host

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/agent/kernel"
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
func overlapFindings(v kernel.View, ranges []netip.Prefix) []model.Finding {
	others := map[string]bool{}
	var all []foreign
	for _, l := range v.Links {
		if l.Own || l.Name == probeLink {
			continue
		}
		others[l.Name] = true
		for _, a := range l.Addrs {
			// podnet's own address is on lo where there is no overlay.
			if l.Name != "lo" || !v.InOwnBlock(a.Addr()) {
				all = append(all, foreign{netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), l.Name})
			}
		}
	}
	for _, r := range v.Routes {
		if others[r.Link] && !r.Via.IsValid() {
			all = append(all, foreign{r.Dst, r.Link})
		}
	}
	return overlapFinding(all, ranges)
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

// counts reports whether something can overlap a range. The manager reports ranges
// with addresses that are local to every link or host. Default routes say nothing
// of what is behind them, nor do halves of one, which VPNs set to win over it.
func (f foreign) counts() bool {
	addr := f.prefix.Addr()
	return f.prefix.IsValid() && f.prefix.Bits() > 1 &&
		!addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !addr.IsMulticast()
}
