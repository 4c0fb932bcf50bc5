package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

var linkKind = kind{
	of:   model.KindLink,
	find: finding(func(s *model.State) *[]model.Link { return &s.Links }, (*pass).observeLinks),
	put:  by((*pass).putLink),
	take: by((*pass).deleteLink),
	news: linkNews,
}

// linkNews report links, whose ports they are, and links that are not podnet's.
var linkNews = news{groups: []uint{unix.RTNLGRP_LINK}, added: unix.RTM_NEWLINK, read: (*watcher).link}

// observeLinks finds podnet's links, but for those of pods.
func (p *pass) observeLinks() ([]model.Link, error) {
	var have []model.Link
	for _, l := range p.byIndex {
		if found, ok := p.observedLink(l); ok {
			have = append(have, found)
		}
	}
	return have, nil
}

// observedLink returns what a link is, if it is one of those that a State holds.
func (p *pass) observedLink(l netlink.Link) (model.Link, bool) {
	a := l.Attrs()
	if a.Alias != model.LinkAlias || !model.IsOwnLink(a.Name) {
		return model.Link{}, false
	}
	found := model.Link{Name: a.Name, Kind: model.LinkKind(l.Type())}
	found.MAC, _ = macOf(a.HardwareAddr)
	if a.Flags&net.FlagUp != 0 {
		found.MTU = a.MTU
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		found.VNI = uint32(v.VxlanId)
		found.Port = uint16(v.Port)
		found.Local = addrOf(v.SrcAddr)
		found.Underlay = p.nameOf(v.VtepDevIndex)
	}
	return found, true
}

// putLink makes a link, or changes the one of that name in place where the kernel
// can; where it cannot, it recreates it, and what was on the link is gone.
func (p *pass) putLink(want model.Link) error {
	existing, err := p.link(want.Name)
	if err != nil {
		return err
	}
	if existing != nil {
		if existing.Attrs().Alias != model.LinkAlias && !isUnmarked(existing, want.Kind) {
			return fmt.Errorf("link %s (%s, alias %q) is there already and is not podnet's: remove or rename it",
				want.Name, existing.Type(), existing.Attrs().Alias)
		}
		if !fits(existing, want) {
			if err := p.deleteLink(want); err != nil {
				return err
			}
			existing = nil
		}
	}
	if existing == nil {
		if existing, err = p.createLink(want); err != nil {
			return err
		}
	}
	return p.finishLink(existing, want)
}

// isUnmarked reports whether a link looks like one that podnet was interrupted in
// making: the alias is set by a second message, and the link is down until then.
func isUnmarked(l netlink.Link, kind model.LinkKind) bool {
	a := l.Attrs()
	return a.Alias == "" && a.Flags&net.FlagUp == 0 && l.Type() == string(kind)
}

// fits reports whether a link differs from what is wanted only in what can be changed.
func fits(l netlink.Link, want model.Link) bool {
	if l.Type() != string(want.Kind) {
		return false
	}
	v, ok := l.(*netlink.Vxlan)
	return !ok || uint32(v.VxlanId) == want.VNI && uint16(v.Port) == want.Port
}

func (p *pass) createLink(want model.Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = want.Name
	attrs.MTU = want.MTU
	attrs.HardwareAddr = want.MAC[:]
	var link netlink.Link
	switch want.Kind {
	case model.LinkBridge:
		link = &netlink.Bridge{LinkAttrs: attrs}
	case model.LinkVXLAN:
		underlay, err := p.index(want.Underlay)
		if err != nil {
			return nil, err
		}
		// No group and no remote: there is no default entry, and nothing is flooded.
		// Outer UDP checksums are the kernel's default: sent and, over IPv6, asked for.
		link = &netlink.Vxlan{
			LinkAttrs: attrs, VxlanId: int(want.VNI), Port: int(want.Port),
			SrcAddr: want.Local.AsSlice(), VtepDevIndex: underlay, Learning: false,
		}
	default:
		return nil, fmt.Errorf("no links of kind %q are made", want.Kind)
	}
	err := p.h.LinkAdd(link)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, moduleMissing(string(want.Kind), err)
	case errors.Is(err, unix.EEXIST) && want.Kind == model.LinkVXLAN:
		return nil, fmt.Errorf("another VXLAN device has VNI %d and port %d: %w", want.VNI, want.Port, err)
	case err != nil:
		return nil, fmt.Errorf("create: %w", err)
	}
	p.remember(link)
	return link, nil
}

// finishLink gives a link all that can be changed on one that exists.
func (p *pass) finishLink(l netlink.Link, want model.Link) error {
	if err := p.h.LinkSetAlias(l, model.LinkAlias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	l.Attrs().Alias = model.LinkAlias
	if v, ok := l.(*netlink.Vxlan); ok {
		if err := p.setOuter(v, want); err != nil {
			return err
		}
	}
	// Setting the address, be it the same, takes all neighbours off the link, the
	// permanent ones too (net/core/neighbour.c, neigh_changeaddr).
	if mac, _ := macOf(l.Attrs().HardwareAddr); mac != want.MAC {
		if err := p.h.LinkSetHardwareAddr(l, want.MAC[:]); err != nil {
			return fmt.Errorf("set address %s: %w", want.MAC, err)
		}
	}
	if err := p.h.LinkSetMTU(l, want.MTU); err != nil {
		return fmt.Errorf("set MTU %d: %w", want.MTU, err)
	}
	var err error
	switch want.Kind {
	case model.LinkVXLAN:
		err = p.noLinkLocal(l, want.MTU)
		if err == nil && l.Attrs().MTU < model.MinIPv6MTU && want.MTU >= model.MinIPv6MTU {
			err = p.removeLinkLocal(l)
		}
	case model.LinkBridge:
		err = p.noSnooping(l)
	}
	if err != nil {
		return err
	}
	for _, key := range []string{
		// What pods or other nodes send may not configure the node.
		ipv6Conf(want.Name, "accept_ra"),
		// The link-local address is made of a MAC that no other link has.
		ipv6Conf(want.Name, "accept_dad"),
	} {
		if err := writeIfThere(key, "0"); err != nil {
			return err
		}
	}
	if err := p.h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// setOuter changes the source of a VXLAN device's outer packets, and the interface
// that these leave by. The device, and all that is on it, stays, and what comes in is
// taken whichever of the node's addresses it was sent to. The library's LinkModify
// sends attributes that the kernel refuses to change, whatever their values
// (drivers/net/vxlan/vxlan_core.c, vxlan_nl2conf).
func (p *pass) setOuter(v *netlink.Vxlan, want model.Link) error {
	underlay, err := p.index(want.Underlay)
	if err != nil {
		return err
	}
	if addrOf(v.SrcAddr) == want.Local && v.VtepDevIndex == underlay {
		return nil
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(v.Index) //nolint:gosec // The kernel's indices have 31 bits.
	request.AddData(header)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(v.Type()))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_LINK, nl.Uint32Attr(uint32(underlay))) //nolint:gosec // As above.
	source := nl.IFLA_VXLAN_LOCAL
	if want.Local.Is6() {
		source = nl.IFLA_VXLAN_LOCAL6
	}
	data.AddRtAttr(source, want.Local.AsSlice())
	request.AddData(info)
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("send from %s on %s: %w", want.Local, want.Underlay, err)
	}
	if want.Local.Is6() {
		return p.renewRoutes6()
	}
	return nil
}

// renewRoutes6 makes the kernel look up all IPv6 routes again. A VXLAN device keeps the
// route to each peer together with the source that it had when that was looked up
// (dst_cache), and goes on with both until something changes on the way. IPv4's are
// forgotten whenever a link changes, IPv6's when an address goes (net/ipv6/addrconf.c,
// __ipv6_ifa_notify), on whichever link. The loopback has IPv6 whatever the node's
// interfaces carry.
func (p *pass) renewRoutes6() error {
	l, err := p.link("lo")
	if err != nil || l == nil {
		return err
	}
	addr := &netlink.Addr{
		IPNet: hostNet(netip.MustParseAddr("fe80::7466")), Flags: unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_NODAD,
		// It goes also where nobody deletes it.
		ValidLft: 1, PreferedLft: 0,
	}
	if err := p.h.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("renew IPv6 routes: %w", err)
	}
	if err := p.h.AddrDel(l, addr); err != nil && !isGone(err) {
		return fmt.Errorf("renew IPv6 routes: %w", err)
	}
	return nil
}

// noSnooping makes a bridge forward multicast to all ports. Neighbour
// solicitations then reach a pod whether or not the bridge has seen its multicast
// reports, without a querier.
func (p *pass) noSnooping(l netlink.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = l.Attrs().Name, l.Attrs().Index
	off := false
	err := p.h.LinkModify(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off})
	// A kernel that was built without snooping refuses even to turn it off.
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("turn multicast snooping off: %w", err)
	}
	return nil
}

// noLinkLocal keeps the kernel from giving a link of an MTU an IPv6 link-local
// address. Without one the kernel sends no IPv6 redirects by the link either
// (net/ipv6/ndisc.c, ndisc_send_redirect), for which IPv6 has no sysctl.
// A pod's own link has the gateway's address instead.
func (p *pass) noLinkLocal(l netlink.Link, mtu int) error {
	if mtu < model.MinIPv6MTU {
		return nil
	}
	err := p.h.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE)
	// A kernel without IPv6 answers EAFNOSUPPORT or ENODEV.
	if err != nil && HasIPv6() {
		return fmt.Errorf("turn link-local addresses off: %w", err)
	}
	return nil
}

// removeLinkLocal takes the link-local address off a link whose MTU was too small for
// IPv6: it got one when it was raised, before anything could be said of that.
func (p *pass) removeLinkLocal(l netlink.Link) error {
	addrs, err := p.allAddresses()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if addr := addrOf(a.IP); a.LinkIndex != l.Attrs().Index || !addr.Is6() || !addr.IsLinkLocalUnicast() {
			continue
		}
		if err := p.h.AddrDel(l, &a); err != nil && !isGone(err) {
			return fmt.Errorf("remove the link-local address: %w", err)
		}
	}
	return nil
}

// deleteLink deletes a link if it is podnet's, and is content where it is gone.
func (p *pass) deleteLink(gone model.Link) error {
	l, err := p.link(gone.Name)
	if err != nil || l == nil {
		return err
	}
	if alias := l.Attrs().Alias; alias != "" && !isOwn(alias) {
		return fmt.Errorf("link %s (alias %q) is not podnet's", gone.Name, alias)
	}
	p.forget(l)
	if err := p.h.LinkDel(l); err != nil && !isGone(err) {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

func macOf(hw net.HardwareAddr) (model.MAC, bool) {
	var m model.MAC
	if len(hw) != len(m) {
		return m, false
	}
	copy(m[:], hw)
	return m, true
}

func (w *watcher) link(m syscall.NetlinkMessage, gone bool) error {
	data := m.Data
	// A bridge reports its ports by messages of its own family.
	if len(data) < unix.SizeofIfInfomsg || data[0] != unix.AF_UNSPEC {
		return nil
	}
	l, err := netlink.LinkDeserialize(nil, data)
	if err != nil {
		return err
	}
	name := l.Attrs().Name
	was := w.p.byIndex[l.Attrs().Index]
	if was != nil {
		w.p.forget(was)
		if old := was.Attrs().Name; old != name {
			w.seen(sightingOf(old, model.Link{}, false))
		}
	}
	if !gone {
		w.p.remember(l)
	}
	found, ok := w.p.observedLink(l)
	if model.IsOwnLink(name) {
		w.seen(sightingOf(name, found, ok && !gone))
		return nil
	}
	if isPodAlias(l.Attrs().Alias) {
		port, ok := w.p.observedPort(l)
		port.Link = name
		w.seen(diff.Sighting{Object: port, Gone: gone || !ok})
		return nil
	}
	if !isOwn(l.Attrs().Alias) {
		w.hostLink(was, l, gone)
	}
	return nil
}

func sightingOf(name string, found model.Link, there bool) diff.Sighting {
	if !there {
		return diff.Sighting{Object: model.Link{Name: name}, Gone: true}
	}
	return diff.Sighting{Object: found}
}
