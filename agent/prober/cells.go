package prober

import "net/netip"

// cells finds the blocks that an address may stand for: the kernel notes addresses up
// to the length of the network's smallest blocks, of which a block may hold several,
// and of which several blocks that were made by hand may share one.
type cells struct {
	byPrefix map[netip.Prefix][]*target
	// lengths are those that occur.
	lengths map[int]bool
}

func newCells(targets map[netip.Prefix]*target) cells {
	c := cells{byPrefix: make(map[netip.Prefix][]*target, len(targets)), lengths: map[int]bool{}}
	for block, t := range targets {
		c.byPrefix[block] = append(c.byPrefix[block], t)
		c.lengths[block.Bits()] = true
	}
	return c
}

func (c cells) of(a netip.Addr) []*target {
	var found []*target
	for bits := range c.lengths {
		if p, err := a.Prefix(bits); err == nil {
			found = append(found, c.byPrefix[p]...)
		}
	}
	return found
}
