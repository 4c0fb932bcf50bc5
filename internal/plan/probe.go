package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// probe is the attachment of the namespace from which this node probes its paths:
// it hangs on the node as pods do, with an address of each of the node's blocks, so
// that probes pass whatever pods' packets pass. An address that a pod has since
// before it was kept for probes is the pod's.
func (v *view) probe() model.Pod {
	p := model.Pod{
		ContainerID: "probe", IfName: "eth0", Name: "probe", Attachment: v.network.Attachment, HostLink: model.ProbeLink,
		HostMAC: linkMAC(v.host.Node, model.ProbeLink), PodMAC: linkMAC(v.host.Node, model.ProbeLink+"/peer"), MTU: v.mtu,
	}
	for _, b := range v.own {
		if addr := ipam.ProbeAddress(b.CIDR); addr.IsValid() && !v.podHas(addr) {
			p.Addrs, p.Blocks = append(p.Addrs, addr), append(p.Blocks, b.CIDR)
		}
	}
	return p
}

// probesFrom is the link by which the node's probes come in to be routed.
func (v *view) probesFrom() string {
	if v.network.Attachment == model.Bridge {
		return model.BridgeLink
	}
	return model.ProbeLink
}

// markProbes gives probes that leave the node the mark by which they take the path
// that they are to prove. The network's own probes alone can have their source:
// pods cannot send with another's address.
func (v *view) markProbes() []string {
	var rules []string
	for i, f := range families {
		if !v.active[i] {
			continue
		}
		rules = append(rules, fmt.Sprintf("%s %s saddr @%s%s meta mark set udp dport map { %s }", pods, f.header, setProbes, f.digit, marksByPort()))
	}
	return rules
}

// marksByPort are the elements of a map from the ports to which requests and answers
// go to their marks.
func marksByPort() string {
	var elements []string
	for _, ports := range [][2]int{
		{model.ProbeRoutedPort, model.ProbeOverlayPort}, {model.ProbeRoutedSource, model.ProbeOverlaySource},
	} {
		for way, port := range ports {
			elements = append(elements, fmt.Sprintf("%d : %#x", port, probeMarks[way]))
		}
	}
	return strings.Join(elements, ", ")
}

// talking notes to which addresses of other nodes' blocks this node's pods, and the
// node itself, send: those paths are probed more often. One packet in eight is
// enough to know it, and costs the others next to nothing. Addresses are noted up to
// the length of the smallest blocks.
func (v *view) talking() []string {
	var rules []string
	for i, f := range families {
		if v.active[i] {
			mask := netip.PrefixFrom(f.ones, v.network.BlockBits[i]).Masked().Addr()
			rules = append(rules, fmt.Sprintf("%s meta mark != { %#x, %#x } numgen random mod 8 == 0 update @%s%s { %s daddr & %s }",
				v.toRemote(f), uint32(model.ProbeRoutedMark), uint32(model.ProbeOverlayMark), setTalking, f.digit, f.header, mask))
		}
	}
	return rules
}

// podHas says whether a pod of this node has an address.
func (v *view) podHas(addr netip.Addr) bool {
	return slices.ContainsFunc(v.pods, func(p model.Pod) bool {
		return p.HostLink != model.ProbeLink && slices.Contains(p.Addrs, addr)
	})
}
