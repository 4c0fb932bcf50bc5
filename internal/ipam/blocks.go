package ipam

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
)

// DefaultBlockBits is the prefix length of a block where its range names none.
func DefaultBlockBits(is4 bool) int {
	if is4 {
		return 24
	}
	return 64
}

// Range is a range of addresses that is given out in blocks of one size.
type Range struct {
	CIDR netip.Prefix
	// BlockBits is the prefix length of a block: at least that of CIDR.
	BlockBits int
}

// Validate says what keeps blocks from being counted in the range.
func (r Range) Validate() error {
	switch {
	case !r.CIDR.IsValid():
		return errors.New("the range has no valid CIDR")
	case r.CIDR != r.CIDR.Masked():
		return fmt.Errorf("%s has bits set beyond its prefix length", r.CIDR)
	case r.BlockBits < r.CIDR.Bits():
		return fmt.Errorf("a block of /%d is larger than the range %s", r.BlockBits, r.CIDR)
	case r.BlockBits > r.CIDR.Addr().BitLen():
		return fmt.Errorf("%s has no blocks of /%d", r.CIDR, r.BlockBits)
	}
	return nil
}

// Total is the number of blocks of the range; more than MaxInt64 count as MaxInt64.
func (r Range) Total() int64 {
	return blocksBetween(r.CIDR.Bits(), r.BlockBits)
}

// blocksBetween is the number of prefixes of the length block in one of the length bits.
func blocksBetween(bits, block int) int64 {
	if block-bits >= 63 {
		return math.MaxInt64
	}
	return 1 << (block - bits)
}

// BlockName is the name of the NodeSubnet of a block: 10.244.3.0-24, and for
// IPv6 all 32 digits of the address without colons. Equal blocks, and no others,
// have equal names, which makes creating the object the lock on the block.
func BlockName(block netip.Prefix) (string, error) {
	if !block.IsValid() || block != block.Masked() || block.Addr().Is4In6() {
		return "", fmt.Errorf("%s is no block: it is invalid or has bits set beyond its prefix length", block)
	}
	suffix := "-" + strconv.Itoa(block.Bits())
	if block.Addr().Is4() {
		return block.Addr().String() + suffix, nil
	}
	digits := block.Addr().As16()
	return hex.EncodeToString(digits[:]) + suffix, nil
}

// Taken is a set of prefixes of both families that are taken, of whatever
// length, and finds what is free between them. Its size grows with the number of
// prefixes taken, not with that of the ranges' blocks, and taking, giving back
// and finding the next one cost steps in the number of an address's bits. The
// zero value is empty. It is not safe for concurrent use.
type Taken struct {
	v4, v6 *region
}

// region is a prefix of the address space as a node of a binary tree; a nil
// region is free as a whole.
type region struct {
	low, high *region
	// holders is how often exactly this prefix is taken.
	holders int
	// free is the length of the largest free prefix inside, or noneFree.
	free int
}

// noneFree is longer than every prefix.
const noneFree = 129

func (t *Taken) root(is4 bool) **region {
	if is4 {
		return &t.v4
	}
	return &t.v6
}

// Take adds a prefix. A prefix taken twice has to be given back twice.
func (t *Taken) Take(p netip.Prefix) {
	root := t.root(p.Addr().Is4())
	*root = (*root).change(p, 0, 1)
}

// GiveBack takes away a prefix that was taken; of another it changes nothing.
func (t *Taken) GiveBack(p netip.Prefix) {
	root := t.root(p.Addr().Is4())
	*root = (*root).change(p, 0, -1)
}

// change adds by to the holders of p, which lies in the region of the length
// depth, and returns the region as it is then.
func (g *region) change(p netip.Prefix, depth, by int) *region {
	if g == nil {
		if by < 0 {
			return nil
		}
		g = &region{}
	}
	switch {
	case depth == p.Bits():
		g.holders = max(0, g.holders+by)
	case bit(p.Addr(), depth):
		g.high = g.high.change(p, depth+1, by)
	default:
		g.low = g.low.change(p, depth+1, by)
	}
	if g.holders == 0 && g.low == nil && g.high == nil {
		return nil
	}
	g.free = noneFree
	if g.holders == 0 {
		g.free = min(g.low.largestFree(depth+1), g.high.largestFree(depth+1))
	}
	return g
}

// largestFree is the length of the largest free prefix in the region of the length depth.
func (g *region) largestFree(depth int) int {
	if g == nil {
		return depth
	}
	return g.free
}

// Next returns the lowest block of a range that overlaps nothing taken, and
// whether there is one. An invalid range has none.
func (t *Taken) Next(r Range) (netip.Prefix, bool) {
	if r.Validate() != nil {
		return netip.Prefix{}, false
	}
	g, covered := (*t.root(r.CIDR.Addr().Is4())).descend(r.CIDR)
	depth := r.CIDR.Bits()
	if covered || g.largestFree(depth) > r.BlockBits {
		return netip.Prefix{}, false
	}
	raw := r.CIDR.Addr().AsSlice()
	for g != nil {
		depth++
		if g.low.largestFree(depth) <= r.BlockBits {
			g = g.low
			continue
		}
		raw[(depth-1)/8] |= 0x80 >> ((depth - 1) % 8)
		g = g.high
	}
	first, _ := netip.AddrFromSlice(raw)
	return netip.PrefixFrom(first, r.BlockBits), true
}

// Overlaps reports whether something taken overlaps p.
func (t *Taken) Overlaps(p netip.Prefix) bool {
	g, covered := (*t.root(p.Addr().Is4())).descend(p)
	return covered || g != nil
}

// descend returns the region of p, and whether something taken contains p. A
// region that p is taken itself is returned as covered, too.
func (g *region) descend(p netip.Prefix) (at *region, covered bool) {
	for depth := 0; g != nil; depth++ {
		if g.holders > 0 {
			return g, true
		}
		if depth == p.Bits() {
			return g, false
		}
		if bit(p.Addr(), depth) {
			g = g.high
		} else {
			g = g.low
		}
	}
	return nil, false
}

// Free is the number of blocks of a range that overlap nothing taken; more than
// MaxInt64 count as MaxInt64. It costs steps in the number of prefixes taken.
func (t *Taken) Free(r Range) int64 {
	if r.Validate() != nil {
		return 0
	}
	g, covered := (*t.root(r.CIDR.Addr().Is4())).descend(r.CIDR)
	if covered {
		return 0
	}
	return g.countFree(r.CIDR.Bits(), r.BlockBits)
}

// countFree counts the free blocks of the length block in the region of the length depth.
func (g *region) countFree(depth, block int) int64 {
	switch {
	case g == nil:
		return blocksBetween(depth, block)
	case g.free > block:
		return 0
	}
	return Sum(g.low.countFree(depth+1, block), g.high.countFree(depth+1, block))
}

// Sum is the sum of two counts, none of them negative, at most MaxInt64.
func Sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// bit is the bit of an address at a position counted from its most significant one.
func bit(a netip.Addr, position int) bool {
	if a.Is4() {
		raw := a.As4()
		return raw[position/8]&(0x80>>(position%8)) != 0
	}
	raw := a.As16()
	return raw[position/8]&(0x80>>(position%8)) != 0
}
