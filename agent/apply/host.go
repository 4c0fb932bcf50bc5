package apply

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podnet/podnet/internal/model"
)

// seeHost notes what was seen of the node that is not podnet's: which endpoint it has,
// and which way it sends to others, may follow from it.
func (n *notes) seeHost(object any, gone bool) {
	switch o := object.(type) {
	case model.HostLink:
		used := n.wanted.Uses(o.Name)
		if !used && len(o.Addrs) == 0 {
			return
		}
		if used {
			n.moved[o.Name] = true
		}
		gone = gone || !o.Up
	case model.HostAddress:
		if n.wanted.Has(model.Address{Link: o.Link, Addr: netip.PrefixFrom(o.Addr, o.Addr.BitLen())}) {
			// podnet's own, which is on the loopback where there is no overlay.
			return
		}
		// With a link's last address the kernel removes the routes that lead there.
		n.moved[o.Link] = true
	case model.UnderlayRoute:
		if !n.leadsToPeer(o.Dst) {
			return
		}
	}
	n.came, n.went = n.came || !gone, n.went || gone
	n.wake.Raise()
}

// leadsToPeer reports whether packets to another node's endpoint may follow a route. A
// node that speaks BGP has many others, which change often.
func (n *notes) leadsToPeer(dst netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(n.peers, dst.Masked().Addr(), netip.Addr.Compare)
	return i < len(n.peers) && dst.Contains(n.peers[i])
}

// leaveFormer asks for a pass when this node need no longer send from an endpoint that
// it had.
func (s *Applier) leaveFormer(c model.Cluster) {
	for _, e := range c.Former {
		if e.Node == c.Host.Node && e.Fresh > 0 {
			time.AfterFunc(e.Fresh, s.Trigger)
		}
	}
}

// onlyLost reports whether all that was seen is that something of the node went.
func (n *notes) onlyLost() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.went && !n.came && !n.anything && len(n.seen) == 0
}

// lookAtHost forgets what was seen of the node that is not podnet's: that is about to
// be looked at.
func (n *notes) lookAtHost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came, n.went = false, false
}

// peerEndpoints returns the endpoints of other nodes, sorted.
func peerEndpoints(c model.Cluster) []netip.Addr {
	var peers []netip.Addr
	for _, b := range c.Blocks {
		if b.Node != c.Host.Node {
			peers = append(peers, b.Endpoints...)
		}
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return slices.Compact(peers)
}
