package cni

import (
	"net/netip"
	"slices"
	"time"
)

// maxRecent is how many released addresses a new agent knows the order of. Those
// before them count as released when it starts.
const maxRecent = 128

// released is an address that was released.
type released struct {
	Addr netip.Addr `json:"addr"`
	At   time.Time  `json:"at"`
}

// noteReleased writes that addresses are about to be released. Where it cannot be
// written, as on a disk that is full, the addresses are released all the same, which
// makes room: without a note they count as released when the next agent starts, and
// rest the longer.
func (b *Book) noteReleased(addrs []netip.Addr) {
	recent := slices.Clone(b.recent)
	now := b.now()
	for _, addr := range addrs {
		// A release that is tried again is one.
		recent = slices.DeleteFunc(recent, func(r released) bool { return r.Addr == addr })
		recent = append(recent, released{Addr: addr, At: now})
	}
	// Kept although it may not be written: the next note has it too.
	b.recent = recent[max(0, len(recent)-maxRecent):]
	if err := b.write(releasedName, b.recent); err != nil {
		b.info("cannot note the order in which addresses are released", "addresses", addrs, "reason", err.Error())
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
