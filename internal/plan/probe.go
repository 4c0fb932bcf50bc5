package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// Probe returns Build's Probe of a cluster, without the rest of the plan. The attachment may
// be among the cluster's pods.
func Probe(c model.Cluster) model.Pod {
	if c.Network == nil {
		return model.Pod{}
	}
	c, _ = refuseEndpoints(c)
	return newView(c).probe
}

// probePod is the attachment of the namespace from which this node probes its paths:
// it hangs on the node as pods do, with an address of each of the node's blocks, so
// that probes pass whatever pods' packets pass. An address that a pod has since
// before it was kept for probes is the pod's.
func (v *view) probePod() model.Pod {
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

// probeAddresses returns, by family and sorted, the addresses from which this node
// probes, and those from which others do.
func (v *view) probeAddresses() (own, others model.PerFamily[[]netip.Addr]) {
	for _, a := range v.probe.Addrs {
		own[model.FamilyIndex(a)] = append(own[model.FamilyIndex(a)], a)
	}
	for _, p := range v.peers {
		for _, b := range p.blocks {
			if a := ipam.ProbeAddress(b.CIDR); a.IsValid() {
				others[model.FamilyIndex(a)] = append(others[model.FamilyIndex(a)], a)
			}
		}
	}
	return own, others
}

// probesFromOthers and probesToPods keep everybody but other nodes' probes from the
// namespace that answers them: whoever could fill its sockets could make one path look
// worse than the other.
func (v *view) probesFromOthers() []string {
	var rules []string
	for i, f := range families {
		if v.active[i] {
			rules = append(rules, fmt.Sprintf("%[1]s daddr @%[2]s%[4]s %[1]s saddr != @%[3]s%[4]s drop", f.header, setProbes, setProbers, f.digit))
		}
	}
	return rules
}

// probesToPods is for what pods send. To itself the namespace sends to see whether the node forwards.
func (v *view) probesToPods(f family) []string {
	if !v.active.Of(f.ones) {
		return nil
	}
	return []string{fmt.Sprintf("%[1]s daddr @%[2]s%[3]s %[1]s saddr != @%[2]s%[3]s drop", f.header, setProbes, f.digit)}
}

// probesFromPods gives probes that leave the node the mark by which they take the path that they
// are to prove. The network's own probes alone can have their source: pods cannot send with
// another's address.
func (v *view) probesFromPods(f family) []string {
	if !v.active.Of(f.ones) {
		return nil
	}
	return []string{fmt.Sprintf("%s saddr @%s%s meta mark set udp dport map { %s }", f.header, setProbes, f.digit, marksByPort())}
}

// marksByPort are the elements of a map from the ports to which requests and answers
// go to their marks.
func marksByPort() string {
	var elements []string
	for _, w := range model.Ways {
		elements = append(elements, fmt.Sprintf("%d : %#x", w.Port, w.Mark))
	}
	for _, w := range model.Ways {
		elements = append(elements, fmt.Sprintf("%d : %#x", w.Source, w.Mark))
	}
	return strings.Join(elements, ", ")
}

// sometimesTalking leads one packet in eight to talking: that is enough to know to whom there is
// traffic, and costs the others next to nothing.
const sometimesTalking = "numgen random mod 8 == 0 jump " + chainTalking

// talking notes to which addresses of other nodes' blocks this node's pods, and the
// node itself, send: those paths are probed more often. Addresses are noted up to
// the length of the smallest blocks, and only those in blocks that there are: pods
// could else fill the set with others.
func (v *view) talking() []string {
	var rules, marks []string
	for _, w := range model.Ways {
		marks = append(marks, fmt.Sprintf("%#x", w.Mark))
	}
	for i, f := range families {
		if v.active[i] {
			mask := netip.PrefixFrom(f.ones, v.network.BlockBits[i]).Masked().Addr()
			rules = append(rules, fmt.Sprintf("%s daddr @%s%s meta mark != { %s } update @%s%s { %s daddr & %s }",
				f.header, setRemote, f.digit, strings.Join(marks, ", "),
				setTalking, f.digit, f.header, mask))
		}
	}
	return rules
}

// podHas reports whether a pod of this node has an address.
func (v *view) podHas(addr netip.Addr) bool {
	return slices.ContainsFunc(v.pods, func(p model.Pod) bool {
		return p.HostLink != model.ProbeLink && slices.Contains(p.Addrs, addr)
	})
}
