package kernel

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

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

// observeRules finds podnet's rules of both families.
func (p *pass) observeRules() ([]model.Rule, error) {
	var have []model.Rule
	for _, family := range families {
		rules, err := p.rules(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if found := modelRule(r, family); isOwnRule(found) {
				have = append(have, found)
			}
		}
	}
	return have, nil
}

// isOwnRule reports whether a rule is one of podnet's: by its priority and its table.
func isOwnRule(r model.Rule) bool {
	if r.Table == model.RouteTable {
		return r.Priority == model.RulePriority
	}
	return r.Priority == model.ProbeRulePriority && slices.Contains(tables, r.Table)
}

func modelRule(r netlink.Rule, family int) model.Rule {
	return model.Rule{IPv6: family == unix.AF_INET6, Priority: r.Priority, Table: r.Table, Mark: r.Mark, In: r.IifName}
}

func ruleOf(r model.Rule) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = familyOf(!r.IPv6)
	rule.Priority = r.Priority
	rule.Table = r.Table
	rule.Mark = r.Mark
	rule.IifName = r.In
	rule.Protocol = model.RouteProtocol
	return rule
}

// putRule makes a rule unless there is one.
func (p *pass) putRule(want model.Rule) error {
	rules, err := p.rules(familyOf(!want.IPv6))
	if err != nil {
		return err
	}
	for _, r := range rules {
		if modelRule(r, familyOf(!want.IPv6)) == want {
			return nil
		}
	}
	return p.h.RuleAdd(ruleOf(want))
}

func (p *pass) deleteRule(gone model.Rule) error {
	rule := ruleOf(gone)
	// Without a protocol the kernel takes a rule of any.
	rule.Protocol = 0
	if err := p.h.RuleDel(rule); err != nil && !isGone(err) {
		return err
	}
	return nil
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
