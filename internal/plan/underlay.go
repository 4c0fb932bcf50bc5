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
	lengths model.PerFamily[[]int]
	// routes are the next hops to each destination that are in use, those of its lowest
	// metric, the one that is taken first.
	routes map[netip.Prefix][]model.UnderlayRoute
}

func newUnderlay(routes []model.UnderlayRoute) underlay {
	u := underlay{routes: make(map[netip.Prefix][]model.UnderlayRoute, len(routes))}
	var seen model.PerFamily[[129]bool]
	for _, r := range routes {
		dst := r.Dst.Masked()
		hops := u.routes[dst]
		switch {
		case len(hops) == 0 || r.Metric < hops[0].Metric:
			u.routes[dst] = []model.UnderlayRoute{r}
		case r.Metric > hops[0].Metric:
			continue
		default:
			i, _ := slices.BinarySearchFunc(hops, r, compareUnderlay)
			u.routes[dst] = slices.Insert(hops, i, r)
		}
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

// lookup returns the next hops of the route with the longest prefix that holds the
// address; none where there is no such route. podnet's routes take the first: to name
// all would make them others whenever one of them goes.
func (u underlay) lookup(a netip.Addr) []model.UnderlayRoute {
	if !a.IsValid() {
		return nil
	}
	for _, bits := range u.lengths.Of(a) {
		if hops := u.routes[netip.PrefixFrom(a, bits).Masked()]; len(hops) > 0 {
			return hops
		}
	}
	return nil
}
