package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// underlay finds the node's own route to an address, in a time that does not
// depend on how many routes there are: nodes that speak BGP have many.
type underlay struct {
	// lengths are the prefix lengths that occur, by family, the longest first.
	lengths [2][]int
	routes  map[netip.Prefix]model.UnderlayRoute
}

func newUnderlay(routes []model.UnderlayRoute) underlay {
	u := underlay{routes: make(map[netip.Prefix]model.UnderlayRoute, len(routes))}
	var seen [2][129]bool
	for _, r := range routes {
		dst := r.Dst.Masked()
		if better, ok := u.routes[dst]; ok && compareUnderlay(better, r) <= 0 {
			continue
		}
		u.routes[dst] = r
		if i := model.FamilyIndex(dst.Addr()); !seen[i][dst.Bits()] {
			seen[i][dst.Bits()] = true
			u.lengths[i] = append(u.lengths[i], dst.Bits())
		}
	}
	for i := range u.lengths {
		slices.SortFunc(u.lengths[i], func(a, b int) int { return cmp.Compare(b, a) })
	}
	return u
}

// compareUnderlay orders routes of one destination as the kernel does, by their
// metric; the rest makes the choice independent of their order.
func compareUnderlay(a, b model.UnderlayRoute) int {
	return cmp.Or(cmp.Compare(a.Metric, b.Metric), strings.Compare(a.Link, b.Link), a.Via.Compare(b.Via))
}

// lookup returns the route with the longest prefix that holds the address.
func (u underlay) lookup(a netip.Addr) (model.UnderlayRoute, bool) {
	if !a.IsValid() {
		return model.UnderlayRoute{}, false
	}
	for _, bits := range u.lengths[model.FamilyIndex(a)] {
		if r, ok := u.routes[netip.PrefixFrom(a, bits).Masked()]; ok {
			return r, true
		}
	}
	return model.UnderlayRoute{}, false
}
