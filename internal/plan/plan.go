package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// defaultMTU is that of pods as long as the node has no endpoint to take it from.
const defaultMTU = 1500

// Build computes what the kernel of the node c.Host.Node shall be.
//
// Without a network the plan is empty and has a fatal problem. That means that
// nothing is known, and not that everything shall go: callers leave the kernel
// as it is.
func Build(c model.Cluster) model.Plan {
	if c.Network == nil {
		return model.Plan{Problems: []model.Problem{{
			Reason: model.ReasonNoNetwork, Fatal: true,
			Message: "There is no PodNetwork named default: create one.",
		}}}
	}
	c, refused := refuseEndpoints(c)
	v := newView(c)
	v.problems = append(refused, v.problems...)
	var s model.State
	v.links(&s)
	v.ownRoutes(&s)
	paths := v.peerRoutes(&s)
	v.sysctls(&s)
	s.Firewall = v.firewall()
	addPods(&s, c)
	s.Sort()
	for i := range s.Firewall {
		s.Firewall[i].Sign()
	}
	v.noteMissingEndpoints(paths)
	return model.Plan{
		State: s, Paths: paths, NetworkGeneration: c.Network.Generation, RouteModes: v.modes.sorted, Problems: v.problems,
		Blocks: v.own, Withheld: v.withheld(), MTU: v.mtu, Probe: v.probe,
	}
}

// withheld says of which families the network has ranges that this node cannot serve.
func (v *view) withheld() model.PerFamily[bool] {
	var out model.PerFamily[bool]
	for _, r := range v.network.Ranges {
		i := model.FamilyIndex(r.Addr())
		out[i] = !v.active[i]
	}
	return out
}

// view is a cluster as this node sees it: everything that more than one part of
// the plan needs, computed once.
type view struct {
	network model.Network
	host    model.Host
	pods    []model.Pod
	// own are this node's served blocks, the oldest first.
	own   []model.Block
	peers []*peer
	// active says for which families the network has ranges that this node can serve:
	// that one cannot be is never a reason not to serve the other.
	active model.PerFamily[bool]
	// address is the node's own address in its pod range, by family; invalid
	// where it has no block.
	address model.PerFamily[netip.Addr]
	// endpoints are all nodes' endpoints, former ones included, by family, sorted, and
	// ownEndpoints those of this node.
	endpoints, ownEndpoints model.PerFamily[[]netip.Addr]
	// vxlan are the VXLAN devices by the family of their outer packets; nil where
	// there is none.
	vxlan model.PerFamily[*model.Link]
	// uplinks are the interfaces to which and from which packets of other nodes'
	// pods can go, sorted.
	uplinks  []string
	underlay underlay
	modes    *modes
	evidence map[netip.Prefix]model.Evidence
	mtu      int
	// probe is the attachment of the namespace that probes come from.
	probe model.Pod
	// bridge says that there is a bridge.
	bridge   bool
	problems []model.Problem
}

func newView(c model.Cluster) *view {
	v := &view{network: *c.Network, host: c.Host, pods: c.Pods, underlay: newUnderlay(c.Host.Routes), evidence: c.Evidence}
	served, problems := serve(c)
	v.problems = append(v.problems, problems...)
	var less, fewer *model.Problem
	v.mtu, less = podMTU(v.network, v.host)
	v.active, fewer = activeFamilies(v.network, v.host, v.mtu)
	for _, p := range []*model.Problem{less, fewer} {
		if p != nil {
			v.problem(*p)
		}
	}
	served = slices.DeleteFunc(served, func(b model.Block) bool { return !v.active.Of(b.CIDR.Addr()) })
	for _, b := range served {
		if b.Node == c.Host.Node && b.State != model.BlockReleased {
			v.own = append(v.own, b)
		}
	}
	v.address = nodeAddresses(v.own)
	v.endpoints, v.ownEndpoints = endpointsOf(c, served)
	v.peers = peersOf(c.Host.Node, served)
	var labels map[string]string
	if len(v.own) > 0 {
		labels = v.own[0].Labels
	}
	v.modes = newModes(v.network.Mode, c.RouteModes, labels)
	v.probe = v.probePod()
	v.vxlan = vxlanLinks(c, served)
	v.uplinks = v.findUplinks()
	v.bridge = v.network.Attachment == model.Bridge ||
		slices.ContainsFunc(c.Pods, func(p model.Pod) bool { return p.Attachment == model.Bridge })
	v.noteNodeProblems()
	return v
}

// activeFamilies returns for which families the network has ranges that a node can serve
// whose pods have an MTU, and the problem where that is not all of them.
func activeFamilies(n model.Network, h model.Host, mtu int) (active model.PerFamily[bool], problem *model.Problem) {
	for i, f := range families {
		active[i] = slices.ContainsFunc(n.Ranges, func(r netip.Prefix) bool { return r.Addr().Is4() == f.is4 })
	}
	var message string
	switch {
	case !active[1]:
		return active, nil
	case !h.IPv6:
		message = "The network has IPv6 ranges, and this node's kernel has no IPv6 or it is turned off (net.ipv6.conf.all.disable_ipv6): its pods have no IPv6. Turn it on at the node."
	case !families[1].fits(mtu):
		message = fmt.Sprintf("The network has IPv6 ranges, and IPv6 needs an MTU of %d where this node's pods have %d: they have no IPv6. "+
			"Raise the MTU of the node's interface or, if it is set, spec.mtu of PodNetwork default.", model.MinIPv6MTU, mtu)
	default:
		return active, nil
	}
	active[1] = false
	if !active[0] {
		return active, &model.Problem{Reason: model.ReasonNoBlock, Fatal: true, Message: message}
	}
	return active, &model.Problem{Reason: model.ReasonDegraded, Message: message}
}

func (v *view) problem(p model.Problem) { v.problems = append(v.problems, p) }

// nodeAddresses returns the node's own address of each family: the base address
// of its oldest active block, and that of a draining one only where all drain.
func nodeAddresses(own []model.Block) model.PerFamily[netip.Addr] {
	var addresses model.PerFamily[netip.Addr]
	for _, state := range []model.BlockState{model.BlockActive, model.BlockDraining} {
		for _, b := range own {
			i := model.FamilyIndex(b.CIDR.Addr())
			if b.State == state && !addresses[i].IsValid() {
				addresses[i] = ipam.NodeAddress(b.CIDR)
			}
		}
	}
	return addresses
}

// podMTU is the largest packet in bytes that pods may send: what the network
// asks for, as far as the endpoints' interfaces carry it. Where they do not there is a
// problem.
func podMTU(n model.Network, h model.Host) (int, *model.Problem) {
	var smallest *model.Endpoint
	for i := range h.Endpoints {
		if e := &h.Endpoints[i]; smallest == nil || e.MTU < smallest.MTU {
			smallest = e
		}
	}
	switch {
	case smallest == nil && n.MTU == 0:
		return defaultMTU, nil
	case smallest == nil:
		return n.MTU, nil
	case n.MTU > smallest.MTU:
		problem := degraded("The network asks for an MTU of %d, and interface %s carries packets of at most %d bytes, which is taken instead. "+
			"Lower spec.mtu of PodNetwork default, or raise the MTU of the interface.",
			n.MTU, smallest.Link, smallest.MTU)
		return smallest.MTU, &problem
	case n.MTU > 0:
		return n.MTU, nil
	default:
		return smallest.MTU, nil
	}
}

// noteNodeProblems records what is wrong with the node itself.
func (v *view) noteNodeProblems() {
	for i, f := range families {
		if v.active[i] && !v.address[i].IsValid() {
			v.problem(model.Problem{
				// The node's pods run with the other family alone where it has one.
				Reason: model.ReasonNoBlock, Fatal: len(v.own) == 0,
				Message: fmt.Sprintf("Node %s holds no block of %s pod addresses that it can serve. "+
					"Add a range to PodNetwork default if none has a free block; else check that podnet's manager runs.", v.host.Node, f.name),
			})
		}
	}
	for _, b := range v.own {
		if b.Vanished {
			v.problem(degraded("NodeSubnet %s disappeared without being released (was etcd restored?)."+
				" Existing pods keep working; new pods get no address from it until it is recreated.", b.Name))
		}
	}
	if len(v.host.Endpoints) == 0 {
		v.problem(model.Problem{
			Reason: model.ReasonNoEndpoint, Fatal: true,
			Message: "This node has no address that other nodes could send to. Correct its InternalIP (kubelet's --node-ip), " +
				"or choose an interface with the chart values agent.nodeInterface or agent.nodeCIDRs.",
		})
	}
	if len(v.host.Missing) > 0 {
		modules := strings.Join(v.host.Missing, " ")
		v.problem(model.Problem{
			Reason: model.ReasonModuleMissing, Fatal: true,
			Message: fmt.Sprintf("The kernel lacks modules without which nothing works (%[1]s). Load them with `modprobe -a %[1]s`, "+
				"or use a kernel that has them.", modules),
		})
	}
	if !v.host.VXLAN {
		v.problem(model.Problem{
			Reason:  model.ReasonModuleMissing,
			Message: "The kernel cannot make VXLAN devices: there is no overlay to or from this node. Load the module with `modprobe vxlan`.",
		})
	}
	if v.bridge && !v.host.BridgeNetfilter {
		v.problem(model.Problem{
			Reason: model.ReasonModuleMissing, Fatal: v.network.Attachment == model.Bridge,
			Message: "The module br_netfilter is not loaded: services and network policy do not see packets between pods of this node's bridge, " +
				"and new pods wait. Load it with `modprobe br_netfilter`.",
		})
	}
	largest := 0
	for _, l := range v.vxlan {
		if l != nil {
			largest = max(largest, l.MTU)
		}
	}
	if v.active[1] && largest > 0 && largest < model.MinIPv6MTU {
		v.problem(degraded("IPv6 needs an MTU of %d, and this node's overlay has %d: IPv6 reaches other nodes by routed paths alone. "+
			"Raise the MTU of the node's interface.", model.MinIPv6MTU, largest))
	}
}

// noteMissingEndpoints records that the node lacks an endpoint of a family, if paths suffer from it.
func (v *view) noteMissingEndpoints(paths []model.PathChoice) {
	if len(v.host.Endpoints) == 0 {
		return
	}
	for i, f := range families {
		if _, ok := v.host.Endpoint(f.is4); ok || !v.active[i] {
			continue
		}
		suffering := 0
		for _, p := range paths {
			if p.Block.Addr().Is4() == f.is4 && p.Diverges {
				suffering++
			}
		}
		if suffering > 0 {
			v.problem(model.Problem{
				Reason: model.ReasonNoEndpoint,
				Message: fmt.Sprintf("This node has no %s address that other nodes could send to: the paths to %d blocks are not what was asked for. Give it one.",
					f.name, suffering),
			})
		}
	}
}

// findUplinks returns the interfaces of the endpoints and of the next hops to
// other nodes. They are the same on most nodes.
func (v *view) findUplinks() []string {
	seen := map[string]bool{}
	for _, e := range v.host.Endpoints {
		seen[e.Link] = true
	}
	for _, l := range v.vxlan {
		if l != nil {
			seen[l.Underlay] = true
		}
	}
	for _, p := range v.peers {
		for _, endpoint := range p.endpoints {
			// Packets come in by any of the hops that the node sends by.
			for _, hop := range v.underlay.lookup(endpoint) {
				seen[hop.Link] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
