package kernel

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
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
	for _, k := range kinds {
		if n := k.news; n.read != nil && (m.Header.Type == n.added || m.Header.Type == n.added+1) {
			// Several kinds may have the same news, which are read once.
			return n.read(w, m, m.Header.Type != n.added)
		}
	}
	return nil
}

// loopback is the link that is always there.
const loopback = "lo"

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
