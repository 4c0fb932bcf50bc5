package cni

import (
	"net/netip"
	"slices"
)

// UsageByBlock returns how many addresses are in use of each block of which any
// is, those of pods that are being attached or detached included. An address
// whose record is damaged counts for the one of held that it lies in.
func (b *Book) UsageByBlock(held []netip.Prefix) map[netip.Prefix]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	used := map[netip.Prefix]int64{}
	for _, e := range b.pods {
		for _, block := range e.pod.Blocks {
			used[block]++
		}
	}
	for _, addrs := range b.damaged {
		for _, addr := range addrs {
			if i := slices.IndexFunc(held, func(p netip.Prefix) bool { return p.Contains(addr) }); i >= 0 {
				used[held[i]]++
			}
		}
	}
	return used
}
