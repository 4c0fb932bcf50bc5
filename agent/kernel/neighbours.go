package kernel

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

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

func entryOf(e model.FDBEntry, index int) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		IP: e.Endpoint.AsSlice(), HardwareAddr: e.MAC[:],
	}
}

// putFDB makes an entry, or replaces the endpoint of the one for the same address.
func (p *pass) putFDB(want model.FDBEntry) error {
	index, err := p.index(want.Link)
	if err != nil {
		return err
	}
	return p.h.NeighSet(entryOf(want, index))
}

func (p *pass) deleteFDB(gone model.FDBEntry) error {
	index, err := p.index(gone.Link)
	if err == nil {
		err = p.h.NeighDel(entryOf(gone, index))
	}
	if isGone(err) {
		return nil
	}
	return err
}
