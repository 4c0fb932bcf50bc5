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

// noteReleased writes that addresses are about to be released.
func (b *Book) noteReleased(addrs []netip.Addr) error {
	recent := slices.Clone(b.recent)
	now := b.now()
	for _, addr := range addrs {
		// A release that is tried again is one.
		recent = slices.DeleteFunc(recent, func(r released) bool { return r.Addr == addr })
		recent = append(recent, released{Addr: addr, At: now})
	}
	recent = recent[max(0, len(recent)-maxRecent):]
	if err := b.write(releasedName, recent); err != nil {
		return err
	}
	b.recent = recent
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
