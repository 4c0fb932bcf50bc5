package kernel

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// hostAddr is an address of a link, which may change its name.
type hostAddr struct {
	link int
	addr netip.Addr
}

// hostAddress reports an address of a link that is not podnet's when it comes or
// goes. That it stays is reported by the kernel again and again, as with each router
// advertisement and each renewal of a lease.
func (w *watcher) hostAddress(l netlink.Link, a netip.Addr, flags int, gone bool) {
	key, usable := hostAddr{l.Attrs().Index, a}, mayBeEndpoint(a, flags)
	if gone && !usable || !gone && w.addrs[key] == usable {
		return
	}
	gone = gone || !usable
	if gone {
		delete(w.addrs, key)
	} else {
		w.addrs[key] = true
	}
	w.seen(diff.Sighting{Object: model.HostAddress{Link: l.Attrs().Name, Addr: a}, Gone: gone})
}

// hostLink reports a link that is not podnet's when it came or went, or changed
// what matters of it. It is nil before it came.
func (w *watcher) hostLink(was, l netlink.Link, gone bool) {
	found := hostLinkOf(l)
	if !gone && was != nil {
		before := hostLinkOf(was)
		if found.Up == before.Up && found.MTU == before.MTU {
			return
		}
	}
	for a := range w.addrs {
		if a.link == l.Attrs().Index {
			found.Addrs = append(found.Addrs, netip.PrefixFrom(a.addr, a.addr.BitLen()))
		}
	}
	w.seen(diff.Sighting{Object: found, Gone: gone})
}

// overrun forgets what was told: notifications were lost.
func (w *watcher) overrun() {
	clear(w.addrs)
	w.seen(diff.Sighting{})
}

func hostLinkOf(l netlink.Link) model.HostLink {
	return model.HostLink{Name: l.Attrs().Name, Up: l.Attrs().Flags&net.FlagUp != 0, MTU: l.Attrs().MTU}
}
