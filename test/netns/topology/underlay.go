package topology

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podnet/podnet/internal/model"
)

// Underlay is a network segment of its own namespace, with hosts on it.
type Underlay struct {
	*Namespace
	mtu  int
	next int
}

// The router is every host's default route. It forwards nothing.
var (
	router4 = netip.MustParsePrefix("192.168.77.1/24")
	router6 = netip.MustParsePrefix("fd77::1/64")
)

// fabric is the bridge that joins the hosts of an underlay.
const fabric = "fabric"

// NewUnderlay makes a segment that carries packets of up to mtu bytes.
func NewUnderlay(t testing.TB, mtu int) *Underlay {
	t.Helper()
	u := &Underlay{Namespace: NewNamespace(t, "underlay"), mtu: mtu, next: 11}
	u.Run(t, "ip", "link", "add", fabric, "mtu", fmt.Sprint(mtu), "type", "bridge", "mcast_snooping", "0")
	u.Run(t, "ip", "link", "set", fabric, "up")
	for _, r := range []netip.Prefix{router4, router6} {
		if r.Addr().Is6() && mtu < model.MinIPv6MTU {
			continue
		}
		u.Run(t, "ip", "addr", "add", r.String(), "dev", fabric, "nodad")
	}
	// The segment is a wire: no firewall sees its frames.
	for _, key := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		u.Sysctl(t, key, "0")
	}
	return u
}

// Host is a machine on the underlay: its interface there is eth0.
type Host struct {
	*Namespace
	// IPv4 and IPv6 are its addresses on the underlay.
	IPv4, IPv6 netip.Prefix
	// Port is the name of the underlay's end of its link.
	Port string
}

// Address returns the host's address of a family.
func (h *Host) Address(is4 bool) netip.Addr {
	if is4 {
		return h.IPv4.Addr()
	}
	return h.IPv6.Addr()
}

// Families says of which families a host has addresses.
type Families struct{ IPv4, IPv6 bool }

// AddHost makes a host on the underlay.
func (u *Underlay) AddHost(t testing.TB, name string, families Families) *Host {
	t.Helper()
	h := &Host{Namespace: NewNamespace(t, name), Port: fmt.Sprintf("port%d", u.next)}
	if families.IPv4 {
		h.IPv4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 77, byte(u.next)}), 24)
	}
	if families.IPv6 {
		h.IPv6 = netip.MustParsePrefix(fmt.Sprintf("fd77::%d/64", u.next))
	}
	u.next++
	// Nobody has the same address: a link-local one can be used at once.
	h.Sysctl(t, "net/ipv6/conf/default/accept_dad", "0")
	u.Do(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = h.Port, u.mtu
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace, veth.PeerMTU = "eth0", netlink.NsFd(h.Fd()), uint32(u.mtu)
		return netlink.LinkAdd(veth)
	})
	u.Run(t, "ip", "link", "set", h.Port, "master", fabric, "up")
	h.Run(t, "ip", "link", "set", "eth0", "up")
	for p, router := range map[netip.Prefix]netip.Prefix{h.IPv4: router4, h.IPv6: router6} {
		if p.IsValid() {
			h.Run(t, "ip", "addr", "add", p.String(), "dev", "eth0", "nodad")
			h.Run(t, "ip", "route", "add", "default", "via", router.Addr().String())
		}
	}
	return h
}

// SetMTU changes how large packets the segment carries to and from a host.
func (u *Underlay) SetMTU(t testing.TB, h *Host, mtu int) {
	t.Helper()
	u.Run(t, "ip", "link", "set", h.Port, "mtu", fmt.Sprint(mtu))
	h.Run(t, "ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
}

// hostPort writes an address and a port for the net package.
func hostPort(a netip.Addr, port uint16) string {
	return net.JoinHostPort(a.String(), fmt.Sprint(port))
}
