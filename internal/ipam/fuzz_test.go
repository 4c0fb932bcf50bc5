package ipam

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// objectName is what the API server accepts as a name (RFC 1123, a subdomain).
var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// blockOf returns the block that a name says it is of.
func blockOf(t *testing.T, name string) netip.Prefix {
	t.Helper()
	address, bits, _ := strings.Cut(name, "-")
	if digits, err := hex.DecodeString(address); err == nil && len(digits) == 16 {
		address = netip.AddrFrom16([16]byte(digits)).String()
	}
	block, err := netip.ParsePrefix(address + "/" + bits)
	if err != nil {
		t.Fatalf("%q names no block: %v", name, err)
	}
	return block
}

// FuzzNameOfBlock checks that every block of either family has a name that an
// object may have, and that this name means that block and no other.
func FuzzNameOfBlock(f *testing.F) {
	f.Add([]byte{10, 244, 3, 0}, uint8(24))
	f.Add([]byte{0, 0, 0, 0}, uint8(0))
	f.Add(netip.MustParseAddr("fd00::1:0:0:0").AsSlice(), uint8(128))
	f.Add(netip.MustParseAddr("::ffff:10.0.0.0").AsSlice(), uint8(120))
	f.Fuzz(func(t *testing.T, raw []byte, bits uint8) {
		addr, valid := netip.AddrFromSlice(raw)
		if !valid {
			return
		}
		block := netip.PrefixFrom(addr, int(bits))
		name, err := BlockName(block)
		if proper := block.IsValid() && block == block.Masked() && !addr.Is4In6(); proper != (err == nil) {
			t.Fatalf("BlockName(%v) = %q, %v", block, name, err)
		}
		if err != nil {
			return
		}
		if !objectName.MatchString(name) || len(name) > 253 {
			t.Errorf("the name of %v is %q, which no object may have", block, name)
		}
		if back := blockOf(t, name); back != block {
			t.Errorf("%q, the name of %v, is that of %v too", name, block, back)
		}
	})
}

// FuzzTaken drives Taken through any changes and compares it, after each, with a
// list of the prefixes that is searched block by block.
func FuzzTaken(f *testing.F) {
	f.Add([]byte{10, 244, 0, 0}, uint8(16), uint8(8), []byte{0, 0, 0, 0, 0, 1, 1, 0, 0})
	f.Add([]byte{255, 255, 255, 0}, uint8(24), uint8(8), []byte{0, 0, 255, 0, 255, 3, 1, 0, 0, 1, 0, 0})
	f.Add(netip.MustParseAddr("fd00:0:0:ff00::").AsSlice(), uint8(60), uint8(8), []byte{0, 0, 9, 0, 2, 9, 0, 250, 9, 2, 0, 0})
	f.Add(netip.MustParseAddr("fd00::").AsSlice(), uint8(120), uint8(8), []byte{0, 0, 1, 0, 0, 1, 2, 0, 0, 1, 0, 0})
	f.Add(netip.MustParseAddr("fd00::").AsSlice(), uint8(0), uint8(1), []byte{0, 127, 255, 2, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte, bits, more uint8, changes []byte) {
		addr, valid := netip.AddrFromSlice(raw)
		if !valid || addr.Is4In6() || int(bits) > addr.BitLen() || len(changes) > 300 {
			return
		}
		// At most 256 blocks, so that they can be counted one by one.
		r := Range{netip.PrefixFrom(addr, int(bits)).Masked(), min(addr.BitLen(), int(bits)+int(more%9))}
		var taken Taken
		var list []netip.Prefix
		for change := range slices.Chunk(changes, 3) {
			if len(change) < 3 {
				break
			}
			switch {
			case change[0]%3 == 1 && len(list) > 0:
				i := int(change[2]) % len(list)
				taken.GiveBack(list[i])
				list = slices.Delete(list, i, i+1)
			case change[0]%3 == 2:
				if block, found := taken.Next(r); found {
					taken.Take(block)
					list = append(list, block)
				}
			default:
				p := prefixNear(r, int(int8(change[1])), change[2])
				taken.Take(p)
				list = append(list, p)
			}
			expectModel(t, &taken, r, list)
		}
		for _, p := range list {
			taken.GiveBack(p)
		}
		if taken.v4 != nil || taken.v6 != nil {
			t.Errorf("memory stays after everything was given back")
		}
	})
}

// expectModel compares Taken with a list of the prefixes that are taken.
func expectModel(t *testing.T, taken *Taken, r Range, list []netip.Prefix) {
	t.Helper()
	var lowest netip.Prefix
	var free int64
	for i := range 1 << (r.BlockBits - r.CIDR.Bits()) {
		block := nthBlock(r, i)
		if slices.ContainsFunc(list, block.Overlaps) {
			continue
		}
		if free++; free == 1 {
			lowest = block
		}
	}
	next, found := taken.Next(r)
	if found != (free > 0) || next != lowest || taken.Free(r) != free {
		t.Fatalf("%v without %v: Next = %v, %v and Free = %d; want %v and %d", r, list, next, found, taken.Free(r), lowest, free)
	}
}

// nthBlock is a block of a range by its number, computed with large integers.
func nthBlock(r Range, n int) netip.Prefix {
	addr := r.CIDR.Addr()
	sum := new(big.Int).SetBytes(addr.AsSlice())
	sum.Add(sum, new(big.Int).Lsh(big.NewInt(int64(n)), uint(addr.BitLen()-r.BlockBits)))
	out, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, addr.BitLen()/8)))
	return netip.PrefixFrom(out, r.BlockBits)
}

// prefixNear is a prefix that is longer than the range's blocks by so many bits,
// or shorter, at one of the blocks, or next to the range where that is all there is.
func prefixNear(r Range, longer int, number byte) netip.Prefix {
	addr := r.CIDR.Addr()
	blocks := 1 << (r.BlockBits - r.CIDR.Bits())
	if int(number) < blocks {
		addr = nthBlock(r, int(number)).Addr()
	} else if before := addr.Prev(); number%2 == 0 && before.IsValid() {
		addr = before
	}
	return netip.PrefixFrom(addr, max(0, min(addr.BitLen(), r.BlockBits+longer))).Masked()
}

// FuzzConflicts compares Conflicts with going through the Subnets from the oldest
// to the youngest, and checks that the order in which they come changes nothing.
func FuzzConflicts(f *testing.F) {
	f.Add([]byte{0, 24, 1, 0, 25, 0, 0, 22, 2}, uint64(1))
	f.Add([]byte{0x80, 64, 1, 0x80, 128, 1, 0xff, 48, 0, 0x7f, 32, 0}, uint64(2))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		if len(raw) > 180 {
			return
		}
		ranges := prefixes("10.0.0.0/26", "10.0.0.128/25", "fd00::/124", "fd00::20/123")
		subnets := subnetsFrom(raw)
		conflicts := Conflicts(slices.Clone(subnets), ranges)
		random := rand.New(rand.NewPCG(seed, 1))
		random.Shuffle(len(subnets), func(i, j int) { subnets[i], subnets[j] = subnets[j], subnets[i] })
		if other := Conflicts(subnets, ranges); !slices.Equal(conflicts, other) {
			t.Fatalf("%v: %v in one order, %v in another", subnets, conflicts, other)
		}

		slices.SortFunc(subnets, func(a, b Subnet) int {
			return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
		})
		var served []Subnet
		refused := map[string]Conflict{}
		for _, c := range conflicts {
			refused[c.Refused.Name] = c
		}
		for _, s := range subnets {
			c, isRefused := refused[s.Name]
			within := slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(s.CIDR.Addr()) && r.Bits() <= s.CIDR.Bits() })
			overlaps := slices.ContainsFunc(served, func(o Subnet) bool { return o.CIDR.Overlaps(s.CIDR) })
			if isRefused != (!within || overlaps) || isRefused && c.Outside() != !within {
				t.Fatalf("%v is refused: %v (%v); within a range: %v, served before it: %v", s, isRefused, c, within, served)
			}
			if isRefused && within && !(slices.Contains(served, c.With) && c.With.CIDR.Overlaps(s.CIDR)) {
				t.Fatalf("%v names as the reason one that is not served, or does not overlap; served: %v", c, served)
			}
			if !isRefused {
				served = append(served, s)
			}
		}
	})
}

// subnetsFrom makes a Subnet of each three bytes: where it is and of which
// family, its length, its age.
func subnetsFrom(raw []byte) []Subnet {
	var out []Subnet
	for b := range slices.Chunk(raw, 3) {
		if len(b) < 3 {
			break
		}
		addr := netip.AddrFrom4([4]byte{10, 0, 0, b[0] << 1})
		if b[0] >= 0x80 {
			v6 := netip.MustParseAddr("fd00::").As16()
			v6[15] = b[0] & 0x7f
			addr = netip.AddrFrom16(v6)
		}
		// Short prefixes are rare, or little else would be within a range.
		bits := addr.BitLen() - int(b[1]%8)
		if b[1] >= 0xf0 {
			bits = addr.BitLen() - int(b[1]-0xf0)
		}
		out = append(out, Subnet{
			Name: fmt.Sprintf("s%02d", len(out)), CIDR: netip.PrefixFrom(addr, bits).Masked(), Created: time.Unix(int64(b[2]%4), 0),
		})
	}
	return out
}
