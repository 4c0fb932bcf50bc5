package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

const mainTable = unix.RT_TABLE_MAIN

// probeLink is the name of a device that is made, and deleted at once, to learn
// whether the kernel can make VXLAN devices.
const probeLink = "vxpodnetprobe"

// Facts are what was found on the node, without podnet's own.
type Facts struct {
	// Links are the interfaces, in the kernel's order.
	Links []model.HostLink
	// Routes are the unicast routes of the main table, one for each next hop whose link
	// is up.
	Routes []model.UnderlayRoute
	// VXLAN reports whether the kernel can make VXLAN devices.
	VXLAN bool
	// Missing are the modules without which nothing works and that the kernel lacks.
	Missing []string
	// BridgeNetfilter reports whether br_netfilter is loaded.
	BridgeNetfilter bool
	// IPv6 reports whether the kernel has IPv6 and it is not turned off.
	IPv6 bool
	// AcceptRA are the names of the interfaces on which router advertisements are
	// accepted as long as forwarding is off, or were before podnet turned it on; and
	// default, where they are on interfaces that come.
	AcceptRA []string
}

// Facts looks at the node.
func (k *Kernel) Facts(ctx context.Context) (Facts, error) {
	p, err := newPass()
	if err != nil {
		return Facts{}, err
	}
	defer p.close()
	links, err := p.allLinks()
	if err != nil {
		return Facts{}, err
	}
	own, err := p.observeRoutes(model.RouteTable)
	if err != nil {
		return Facts{}, err
	}
	addrs, err := p.allAddresses()
	if err != nil {
		return Facts{}, err
	}
	f := Facts{IPv6: hasIPv6()}
	_, f.BridgeNetfilter, err = readSysctl("net/bridge/bridge-nf-call-iptables")
	if err != nil {
		return Facts{}, err
	}
	for _, l := range links {
		if isOwn(l.Attrs().Alias) || l.Attrs().Name == probeLink {
			continue
		}
		f.Links = append(f.Links, hostLink(l, addrs, own))
	}
	if f.Routes, err = p.underlayRoutes(); err != nil {
		return Facts{}, err
	}
	if f.AcceptRA, err = k.acceptRA(f.Links); err != nil {
		return Facts{}, err
	}
	if f.VXLAN, err = k.canVXLAN(p); err != nil {
		return Facts{}, err
	}
	f.Missing, err = k.missingModules(ctx)
	return f, err
}

func hostLink(l netlink.Link, addrs []netlink.Addr, own []model.Route) model.HostLink {
	found := hostLinkOf(l)
	for _, a := range addrs {
		addr := prefixOf(a.IPNet)
		if a.LinkIndex == l.Attrs().Index && mayBeEndpoint(addr.Addr(), a.Flags) && !inOwnBlock(own, addr.Addr()) {
			found.Addrs = append(found.Addrs, addr)
		}
	}
	return found
}

// mayBeEndpoint reports whether an address, given the kernel's flags, is one that other
// nodes can send to, and that stays.
func mayBeEndpoint(a netip.Addr, flags int) bool {
	if a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	// The bit means "temporary" (RFC 8981) for IPv6 alone; an IPv4 address that
	// has it is only not the first of its network.
	return a.Is4() || flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}

// underlayRoutes returns the routes of the main table that are not podnet's.
func (p *pass) underlayRoutes() ([]model.UnderlayRoute, error) {
	var out []model.UnderlayRoute
	for _, family := range families {
		routes, err := p.routes(family, mainTable)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			dst := prefixOf(r.Dst)
			if !isUnderlay(dst, r.Type, int(r.Protocol)) {
				continue
			}
			found := model.UnderlayRoute{Dst: dst, Via: gatewayOf(r.Gw, r.Via), Link: p.nameOf(r.LinkIndex), Metric: r.Priority}
			if len(r.MultiPath) == 0 {
				out = append(out, found)
			}
			for _, hop := range r.MultiPath {
				if hop.Flags&unix.RTNH_F_DEAD != 0 {
					continue
				}
				found.Via, found.Link = gatewayOf(hop.Gw, hop.Via), p.nameOf(hop.LinkIndex)
				out = append(out, found)
			}
		}
	}
	return out, nil
}

// gatewayOf returns the gateway of a route, invalid for none. One of the other family is
// in an attribute of its own (RTA_VIA), which IPv4 routes alone have.
func gatewayOf(gw net.IP, via netlink.Destination) netip.Addr {
	if other, ok := via.(*netlink.Via); ok {
		return addrOf(other.Addr)
	}
	return addrOf(gw)
}

// isUnderlay reports whether a route of the main table may lead to other nodes.
func isUnderlay(dst netip.Prefix, kind, protocol int) bool {
	return kind == unix.RTN_UNICAST && protocol != model.RouteProtocol && !dst.Addr().IsLinkLocalUnicast()
}

// acceptRA returns the names of the links that would stop to accept router
// advertisements when forwarding is turned on: those with accept_ra=1 and no
// forwarding. The same holds for what new links begin with: an interface that comes later,
// and asks for an advertisement as soon as it is up, would else get none. Where podnet changed the parameter, its value from before counts.
func (k *Kernel) acceptRA(links []model.HostLink) ([]string, error) {
	k.mu.Lock()
	previous, err := k.readPrevious()
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range append(slices.Clone(links), model.HostLink{Name: "default"}) {
		key := ipv6Conf(l.Name, "accept_ra")
		if previous[key] == "1" {
			names = append(names, l.Name)
			continue
		}
		accept, there, err := readSysctl(key)
		if err != nil {
			return nil, err
		}
		forwarding, _, err := readSysctl(ipv6Conf(l.Name, "forwarding"))
		if err != nil {
			return nil, err
		}
		// What earlier versions wrote for all links went for later ones as well.
		changed := l.Name == "default" && previous[ipv6Conf("all", "forwarding")] == "0"
		if there && accept == "1" && (forwarding == "0" || changed) && l.Name != "lo" {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// canVXLAN reports whether the kernel can make VXLAN devices. That it can is
// remembered; that it cannot may change when the module is loaded.
func (k *Kernel) canVXLAN(p *pass) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.vxlan {
		return true, nil
	}
	for _, l := range p.byName {
		if l.Type() == string(model.LinkVXLAN) {
			k.vxlan = true
			return true, nil
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = probeLink
	probe := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1<<24 - 1, SrcAddr: net.IP(netip.IPv6Loopback().AsSlice()), Port: 65535}
	if !hasIPv6() {
		probe.SrcAddr = net.IPv4(127, 0, 0, 1)
	}
	err := p.h.LinkAdd(probe)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return false, fmt.Errorf("try to make a VXLAN device: %w", err)
	}
	if err := p.h.LinkDel(probe); err != nil && !isGone(err) {
		return false, fmt.Errorf("delete link %s: %w", probeLink, err)
	}
	k.vxlan = true
	return true, nil
}
