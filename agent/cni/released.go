package cni

import (
	"errors"
	"net/netip"
	"slices"
	"time"
)

// maxRecent is how many released addresses a new agent knows the order of, besides
// those that have not been free for leastQuarantine. Those before them count as released when it starts.
const maxRecent = 128

// released is an address that was released.
type released struct {
	Addr netip.Addr `json:"addr"`
	At   time.Time  `json:"at"`
}

// noteReleased writes that addresses are about to be released. Where it cannot be
// written, as on a disk that is full, the addresses are released all the same, which
// makes room. The former note goes then, since it may report an earlier release of the
// same addresses: without a note all count as released when the next agent starts, and stay in
// quarantine the longer.
func (b *Book) noteReleased(addrs []netip.Addr) {
	recent := slices.Clone(b.recent)
	now := b.now()
	for _, addr := range addrs {
		// A release that is tried again is one.
		recent = slices.DeleteFunc(recent, func(r released) bool { return r.Addr == addr })
		recent = append(recent, released{Addr: addr, At: now})
	}
	over := 0
	for over < len(recent)-maxRecent && now.Sub(recent[over].At) >= leastQuarantine {
		over++
	}
	// Kept although it may not be written: the next note has it too.
	b.recent = recent[over:]
	if err := b.write(releasedName, b.recent); err != nil {
		err = errors.Join(err, b.disk.remove(b.path(releasedName)))
		b.info("cannot note the order in which addresses are released", "addresses", addrs, "reason", err.Error())
	}
}

// since returns a time of which now knows how long ago it was, also after the clock was
// set. One in the future, as from before the clock was set back, counts as now.
func since(at, now time.Time) time.Time {
	return now.Add(-max(now.Sub(at), 0))
}
