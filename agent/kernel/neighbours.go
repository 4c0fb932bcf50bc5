package kernel

import (
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

var neighbourKind = kind{
	of:   model.KindNeighbour,
	find: finding(func(s *model.State) *[]model.Neighbour { return &s.Neighbours }, (*pass).observeNeighbours),
	put:  by((*pass).putNeighbour),
	take: by((*pass).deleteNeighbour),
	news: neighbourNews,
}

// neighbourNews report neighbours and forwarding entries.
var neighbourNews = news{groups: []uint{unix.RTNLGRP_NEIGH}, added: unix.RTM_NEWNEIGH, read: (*watcher).neighbour}

// putNeighbour makes a permanent entry. One of IPv6 is marked as a router, as those
// are that routes lead to, and it makes no difference to others: from a gateway
// that is not, the kernel takes what it has learned of the path's MTU away at its
// next collection of garbage, within 30 seconds and not 10 minutes
// (rt6_age_examine_exception in net/ipv6/route.c).
func (p *pass) putNeighbour(want model.Neighbour) error {
	index, err := p.index(want.Link)
	if err != nil {
		return err
	}
	neighbour := &netlink.Neigh{
		LinkIndex: index, Family: familyOf(want.Addr.Is4()), State: netlink.NUD_PERMANENT,
		IP: want.Addr.AsSlice(), HardwareAddr: want.MAC[:],
	}
	if want.Addr.Is6() {
		neighbour.Flags = netlink.NTF_ROUTER
	}
	return p.h.NeighSet(neighbour)
}

func (p *pass) deleteNeighbour(gone model.Neighbour) error {
	index, err := p.index(gone.Link)
	if err == nil {
		err = p.h.NeighDel(&netlink.Neigh{
			LinkIndex: index, Family: familyOf(gone.Addr.Is4()), State: netlink.NUD_PERMANENT, IP: gone.Addr.AsSlice(),
		})
	}
	if isGone(err) {
		return nil
	}
	return err
}

// observeNeighbours finds the permanent neighbours on podnet's links, those of pods included.
func (p *pass) observeNeighbours() ([]model.Neighbour, error) {
	var have []model.Neighbour
	for _, family := range families {
		neighbours, err := p.neighbours(family)
		if err != nil {
			return nil, err
		}
		for _, n := range neighbours {
			l, ok := p.byIndex[n.LinkIndex]
			if !ok || !isOwn(l.Attrs().Alias) || n.State&netlink.NUD_PERMANENT == 0 || n.Flags&netlink.NTF_PROXY != 0 {
				continue
			}
			mac, ok := macOf(n.HardwareAddr)
			if !ok {
				continue
			}
			have = append(have, model.Neighbour{Link: l.Attrs().Name, Addr: addrOf(n.IP), MAC: mac})
		}
	}
	return have, nil
}

// neighbour reads a neighbour on one of podnet's links, or an entry in the
// forwarding table of a VXLAN device. One that is no longer permanent is gone.
func (w *watcher) neighbour(m syscall.NetlinkMessage, gone bool) error {
	data := m.Data
	n, err := netlink.NeighDeserialize(data)
	if err != nil {
		return err
	}
	l, ok := w.p.byIndex[n.LinkIndex]
	if !ok || !isOwn(l.Attrs().Alias) || n.Flags&netlink.NTF_PROXY != 0 {
		return nil
	}
	gone = gone || n.State&netlink.NUD_PERMANENT == 0
	mac, hasMAC := macOf(n.HardwareAddr)
	switch n.Family {
	case unix.AF_BRIDGE:
		if l.Type() == string(model.LinkVXLAN) && n.Flags&netlink.NTF_SELF != 0 && mac != (model.MAC{}) {
			w.seen(diff.Sighting{Object: model.FDBEntry{Link: l.Attrs().Name, MAC: mac, Endpoint: addrOf(n.IP)}, Gone: gone})
		}
	case unix.AF_INET, unix.AF_INET6:
		if hasMAC || gone {
			w.seen(diff.Sighting{Object: model.Neighbour{Link: l.Attrs().Name, Addr: addrOf(n.IP), MAC: mac}, Gone: gone})
		}
	}
	return nil
}
