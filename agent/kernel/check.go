package kernel

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/podnet/podnet/internal/model"
)

// CheckAttached returns an error whose sentence says what is missing of a pod's
// attachment, on the node's side of the link or inside the pod; nil when nothing is.
func (k *Kernel) CheckAttached(_ context.Context, pod model.Pod) error {
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	host, err := p.link(pod.HostLink)
	switch {
	case err != nil:
		return err
	case host == nil:
		return fmt.Errorf("the node has no link %s", pod.HostLink)
	case host.Attrs().Alias != podAlias(pod):
		return fmt.Errorf("the node's link %s is not that of container %s: its alias is %q", pod.HostLink, pod.ContainerID, host.Attrs().Alias)
	case host.Attrs().Flags&net.FlagUp == 0:
		return fmt.Errorf("the node's link %s is down", pod.HostLink)
	}
	if pod.Attachment == model.Bridge {
		bridge, err := p.link(model.BridgeLink)
		if err != nil {
			return err
		}
		if bridge == nil || host.Attrs().MasterIndex != bridge.Attrs().Index {
			return fmt.Errorf("the node's link %s is not on bridge %s", pod.HostLink, model.BridgeLink)
		}
	}
	target, err := ns.GetNS(pod.Netns)
	if err != nil {
		return noNamespace(pod, err)
	}
	defer target.Close()
	return target.Do(func(ns.NetNS) error { return checkInside(pod) })
}

// checkInside checks the calling thread's namespace, which is a pod's.
func checkInside(pod model.Pod) error {
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	eth, err := p.link(pod.IfName)
	switch {
	case err != nil:
		return err
	case eth == nil:
		return fmt.Errorf("the pod has no interface %s", pod.IfName)
	case eth.Attrs().Flags&net.FlagUp == 0:
		return fmt.Errorf("the pod's interface %s is down", pod.IfName)
	}
	addrs, err := p.allAddresses()
	if err != nil {
		return err
	}
	for i, addr := range pod.Addrs {
		want := prefixOf(podAddress(pod, i).IPNet)
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
			return a.LinkIndex == eth.Attrs().Index && prefixOf(a.IPNet) == want
		}) {
			return fmt.Errorf("the pod's interface %s lacks its address %s", pod.IfName, want)
		}
		if err := p.checkRoutes(pod, eth.Attrs().Index, familyOf(addr.Is4())); err != nil {
			return err
		}
	}
	return nil
}

// checkRoutes checks a pod's routes of one family.
func (p *pass) checkRoutes(pod model.Pod, index, family int) error {
	have, err := p.routes(family, mainTable)
	if err != nil {
		return err
	}
	for _, want := range podRoutes(pod, index) {
		dst := prefixOf(want.Dst)
		if familyOf(dst.Addr().Is4()) != family {
			continue
		}
		if !slices.ContainsFunc(have, func(r netlink.Route) bool {
			return r.LinkIndex == index && prefixOf(r.Dst) == dst && addrOf(r.Gw) == addrOf(want.Gw)
		}) {
			return fmt.Errorf("the pod lacks its route to %s on %s", dst, pod.IfName)
		}
	}
	return nil
}
