package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// watcher reads notifications.
type watcher struct {
	// p holds the links as they were told last; its socket is closed.
	p *pass
	// addrs are the addresses of links that are not podnet's, as they were told last.
	addrs map[hostAddr]bool
	seen  func(diff.Sighting)
}

// newWatcher returns a watcher that knows the links that there are. The
// subscription comes first, so that none is missed.
func newWatcher(seen func(diff.Sighting)) (*watcher, error) {
	p, err := newPass()
	if err != nil {
		return nil, err
	}
	defer p.close()
	if _, err := p.allLinks(); err != nil {
		return nil, err
	}
	addrs, err := p.allAddresses()
	if err != nil {
		return nil, err
	}
	w := &watcher{p: p, addrs: map[hostAddr]bool{}, seen: seen}
	for _, a := range addrs {
		if addr := addrOf(a.IP); mayBeEndpoint(addr, a.Flags) {
			w.addrs[hostAddr{a.LinkIndex, addr}] = true
		}
	}
	return w, nil
}

// route reads a message of the routing family.
func (w *watcher) route(m syscall.NetlinkMessage) error {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(m.Data, m.Header.Type == unix.RTM_DELLINK)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return w.address(m.Data, m.Header.Type == unix.RTM_DELADDR)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return w.neighbour(m.Data, m.Header.Type == unix.RTM_DELNEIGH)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		s, ok, err := w.routeOf(m)
		if ok && err == nil {
			w.seen(s)
		}
		return err
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return w.rule(m.Data, m.Header.Type == unix.RTM_DELRULE)
	}
	return nil
}

func (w *watcher) link(data []byte, gone bool) error {
	// A bridge tells of its ports by messages of its own family.
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
	if isLinkName(name) {
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

// isLinkName reports whether a name is that of a link that a State may hold.
func isLinkName(name string) bool {
	return slices.Contains([]string{model.BridgeLink, model.VXLANLink4, model.VXLANLink6}, name)
}

func sightingOf(name string, found model.Link, there bool) diff.Sighting {
	if !there {
		return diff.Sighting{Object: model.Link{Name: name}, Gone: true}
	}
	return diff.Sighting{Object: found}
}

// loopback is the link that is always there.
const loopback = "lo"

// address reads an address of any link. Those of pods have none but the gateway's.
func (w *watcher) address(data []byte, gone bool) error {
	msg := nl.DeserializeIfAddrmsg(data)
	l, ok := w.p.byIndex[int(msg.Index)]
	if !ok {
		return nil
	}
	attrs, err := nl.ParseRouteAttrAsMap(data[msg.Len():])
	if err != nil {
		return err
	}
	value, ok := attrs[unix.IFA_LOCAL]
	if !ok {
		value = attrs[unix.IFA_ADDRESS]
	}
	a := addrOf(value.Value)
	if isPodAlias(l.Attrs().Alias) {
		if a == ipam.LinkGateway(false) {
			w.seen(diff.Sighting{Object: model.Address{Link: l.Attrs().Name, Addr: netip.PrefixFrom(a, int(msg.Prefixlen))}, Gone: gone})
		}
		return nil
	}
	if l.Attrs().Alias != model.LinkAlias {
		flags := int(msg.Flags)
		if all, ok := attrs[unix.IFA_FLAGS]; ok {
			flags = int(uint32Of(all.Value))
		}
		w.hostAddress(l, a, flags, gone)
		// On the loopback there may be addresses of both.
		if l.Attrs().Name != loopback {
			return nil
		}
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		// The kernel makes these itself when a link goes up.
		return nil
	}
	found := model.Address{Link: l.Attrs().Name, Addr: netip.PrefixFrom(a, int(msg.Prefixlen))}
	w.seen(diff.Sighting{Object: found, Gone: gone})
	return nil
}

// neighbour reads a neighbour on one of podnet's links, or an entry in the
// forwarding table of a VXLAN device. One that is no longer permanent is gone.
func (w *watcher) neighbour(data []byte, gone bool) error {
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

// routeOf reads a route of podnet's tables. One that took the place of podnet's
// means that this is gone; others that are not podnet's are left alone. Of the main
// table it reads the routes that a node's way to others may be among.
func (w *watcher) routeOf(m syscall.NetlinkMessage) (diff.Sighting, bool, error) {
	msg := nl.DeserializeRtMsg(m.Data)
	attrs, err := nl.ParseRouteAttrAsMap(m.Data[msg.Len():])
	if err != nil {
		return diff.Sighting{}, false, err
	}
	number := func(kind uint16) int { return int(uint32Of(attrs[kind].Value)) }
	table := number(unix.RTA_TABLE)
	if table != mainTable && !slices.Contains(tables, table) || msg.Flags&unix.RTM_F_CLONED != 0 {
		return diff.Sighting{}, false, nil
	}
	dst := addrOf(attrs[unix.RTA_DST].Value)
	if !dst.IsValid() {
		dst = unspecifiedOf(int(msg.Family))
	}
	to := netip.PrefixFrom(dst, int(msg.Dst_len))
	if table == mainTable {
		matters := isUnderlay(to, int(msg.Type), int(msg.Protocol))
		return diff.Sighting{Object: model.UnderlayRoute{Dst: to}, Gone: m.Header.Type == unix.RTM_DELROUTE}, matters, nil
	}
	found := model.Route{Table: modelTable(table), Dst: to}
	if msg.Protocol != model.RouteProtocol {
		replaced := m.Header.Type == unix.RTM_NEWROUTE && m.Header.Flags&unix.NLM_F_REPLACE != 0
		return diff.Sighting{Object: found, Gone: true}, replaced, nil
	}
	found.Unreachable = msg.Type == unix.RTN_UNREACHABLE
	found.Via, found.Src = addrOf(attrs[unix.RTA_GATEWAY].Value), addrOf(attrs[unix.RTA_PREFSRC].Value)
	if via := attrs[unix.RTA_VIA].Value; len(via) > rtviaFamily {
		found.Via = addrOf(via[rtviaFamily:])
	}
	found.OnLink = msg.Flags&unix.RTNH_F_ONLINK != 0
	if !found.Unreachable {
		found.Link = w.p.nameOf(number(unix.RTA_OIF))
	}
	metrics, err := nl.ParseRouteAttrAsMap(attrs[unix.RTA_METRICS].Value)
	if err != nil {
		return diff.Sighting{}, false, err
	}
	found.MTU = int(uint32Of(metrics[unix.RTAX_MTU].Value))
	return diff.Sighting{Object: found, Gone: m.Header.Type == unix.RTM_DELROUTE}, true, nil
}

// rtviaFamily is the length of the family's number, which comes before the address in a
// gateway of another family (linux/rtnetlink.h, rtvia).
const rtviaFamily = 2

// rule reads a rule of podnet's.
func (w *watcher) rule(data []byte, gone bool) error {
	// fib_rule_hdr is laid out as rtmsg is (linux/fib_rules.h).
	msg := nl.DeserializeRtMsg(data)
	attrs, err := nl.ParseRouteAttrAsMap(data[msg.Len():])
	if err != nil {
		return err
	}
	found := model.Rule{
		IPv6:     msg.Family == unix.AF_INET6,
		Priority: int(uint32Of(attrs[unix.FRA_PRIORITY].Value)),
		Table:    int(uint32Of(attrs[unix.FRA_TABLE].Value)),
		Mark:     uint32Of(attrs[unix.FRA_FWMARK].Value),
		In:       unix.ByteSliceToString(attrs[unix.FRA_IIFNAME].Value),
	}
	if isOwnRule(found) {
		w.seen(diff.Sighting{Object: found, Gone: gone})
	}
	return nil
}

// uint32Of reads a number of an attribute; it is 0 where the attribute is missing.
func uint32Of(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

func unspecifiedOf(family int) netip.Addr {
	if family == unix.AF_INET {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
