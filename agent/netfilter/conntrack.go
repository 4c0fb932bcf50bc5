package netfilter

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
	"github.com/podnet/podnet/internal/model"
)

// Conntrack is what the kernel remembers of connections.
type Conntrack struct{}

// Forget deletes the conntrack entries of flows to a pod's UDP host ports at the
// node's addresses. An entry lives as long as packets come, and keeps the
// translation that its first packet met: none, or one to a former pod. TCP needs
// no such thing, as its connections end and are opened again.
func (Conntrack) Forget(_ context.Context, pod model.Pod) error {
	stale := staleFlows{ports: map[uint16]bool{}, addrs: map[netip.Addr]bool{}}
	for _, port := range pod.HostPorts {
		if port.Protocol == "udp" {
			stale.ports[port.Host] = true
		}
	}
	if len(stale.ports) == 0 {
		return nil
	}
	addrs, err := socket.Complete("addresses", func() ([]netlink.Addr, error) {
		return netlink.AddrList(nil, unix.AF_UNSPEC) //nolint:forbidigo // socket.Complete retries, then fails
	})
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			stale.addrs[addr.Unmap()] = true
		}
	}
	for _, addr := range pod.Addrs {
		family := netlink.InetFamily(unix.AF_INET6)
		if addr.Is4() {
			family = unix.AF_INET
		}
		if _, err := netlinksafe.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale); err != nil {
			return fmt.Errorf("forget the flows to the host ports of pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// staleFlows matches UDP flows that were sent to one of ports at one of addrs.
type staleFlows struct {
	ports map[uint16]bool
	addrs map[netip.Addr]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	dst, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	return ok && flow.Forward.Protocol == unix.IPPROTO_UDP && s.ports[flow.Forward.DstPort] && s.addrs[dst.Unmap()]
}
