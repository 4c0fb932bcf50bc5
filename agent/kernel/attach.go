package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// Attach makes a pod's link and configures its end inside the pod's namespace.
// What the node needs for the pod besides, such as its route, is in the plan. A
// link that an earlier call left half made is recreated.
func (k *Kernel) Attach(ctx context.Context, pod model.Pod) error {
	target, err := ns.GetNS(pod.Netns)
	if err != nil {
		return noNamespace(pod, err)
	}
	defer target.Close()
	if err := refuseOwn(target, pod); err != nil {
		return err
	}
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.removePodLink(pod); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	host, err := p.createPodLink(pod, target)
	if err != nil {
		return err
	}
	if err := p.finishPodLink(host, pod); err != nil {
		return errors.Join(err, p.removePodLink(pod))
	}
	if err := target.Do(func(ns.NetNS) error { return configure(pod) }); err != nil {
		return errors.Join(fmt.Errorf("configure %s in the namespace of pod %s/%s: %w", pod.IfName, pod.Namespace, pod.Name, err),
			p.removePodLink(pod))
	}
	return nil
}

// Detach removes a pod's link, and is content where it is gone.
func (k *Kernel) Detach(_ context.Context, pod model.Pod) error {
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	return p.removePodLink(pod)
}

// refuseOwn returns an error where a pod's namespace is that of the node, whose own
// interfaces and default route an attachment would change.
func refuseOwn(target ns.NetNS, pod model.Pod) error {
	own, err := ns.GetCurrentNS()
	if err != nil {
		return fmt.Errorf("open the node's own network namespace: %w", err)
	}
	defer own.Close()
	var there, here unix.Stat_t
	if err := errors.Join(unix.Fstat(int(target.Fd()), &there), unix.Fstat(int(own.Fd()), &here)); err != nil {
		return fmt.Errorf("look at the network namespace %s of pod %s/%s: %w", pod.Netns, pod.Namespace, pod.Name, err)
	}
	if there.Dev == here.Dev && there.Ino == here.Ino {
		return fmt.Errorf("the network namespace %s of pod %s/%s is the node's own: pods on the node's network are not attached",
			pod.Netns, pod.Namespace, pod.Name)
	}
	return nil
}

func noNamespace(pod model.Pod, err error) error {
	var gone ns.NSPathNotExistErr
	if errors.As(err, &gone) {
		return fmt.Errorf("the network namespace %s of pod %s/%s is gone: the pod was stopped meanwhile: %w",
			pod.Netns, pod.Namespace, pod.Name, err)
	}
	return fmt.Errorf("open the network namespace %s of pod %s/%s: %w", pod.Netns, pod.Namespace, pod.Name, err)
}

// removePodLink removes the host end of a pod's link, and the other end with it.
// The alias is set by a second message: a link without one was left half made.
func (p *pass) removePodLink(pod model.Pod) error {
	l, err := p.link(pod.HostLink)
	if err != nil || l == nil {
		return err
	}
	alias := l.Attrs().Alias
	if l.Type() != "veth" || alias != podAlias(pod) && alias != "" {
		return fmt.Errorf("link %s (%s, alias %q) is not that of container %s", pod.HostLink, l.Type(), alias, pod.ContainerID)
	}
	p.forget(l)
	if err := p.h.LinkDel(l); err != nil && !isGone(err) {
		return fmt.Errorf("delete link %s: %w", pod.HostLink, err)
	}
	return nil
}

// createPodLink makes the host end here and the other end in the pod's namespace
// at once: moving a link between namespaces afterwards takes the kernel longer.
func (p *pass) createPodLink(pod model.Pod, target ns.NetNS) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = pod.HostLink
	attrs.MTU = pod.MTU
	attrs.HardwareAddr = pod.HostMAC[:]
	veth := netlink.NewVeth(attrs)
	veth.PeerName = pod.IfName
	veth.PeerHardwareAddr = pod.PodMAC[:]
	veth.PeerNamespace = netlink.NsFd(target.Fd())
	veth.PeerMTU = uint32(pod.MTU)
	err := p.h.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create link %s: the namespace of pod %s/%s has an interface %s already: %w",
			pod.HostLink, pod.Namespace, pod.Name, pod.IfName, err)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, moduleMissing("veth", err)
	}
	if err != nil {
		return nil, fmt.Errorf("create link %s: %w", pod.HostLink, err)
	}
	if err := p.h.LinkSetAlias(veth, podAlias(pod)); err != nil {
		return nil, errors.Join(fmt.Errorf("set alias of link %s: %w", pod.HostLink, err), p.h.LinkDel(veth))
	}
	veth.Alias = podAlias(pod)
	p.remember(veth)
	return veth, nil
}

// finishPodLink sets the host end of a pod's link up.
func (p *pass) finishPodLink(host netlink.Link, pod model.Pod) error {
	if err := p.noLinkLocal(host, pod.MTU); err != nil {
		return fmt.Errorf("link %s: %w", pod.HostLink, err)
	}
	for key, value := range map[string]string{
		// The node takes no configuration from pods.
		ipv6Conf(pod.HostLink, "accept_ra"):        "0",
		ipv4Conf(pod.HostLink, "accept_redirects"): "0",
		ipv6Conf(pod.HostLink, "accept_redirects"): "0",
		// A pod that reaches itself through a service would be told not to.
		ipv4Conf(pod.HostLink, "send_redirects"): "0",
	} {
		if err := writeIfThere(key, value); err != nil {
			return err
		}
	}
	if pod.Attachment == model.Bridge {
		if err := p.putPort(model.Port{Link: pod.HostLink, Bridge: model.BridgeLink}); err != nil {
			return fmt.Errorf("put link %s on bridge %s: %w", pod.HostLink, model.BridgeLink, err)
		}
	}
	if err := p.h.LinkSetUp(host); err != nil {
		return fmt.Errorf("set link %s up: %w", pod.HostLink, err)
	}
	return nil
}

// configure gives the calling thread's namespace, which is a pod's, its loopback,
// addresses and routes.
func configure(pod model.Pod) error {
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	for _, name := range []string{"lo", pod.IfName} {
		l, err := p.link(name)
		if err != nil {
			return err
		}
		if l == nil {
			return fmt.Errorf("link %s: %w", name, unix.ENODEV)
		}
		if err := podSysctls(pod, name); err != nil {
			return err
		}
		if err := p.h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	eth := p.byName[pod.IfName]
	for i, addr := range pod.Addrs {
		if err := p.h.AddrReplace(eth, podAddress(pod, i)); err != nil {
			return fmt.Errorf("add address %s: %w", addr, err)
		}
	}
	for _, n := range podNeighbours(pod) {
		if err := p.putNeighbour(n); err != nil {
			return fmt.Errorf("add neighbour %s: %w", n.Addr, err)
		}
	}
	for _, r := range podRoutes(pod, eth.Attrs().Index) {
		if err := p.h.RouteReplace(&r); err != nil {
			return fmt.Errorf("add route to %s: %w", prefixOf(r.Dst), err)
		}
	}
	return nil
}

// podSysctls sets an interface's parameters inside a pod, before it goes up.
func podSysctls(pod model.Pod, link string) error {
	if err := writeIfThere(ipv6Conf(link, "accept_ra"), "0"); err != nil {
		return err
	}
	// The link-local address can be used at once: nobody else has the MAC that it is made of,
	// as that one is of which the node takes neighbour discovery.
	if err := writeIfThere(ipv6Conf(link, "accept_dad"), "0"); err != nil {
		return err
	}
	if err := writeIfThere(ipv6Conf(link, "addr_gen_mode"), fmt.Sprint(nl.IN6_ADDR_GEN_MODE_EUI64)); err != nil {
		return err
	}
	for _, addr := range pod.Addrs {
		if addr.Is6() {
			// Nodes may have it turned off for all but what is asked for, and
			// new namespaces may inherit that.
			return writeSysctl(ipv6Conf(link, "disable_ipv6"), "0")
		}
	}
	return nil
}

// podAddress is the i-th address of a pod, inside it: of host length on a link of
// its own, of the block's length on a bridge, where the others are neighbours.
func podAddress(pod model.Pod, i int) *netlink.Addr {
	addr := pod.Addrs[i]
	a := &netlink.Addr{IPNet: hostNet(addr)}
	if pod.Attachment == model.Bridge && i < len(pod.Blocks) {
		a.IPNet = ipNet(netip.PrefixFrom(addr, pod.Blocks[i].Bits()))
	}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD
	} else {
		// Of one broadcast address less, nothing is lost.
		a.Broadcast = net.IPv4zero
	}
	return a
}

// podNeighbours are the permanent neighbours inside a pod.
func podNeighbours(pod model.Pod) []model.Neighbour {
	if pod.Attachment == model.Bridge {
		return nil
	}
	var out []model.Neighbour
	for _, addr := range pod.Addrs {
		out = append(out, model.Neighbour{Link: pod.IfName, Addr: ipam.LinkGateway(addr.Is4()), MAC: pod.HostMAC})
	}
	return out
}

// podRoutes are the routes inside a pod, in the order in which they can be made.
func podRoutes(pod model.Pod, index int) []netlink.Route {
	var out []netlink.Route
	for i, addr := range pod.Addrs {
		gateway := ipam.LinkGateway(addr.Is4())
		if pod.Attachment == model.Bridge && i < len(pod.Blocks) {
			gateway = ipam.GatewayAddress(pod.Blocks[i])
		} else if addr.Is4() {
			out = append(out, netlink.Route{LinkIndex: index, Dst: hostNet(gateway), Scope: netlink.SCOPE_LINK})
		}
		out = append(out, netlink.Route{
			LinkIndex: index, Dst: ipNet(netip.PrefixFrom(unspecified(addr), 0)), Gw: gateway.AsSlice(),
		})
	}
	return out
}

// unspecified is the address of all zeros of addr's family.
func unspecified(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
