package kernel

import (
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

var routeKind = kind{
	of:   model.KindRoute,
	find: finding(func(s *model.State) *[]model.Route { return &s.Routes }, func(p *pass) ([]model.Route, error) { return p.observeRoutes(tables...) }),
	put:  by((*pass).putRoute),
	take: by((*pass).deleteRoute),
	news: news{
		groups: []uint{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}, added: unix.RTM_NEWROUTE, read: (*watcher).routing,
	},
}

// tables are podnet's routing tables.
var tables = []int{model.RouteTable, model.ProbeRoutedTable, model.ProbeOverlayTable}

const mainTable = unix.RT_TABLE_MAIN

// routeTable returns the number of a route's table, and modelTable what a Route calls it.
func routeTable(r model.Route) int {
	if r.Table == 0 {
		return model.RouteTable
	}
	return r.Table
}

func modelTable(number int) int {
	if number == model.RouteTable {
		return 0
	}
	return number
}

// observeRoutes finds podnet's routes of both families in some of its tables.
func (p *pass) observeRoutes(in ...int) ([]model.Route, error) {
	var have []model.Route
	for _, family := range families {
		routes, err := p.routes(family, in...)
		if err != nil {
			return nil, err
		}
		have = slices.Grow(have, len(routes))
		for _, r := range routes {
			if r.Protocol == model.RouteProtocol {
				have = append(have, p.observedRoute(r, family))
			}
		}
	}
	return have, nil
}

func (p *pass) observedRoute(r netlink.Route, family int) model.Route {
	found := model.Route{
		Table: modelTable(r.Table), Dst: prefixOf(r.Dst), Unreachable: r.Type == unix.RTN_UNREACHABLE,
		Via: gatewayOf(r.Gw, r.Via), OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0, Src: addrOf(r.Src), MTU: r.MTU,
	}
	if !found.Dst.IsValid() {
		found.Dst = netip.PrefixFrom(unspecifiedOf(family), 0)
	}
	// The kernel shows unreachable IPv6 routes on lo.
	if !found.Unreachable {
		found.Link = p.nameOf(r.LinkIndex)
	}
	return found
}

// putRoute makes a route in its table, or replaces the one of the same
// destination in one step.
func (p *pass) putRoute(want model.Route) error {
	r := &netlink.Route{
		Dst: ipNet(want.Dst), Family: familyOf(want.Dst.Addr().Is4()), Table: routeTable(want),
		Protocol: model.RouteProtocol, Scope: netlink.SCOPE_UNIVERSE, MTU: want.MTU,
	}
	if want.Unreachable {
		r.Type = unix.RTN_UNREACHABLE
		return p.h.RouteReplace(r)
	}
	index, err := p.index(want.Link)
	if err != nil {
		return err
	}
	r.LinkIndex = index
	switch {
	case want.Via.IsValid() && want.Via.Is4() != want.Dst.Addr().Is4():
		r.Via = &netlink.Via{AddrFamily: familyOf(want.Via.Is4()), Addr: want.Via.AsSlice()}
	case want.Via.IsValid():
		r.Gw = want.Via.AsSlice()
	case want.Dst.Addr().Is4():
		r.Scope = netlink.SCOPE_LINK
	}
	if want.OnLink {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	if want.Src.IsValid() {
		r.Src = want.Src.AsSlice()
	}
	return p.h.RouteReplace(r)
}

// deleteRoute deletes the route to a destination from its table.
func (p *pass) deleteRoute(gone model.Route) error {
	err := p.h.RouteDel(&netlink.Route{
		Dst: ipNet(gone.Dst), Family: familyOf(gone.Dst.Addr().Is4()), Table: routeTable(gone),
		// In a deletion this scope stands for any.
		Protocol: model.RouteProtocol, Scope: netlink.SCOPE_NOWHERE,
	})
	if isGone(err) {
		return nil
	}
	return err
}

// routing reports a route.
func (w *watcher) routing(m syscall.NetlinkMessage, gone bool) error {
	s, ok, err := w.routeOf(m, gone)
	if ok && err == nil {
		w.seen(s)
	}
	return err
}

// routeOf reads a route of podnet's tables. One that took the place of podnet's
// means that this is gone; others that are not podnet's are left alone. Of the main
// table it reads the routes that a node's way to others may be among.
func (w *watcher) routeOf(m syscall.NetlinkMessage, gone bool) (diff.Sighting, bool, error) {
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
		return diff.Sighting{Object: model.UnderlayRoute{Dst: to}, Gone: gone}, matters, nil
	}
	found := model.Route{Table: modelTable(table), Dst: to}
	if msg.Protocol != model.RouteProtocol {
		replaced := !gone && m.Header.Flags&unix.NLM_F_REPLACE != 0
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
	return diff.Sighting{Object: found, Gone: gone}, true, nil
}

// rtviaFamily is the length of the family's number, which comes before the address in a
// gateway of another family (linux/rtnetlink.h, rtvia).
const rtviaFamily = 2
