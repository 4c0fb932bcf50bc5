package prober

import "net/netip"

// cells finds the blocks that an address may stand for: the kernel notes addresses up
// to the length of the network's smallest blocks, of which a block may hold several,
// and of which several blocks that were made by hand may share one.
type cells struct {
	byPrefix map[netip.Prefix][]*target
	// lengths are those of addresses and prefixes that occur.
	lengths map[[2]int]bool
}

func newCells(targets map[netip.Prefix]*target) cells {
	c := cells{byPrefix: make(map[netip.Prefix][]*target, len(targets)), lengths: map[[2]int]bool{}}
	for _, t := range targets {
		c.byPrefix[t.Cell] = append(c.byPrefix[t.Cell], t)
		c.lengths[[2]int{t.Cell.Addr().BitLen(), t.Cell.Bits()}] = true
	}
	return c
}

func (c cells) of(a netip.Addr) []*target {
	var found []*target
	for length := range c.lengths {
		if length[0] != a.BitLen() {
			continue
		}
		if p, err := a.Prefix(length[1]); err == nil {
			found = append(found, c.byPrefix[p]...)
		}
	}
	return found
}
