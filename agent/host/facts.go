package host

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

	"github.com/podnet/podnet/agent/kernel"
	"github.com/podnet/podnet/internal/model"
)

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
func (h *Host) Facts(ctx context.Context) (Facts, error) {
	v, err := h.cfg.Kernel.View()
	if err != nil {
		return Facts{}, err
	}
	f := Facts{IPv6: kernel.HasIPv6(), Routes: v.Routes}
	_, f.BridgeNetfilter, err = kernel.ReadSysctl("net/bridge/bridge-nf-call-iptables")
	if err != nil {
		return Facts{}, err
	}
	for _, l := range v.Links {
		if l.Own || l.Name == probeLink {
			continue
		}
		f.Links = append(f.Links, hostLink(l, v))
	}
	if f.AcceptRA, err = h.acceptRA(f.Links); err != nil {
		return Facts{}, err
	}
	if f.VXLAN, err = h.canVXLAN(v); err != nil {
		return Facts{}, err
	}
	f.Missing, err = h.missingModules(ctx)
	return f, err
}

func hostLink(l kernel.ViewedLink, v kernel.View) model.HostLink {
	found := model.HostLink{Name: l.Name, Up: l.Up, MTU: l.MTU}
	for _, a := range l.Addrs {
		if a.Reachable && !v.InOwnBlock(a.Addr()) {
			found.Addrs = append(found.Addrs, a.Prefix)
		}
	}
	return found
}

// acceptRA returns the names of the links that would stop accepting router
// advertisements when forwarding is turned on: those with accept_ra=1 and no
// forwarding. The same holds for what new links begin with: an interface that comes later,
// and asks for an advertisement as soon as it is up, would else get none. Where podnet changed the parameter, its value from before counts.
func (h *Host) acceptRA(links []model.HostLink) ([]string, error) {
	previous, err := h.cfg.Kernel.Previous()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range append(slices.Clone(links), model.HostLink{Name: "default"}) {
		key := conf(l.Name, "accept_ra")
		if previous[key] == "1" {
			names = append(names, l.Name)
			continue
		}
		accept, there, err := kernel.ReadSysctl(key)
		if err != nil {
			return nil, err
		}
		forwarding, _, err := kernel.ReadSysctl(conf(l.Name, "forwarding"))
		if err != nil {
			return nil, err
		}
		// What earlier versions wrote for all links went for later ones as well.
		changed := l.Name == "default" && previous[conf("all", "forwarding")] == "0"
		if there && accept == "1" && (forwarding == "0" || changed) && l.Name != "lo" {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// conf is the key of an interface's IPv6 parameter.
func conf(link, name string) string { return "net/ipv6/conf/" + link + "/" + name }

// canVXLAN reports whether the kernel can make VXLAN devices. That it can is
// remembered; that it cannot may change when the module is loaded.
func (h *Host) canVXLAN(v kernel.View) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.vxlan = h.vxlan || slices.ContainsFunc(v.Links, func(l kernel.ViewedLink) bool { return l.Kind == string(model.LinkVXLAN) })
	if h.vxlan {
		return true, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = probeLink
	probe := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1<<24 - 1, SrcAddr: net.IP(netip.IPv6Loopback().AsSlice()), Port: 65535}
	if !kernel.HasIPv6() {
		probe.SrcAddr = net.IPv4(127, 0, 0, 1)
	}
	err := netlink.LinkAdd(probe)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return false, fmt.Errorf("try to make a VXLAN device: %w", err)
	}
	if err := netlink.LinkDel(probe); err != nil && !errors.Is(err, unix.ENODEV) {
		return false, fmt.Errorf("delete link %s: %w", probeLink, err)
	}
	h.vxlan = true
	return true, nil
}
