package ipam

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

const (
	// remembered is how many released addresses of a block are remembered at most,
	// so that a large block in which pods come and go costs bounded memory. It is
	// no bound for IPv4 blocks of up to /16.
	remembered = 1 << 16
	// patience is how many addresses the cursor passes at most for one candidate
	// while a released address would do.
	patience = 64
)

// NodeAddress returns the address of a block that the node itself has, on its
// VXLAN device: the block's base address.
func NodeAddress(block netip.Prefix) netip.Addr {
	return block.Masked().Addr()
}

// LinkGateway returns what pods that hang on a link of their own send to: the same on
// every node, and on every such link. The IPv4 one is of RFC 3927.
func LinkGateway(is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{169, 254, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 15: 1})
}

// GatewayAddress returns the address of a block that the node's bridge has under
// the Bridge attachment: the one after the base address. It is invalid for a
// block of a single address.
func GatewayAddress(block netip.Prefix) netip.Addr {
	gateway := NodeAddress(block).Next()
	if !block.Contains(gateway) {
		return netip.Addr{}
	}
	return gateway
}

// ProbeAddress returns the address of a block from which and to which paths are
// probed: the last one, and before it for IPv4, whose last one a bridge would take
// for its broadcast address. It is invalid for a block of fewer than 8 addresses,
// which has none to spare.
func ProbeAddress(block netip.Prefix) netip.Addr {
	if block.Addr().BitLen()-block.Bits() < probeBits {
		return netip.Addr{}
	}
	last := netipx.PrefixLastIP(block)
	if last.Is4() {
		return last.Prev()
	}
	return last
}

// probeBits is the number of bits that tell the addresses of the smallest block
// apart that has a probe's address.
const probeBits = 3

// Reserved reports whether addr is an address of the block that no pod gets: the
// node's, the gateway's, the probe's and, for IPv4, the last one, which a bridge
// would take for its broadcast address. An address outside the block is not reserved.
func Reserved(block netip.Prefix, addr netip.Addr) bool {
	if !block.Contains(addr) {
		return false
	}
	return addr == NodeAddress(block) || addr == GatewayAddress(block) || addr == ProbeAddress(block) ||
		addr.Is4() && addr == netipx.PrefixLastIP(block)
}

// AddressCount returns the number of addresses of a block that pods can have. It
// is math.MaxInt64 where there are more.
func AddressCount(block netip.Prefix) int64 {
	bits := block.Addr().BitLen() - block.Bits()
	if bits >= 63 {
		return math.MaxInt64
	}
	reserved := int64(2)
	if block.Addr().Is4() {
		reserved = 3
	}
	if bits >= probeBits {
		reserved++
	}
	return max(int64(1)<<bits-reserved, 0)
}

// Addresses hands out the addresses of one block that pods can have, each call in
// constant time, however large the block is and however many are in use. First
// come the addresses that were never used, by a cursor that walks through the
// block. Then come the released ones, in the order of their release.
//
// Of a block with more than 65,536 free addresses that were used before, those
// released first may be forgotten. The cursor finds them again when it comes by
// the next time.
//
// It is not safe for concurrent use.
type Addresses struct {
	block netip.Prefix
	// count is the number of addresses that pods can have, first the lowest of them.
	count int64
	first netip.Addr
	// cursor is the address that the cursor passed last; invalid before the first.
	cursor netip.Addr
	taken  map[netip.Addr]struct{}
	// free holds the free addresses that are remembered, and the number of the
	// release by which each is in the queue. Entries of other numbers are void.
	free   map[netip.Addr]uint64
	queue  releases
	number uint64
	// looks counts the addresses and entries that were looked at, for tests.
	looks int64
}

// Candidate is the address that is to be given next.
type Candidate struct {
	Addr netip.Addr
	// Released is when it was released. It is zero where it was never used, or so
	// long ago that it was forgotten: then giving it moves the cursor to it.
	Released time.Time
}

// NewAddresses returns the addresses of a block of which those in taken are in
// use. The cursor is the address up to which all were used before; one that is not
// of the block stands for its start. The free ones before the cursor count as
// released now, in the order of the addresses.
func NewAddresses(block netip.Prefix, cursor netip.Addr, taken []netip.Addr, now time.Time) *Addresses {
	a := &Addresses{
		block: block, count: AddressCount(block),
		taken: map[netip.Addr]struct{}{}, free: map[netip.Addr]uint64{},
	}
	if a.count == 0 {
		return a
	}
	a.first = GatewayAddress(block).Next()
	for _, addr := range taken {
		a.Take(addr)
	}
	if !block.Contains(cursor) || cursor.Less(a.first) {
		return a
	}
	a.cursor = cursor
	var free []netip.Addr
	for addr := cursor; !addr.Less(a.first) && len(free) < remembered; addr = addr.Prev() {
		if _, ok := a.taken[addr]; !ok && !Reserved(block, addr) {
			free = append(free, addr)
		}
	}
	for _, addr := range slices.Backward(free) {
		a.enqueue(addr, now)
	}
	return a
}

// Used returns how many addresses are in use.
func (a *Addresses) Used() int64 { return int64(len(a.taken)) }

// Next returns the address that is to be given next, and false where all are in
// use. It is in use once Take was called.
func (a *Addresses) Next() (Candidate, bool) {
	oldest, waits := a.oldest()
	// Neither in use nor remembered: never used, or forgotten.
	if unseen := a.count - int64(len(a.taken)) - int64(len(a.free)); unseen > 0 {
		for passed := 0; passed < patience || !waits; passed++ {
			next := a.following(a.cursor)
			if a.unseen(next) {
				return Candidate{Addr: next}, true
			}
			a.cursor = next
		}
	}
	return Candidate{Addr: oldest.addr, Released: oldest.at}, waits
}

// oldest returns the entry of the address that was released before all others.
func (a *Addresses) oldest() (release, bool) {
	for a.queue.len() > 0 {
		a.looks++
		entry := a.queue.front()
		if a.free[entry.addr] == entry.number {
			return entry, true
		}
		a.queue.pop()
	}
	return release{}, false
}

func (a *Addresses) unseen(addr netip.Addr) bool {
	a.looks++
	_, taken := a.taken[addr]
	_, free := a.free[addr]
	return !taken && !free
}

// following returns the address after addr that a pod can have, which is the
// first where addr is the last of them or none.
func (a *Addresses) following(addr netip.Addr) netip.Addr {
	next := addr.Next()
	if !a.block.Contains(next) || Reserved(a.block, next) {
		return a.first
	}
	return next
}

// Take makes an address one that is in use, usually the one that Next returned.
// It changes nothing where it is in use already, or no pod can have it.
func (a *Addresses) Take(addr netip.Addr) {
	if !a.usable(addr) {
		return
	}
	a.taken[addr] = struct{}{}
	delete(a.free, addr)
	if a.following(a.cursor) == addr {
		a.cursor = addr
	}
}

// Release makes an address one that was in use until now. It changes nothing
// where it is not in use.
func (a *Addresses) Release(addr netip.Addr, now time.Time) {
	if _, ok := a.taken[addr]; !ok {
		return
	}
	delete(a.taken, addr)
	a.enqueue(addr, now)
}

func (a *Addresses) usable(addr netip.Addr) bool {
	return a.count > 0 && a.block.Contains(addr) && !Reserved(a.block, addr)
}

// enqueue puts a free address at the end of the queue.
func (a *Addresses) enqueue(addr netip.Addr, now time.Time) {
	if a.queue.len() == remembered {
		a.looks++
		if dropped := a.queue.pop(); a.free[dropped.addr] == dropped.number {
			delete(a.free, dropped.addr)
		}
	}
	a.number++
	a.free[addr] = a.number
	a.queue.push(release{addr: addr, at: now, number: a.number})
}

// release is an entry of the queue of released addresses.
type release struct {
	addr   netip.Addr
	at     time.Time
	number uint64
}

// releases is a queue in a ring that grows as it needs. The zero value is empty.
type releases struct {
	ring []release
	head int
	used int
}

func (q *releases) len() int       { return q.used }
func (q *releases) front() release { return q.ring[q.head] }

func (q *releases) push(r release) {
	if q.used == len(q.ring) {
		ring := make([]release, max(2*len(q.ring), 16))
		copy(ring[copy(ring, q.ring[q.head:]):], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.used)%len(q.ring)] = r
	q.used++
}

func (q *releases) pop() release {
	r := q.ring[q.head]
	q.ring[q.head] = release{}
	q.head = (q.head + 1) % len(q.ring)
	q.used--
	return r
}
