package kernel

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

var fdbKind = kind{
	of:   model.KindFDB,
	find: finding(func(s *model.State) *[]model.FDBEntry { return &s.FDB }, (*pass).observeFDB),
	put:  by((*pass).putFDB),
	take: by((*pass).deleteFDB),
	news: neighbourNews,
}

// observeFDB finds the permanent entries of podnet's VXLAN devices. An entry for
// the address of all zeros would be the default for unknown destinations.
func (p *pass) observeFDB() ([]model.FDBEntry, error) {
	entries, err := p.neighbours(unix.AF_BRIDGE)
	if err != nil {
		return nil, err
	}
	var have []model.FDBEntry
	for _, e := range entries {
		l, ok := p.byIndex[e.LinkIndex]
		if !ok || l.Attrs().Alias != model.LinkAlias || l.Type() != string(model.LinkVXLAN) {
			continue
		}
		mac, ok := macOf(e.HardwareAddr)
		if !ok || mac == (model.MAC{}) || e.State&netlink.NUD_PERMANENT == 0 || e.Flags&netlink.NTF_SELF == 0 {
			continue
		}
		have = append(have, model.FDBEntry{Link: l.Attrs().Name, MAC: mac, Endpoint: addrOf(e.IP)})
	}
	return have, nil
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
