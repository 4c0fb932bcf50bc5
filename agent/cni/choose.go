package cni

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podnet/podnet/internal/ipam"
)

// choose returns the address of the blocks of one family that comes next, whether or
// not its quarantine is over, and false where all are in use.
func (b *Book) choose(blocks []netip.Prefix) (block netip.Prefix, best ipam.Candidate, found bool) {
	now := b.now()
	for _, prefix := range blocks {
		candidate, ok := b.addresses(prefix).Next()
		switch {
		case !ok:
		case candidate.Released.IsZero() || now.Sub(candidate.Released) >= quarantine:
			return prefix, candidate, true
		case !found || candidate.Released.Before(best.Released):
			block, best, found = prefix, candidate, true
		}
	}
	return block, best, found
}

// quarantined returns for how long yet an address is in quarantine; 0 where it can be given.
func (b *Book) quarantined(candidate ipam.Candidate) time.Duration {
	if candidate.Released.IsZero() {
		return 0
	}
	return max(leastQuarantine-b.now().Sub(candidate.Released), 0)
}

// addresses returns what is known of a block's addresses.
func (b *Book) addresses(block netip.Prefix) *ipam.Addresses {
	if known := b.blocks[block]; known != nil {
		return known
	}
	var taken []netip.Addr
	for addr := range b.holders {
		if block.Contains(addr) {
			taken = append(taken, addr)
		}
	}
	// Without order, addresses that the cursor did not reach would move it at random.
	slices.SortFunc(taken, netip.Addr.Compare)
	known := ipam.NewAddresses(block, b.cursors[block], taken, b.opened)
	for _, r := range b.recent {
		if b.holders[r.Addr] == 0 {
			known.Take(r.Addr)
			known.Release(r.Addr, r.At)
		}
	}
	b.blocks[block] = known
	return known
}

// byFamily splits blocks by family, in the order in which the families appear.
func byFamily(blocks []netip.Prefix) [][]netip.Prefix {
	var families [][]netip.Prefix
	for _, block := range blocks {
		i := slices.IndexFunc(families, func(f []netip.Prefix) bool { return f[0].Addr().Is4() == block.Addr().Is4() })
		if i < 0 {
			families = append(families, nil)
			i = len(families) - 1
		}
		families[i] = append(families[i], block)
	}
	return families
}

// onlyNewRanges is why a node gets no further block where nobody says another.
const onlyNewRanges = "a larger nodePrefixLength is for new ranges only"

// allInUse is the sentence for a family none of whose blocks has an address left,
// and for what reason the node has no further block.
func allInUse(blocks []netip.Prefix, reason string) string {
	names, count := namesOf(blocks)
	return fmt.Sprintf("all %d addresses of %s are in use: pods wait until others of this node have gone; %s, %s",
		count, names, reason, describeNetwork)
}

// allQuarantined is the sentence for a family whose free addresses are all in quarantine.
func allQuarantined(blocks []netip.Prefix) string {
	names, _ := namesOf(blocks)
	return fmt.Sprintf("every free address of %s was released less than %s ago: pods wait until one has been free that long; "+
		"a larger nodeBlocks.reserve keeps more of them free, %s", names, leastQuarantine, describeNetwork)
}

// namesOf names blocks, and counts the addresses that pods can have of them.
func namesOf(blocks []netip.Prefix) (names string, count int64) {
	texts := make([]string, 0, len(blocks))
	for _, block := range blocks {
		texts = append(texts, block.String())
		count = ipam.Sum(count, ipam.AddressCount(block))
	}
	noun := "block"
	if len(blocks) > 1 {
		noun = "blocks"
	}
	return noun + " " + strings.Join(texts, ", "), count
}
