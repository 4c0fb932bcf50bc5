package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pass is one go at the kernel: a netlink socket in the namespace of the thread
// that opened it, and the links that were met.
type pass struct {
	h netlinksafe.Handle
	// byName and byIndex hold the links that are known to exist.
	byName  map[string]netlink.Link
	byIndex map[int]netlink.Link
}

func newPass() (*pass, error) {
	h, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &pass{h: h, byName: map[string]netlink.Link{}, byIndex: map[int]netlink.Link{}}, nil
}

func (p *pass) close() { p.h.Close() }

// link returns a link by its name, from the kernel where it was not met in this
// pass. It returns nil when there is none.
func (p *pass) link(name string) (netlink.Link, error) {
	if l, ok := p.byName[name]; ok {
		return l, nil
	}
	l, err := p.h.LinkByName(name)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	p.remember(l)
	return l, nil
}

// index returns the index of a link, and an error also where there is none.
func (p *pass) index(name string) (int, error) {
	l, err := p.link(name)
	if err != nil {
		return 0, err
	}
	if l == nil {
		return 0, fmt.Errorf("link %s: %w", name, unix.ENODEV)
	}
	return l.Attrs().Index, nil
}

// nameOf returns the name of the link with an index, empty where it was not met.
func (p *pass) nameOf(index int) string {
	if l, ok := p.byIndex[index]; ok {
		return l.Attrs().Name
	}
	return ""
}

func (p *pass) remember(l netlink.Link) {
	p.byName[l.Attrs().Name] = l
	p.byIndex[l.Attrs().Index] = l
}

func (p *pass) forget(l netlink.Link) {
	delete(p.byName, l.Attrs().Name)
	delete(p.byIndex, l.Attrs().Index)
}

// isGone reports whether an error means that the object is not, or no longer, there:
// a link (ENODEV), an address (EADDRNOTAVAIL), a route (ESRCH), or a rule or
// neighbour (ENOENT).
func isGone(err error) bool {
	var noLink netlink.LinkNotFoundError
	return errors.As(err, &noLink) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EADDRNOTAVAIL) ||
		errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
}

// familyOf is the kernel's number of an IP family.
func familyOf(is4 bool) int {
	if is4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// families are the kernel's numbers of the IP families.
var families = [2]int{unix.AF_INET, unix.AF_INET6}

// ipNet makes of a prefix what the netlink library takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// hostNet is the prefix that holds one address alone.
func hostNet(a netip.Addr) *net.IPNet { return ipNet(netip.PrefixFrom(a, a.BitLen())) }

// addrOf makes a value of what the netlink library returns; invalid for none.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefixOf makes a value of what the netlink library returns; invalid for none.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}
