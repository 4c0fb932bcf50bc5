package policy

import (
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// bits is a set of indices of peers.
type bits []uint64

const wordBits = 64

func newBits(n int) bits { return make(bits, (n+wordBits-1)/wordBits) }

func (b bits) set(i int)      { b[i/wordBits] |= 1 << (i % wordBits) }
func (b bits) clear(i int)    { b[i/wordBits] &^= 1 << (i % wordBits) }
func (b bits) has(i int) bool { return b[i/wordBits]&(1<<(i%wordBits)) != 0 }

// union returns what is in one of two sets. It may be one of them: nobody changes
// a set that others see.
func (b bits) union(c bits) bits {
	if c == nil {
		return b
	}
	if b == nil {
		return c
	}
	out := slices.Clone(b)
	for i := range c {
		out[i] |= c[i]
	}
	return out
}

// with returns the set, of n indices, with one more.
func (b bits) with(i, n int) bits {
	out := newBits(n)
	copy(out, b)
	out.set(i)
	return out
}

// without returns the set without an index.
func (b bits) without(i int) bits {
	if b == nil || !b.has(i) {
		return b
	}
	out := slices.Clone(b)
	out.clear(i)
	return out
}

func (b bits) empty() bool { return !slices.ContainsFunc(b, func(w uint64) bool { return w != 0 }) }

// key tells the set from others of the same length.
func (b bits) key() string {
	key := make([]byte, 0, 8*len(b))
	for _, w := range b {
		for shift := 0; shift < wordBits; shift += 8 {
			key = append(key, byte(w>>shift))
		}
	}
	return string(key)
}

// segment is a range of addresses that are in the blocks of the same peers.
type segment struct {
	netipx.IPRange
	peers bits
}

// segmentsOf cuts the addresses of a family into segments, which are sorted and do
// not overlap. What is in no block is in none.
func segmentsOf(all []*peers, is4 bool) []segment {
	type event struct {
		at   netip.Addr
		peer int
		ends bool
	}
	var events []event
	for i, p := range all {
		if p.blocks == nil {
			continue
		}
		for _, r := range p.blocks.Ranges() {
			if r.From().Is4() != is4 {
				continue
			}
			events = append(events, event{r.From(), i, false})
			// After the last address of a family there is none to end at.
			if next := r.To().Next(); next.IsValid() {
				events = append(events, event{next, i, true})
			}
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	var out []segment
	current := newBits(len(all))
	for i := 0; i < len(events); {
		at := events[i].at
		for ; i < len(events) && events[i].at == at; i++ {
			if events[i].ends {
				current.clear(events[i].peer)
			} else {
				current.set(events[i].peer)
			}
		}
		last := lastOf(is4)
		if i < len(events) {
			last = events[i].at.Prev()
		}
		if !current.empty() {
			out = append(out, segment{netipx.IPRangeFrom(at, last), slices.Clone(current)})
		}
	}
	return out
}

// lastOf is the last address of a family.
func lastOf(is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return netipx.PrefixLastIP(everything[1])
}

// peersAt returns the peers whose blocks hold an address; nil for none.
func peersAt(segments []segment, a netip.Addr) bits {
	i, _ := slices.BinarySearchFunc(segments, a, func(s segment, a netip.Addr) int { return s.To().Compare(a) })
	if i < len(segments) && segments[i].Contains(a) {
		return segments[i].peers
	}
	return nil
}
