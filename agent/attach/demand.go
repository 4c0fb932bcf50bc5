package attach

import "sync"

// Demand counts the ADDs that wait for an address, by family (IPv4, IPv6). One that waits
// for both counts twice. The zero value is ready.
type Demand struct {
	mu      sync.Mutex
	waiting [2]int64
}

// Move moves one ADD from the families that it waited for to others, and reports whether
// that changes a count.
func (d *Demand) Move(from, to [2]bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for family := range d.waiting {
		if from[family] {
			d.waiting[family]--
		}
		if to[family] {
			d.waiting[family]++
		}
	}
	return from != to
}

// Waiting returns how many ADDs wait for an address of IPv4 and of IPv6. One for which an
// address is in quarantine counts too: the manager counts that address as free, so that the node gets
// no other block for it.
func (d *Demand) Waiting() [2]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting
}
