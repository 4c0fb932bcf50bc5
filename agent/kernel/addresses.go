package kernel

import (
	"context"
	"fmt"
	"math"
	"net"
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

var addressKind = kind{
	of: model.KindAddress,
	find: func(_ context.Context, _ *Kernel, p *pass, want model.State, have *model.State) (err error) {
		have.Addresses, err = p.observeAddresses(want.Addresses, have.Routes)
		return err
	},
	put:  by((*pass).putAddress),
	take: by((*pass).deleteAddress),
	news: news{groups: []uint{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}, added: unix.RTM_NEWADDR, read: (*watcher).address},
}

// observeAddresses finds the addresses of podnet's own links, and on lo those that
// are wanted there or lie in a block of this node: such a block has an unreachable
// route.
func (p *pass) observeAddresses(want []model.Address, routes []model.Route) ([]model.Address, error) {
	addrs, err := p.allAddresses()
	if err != nil {
		return nil, err
	}
	var have []model.Address
	for _, a := range addrs {
		l, ok := p.byIndex[a.LinkIndex]
		if !ok {
			continue
		}
		found := model.Address{Link: l.Attrs().Name, Addr: prefixOf(a.IPNet)}
		switch {
		case slices.Contains(want, found):
		case l.Attrs().Name == "lo":
			if !inOwnBlock(routes, found.Addr.Addr()) {
				continue
			}
		case l.Attrs().Alias != model.LinkAlias:
			continue
		case found.Addr.Addr().Is6() && found.Addr.Addr().IsLinkLocalUnicast():
			// The kernel makes these itself when a link goes up.
			continue
		}
		have = append(have, found)
	}
	return have, nil
}

// inOwnBlock reports whether one of the unreachable routes, which cover the node's
// own blocks, covers an address.
func inOwnBlock(routes []model.Route, a netip.Addr) bool {
	return slices.ContainsFunc(routes, func(r model.Route) bool { return r.Table == 0 && r.Unreachable && r.Dst.Contains(a) })
}

// addrFor makes of an address what the netlink library takes. The kernel makes no
// route for its prefix, and does not ask others whether they have it (DAD).
//
// An IPv6 address is deprecated from the start, so that the kernel uses it only
// where a route names it (RFC 6724, section 5, rule 3). It would else take it for
// everything that the node sends to its own pods, the answers of UDP servers that
// are bound to no address included, which then come from another address than the
// pods have asked.
func addrFor(a model.Address) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(a.Addr), Flags: unix.IFA_F_NOPREFIXROUTE}
	if a.Addr.Addr().Is6() {
		addr.Flags |= unix.IFA_F_NODAD
		addr.ValidLft, addr.PreferedLft = math.MaxUint32, 0
	}
	return addr
}

func (p *pass) putAddress(want model.Address) error {
	l, err := p.link(want.Link)
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("link %s: %w", want.Link, unix.ENODEV)
	}
	return p.h.AddrReplace(l, addrFor(want))
}

func (p *pass) deleteAddress(gone model.Address) error {
	l, err := p.link(gone.Link)
	if err != nil || l == nil {
		return err
	}
	if err := p.h.AddrDel(l, addrFor(gone)); err != nil && !isGone(err) {
		return err
	}
	return nil
}

// gatewayOf returns the gateway of a route, invalid for none. One of the other family is
// in an attribute of its own (RTA_VIA), which IPv4 routes alone have.
func gatewayOf(gw net.IP, via netlink.Destination) netip.Addr {
	if other, ok := via.(*netlink.Via); ok {
		return addrOf(other.Addr)
	}
	return addrOf(gw)
}

// address reads an address of any link. Those of pods have none but the gateway's.
func (w *watcher) address(m syscall.NetlinkMessage, gone bool) error {
	data := m.Data
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
