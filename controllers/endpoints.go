package controllers

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
	"github.com/podnet/podnet/internal/convert"
	"github.com/podnet/podnet/internal/ipam"
)

// eventEndpointRefused is the reason of the Event about an address that is not published.
const eventEndpointRefused = "EndpointRefused"

// claimant is a node that an address may belong to.
type claimant struct {
	node string
	// came is when the Node was made.
	came metav1.Time
	// claims says that others shall send to the address for it now, named that its status names the address.
	claims, named bool
	// since is when the oldest of its NodeSubnets was made that name the address, nil where none does.
	since *metav1.Time
	// had says that it claims the address and that a NodeSubnet names it which was released and rests.
	had bool
}

// rank orders claimants: that one is first for which the address is published, then one for
// which it was, as a Node that was recreated is the youngest, then one whose status names it.
func (c claimant) rank() int {
	switch {
	case c.since != nil:
		return 3
	case c.had:
		return 2
	case c.named:
		return 1
	}
	return 0
}

// elder reports whether of two claimants of an address it is this one's. Of several for which
// it is published the block decides, not the Node, which may have been recreated.
func (c claimant) elder(than claimant) bool {
	if c.rank() != than.rank() {
		return c.rank() > than.rank()
	}
	since, other := &c.came, &than.came
	if c.since != nil {
		since, other = c.since, than.since
	}
	if !since.Equal(other) {
		return since.Before(other)
	}
	return c.node < than.node
}

// registry decides which addresses of nodes others are told to send to. What a node says of
// itself is not enough: it would get what others send to that address, be taken for its owner
// by policies, and be believed as a tunnel's end.
type registry struct {
	ranges   []netip.Prefix
	services []ipam.Claim
	// claimants returns the nodes that an address may belong to.
	claimants func(address string) ([]claimant, error)
	// inBlock reports whether a block contains an address, those that rest included.
	inBlock func(netip.Addr) (bool, error)
}

// refusal is an address of a node that is not published, or that should not be.
type refusal struct {
	node, address string
	// why is a clause without a full stop.
	why string
	// kept says that it stays published for now.
	kept bool
}

// String says in a sentence without a full stop what is refused and why.
func (r refusal) String() string {
	if r.kept {
		return fmt.Sprintf("%s of Node %s is given to others as its endpoint only until a block contains it: %s", r.address, r.node, r.why)
	}
	return fmt.Sprintf("%s of Node %s is not given to others as its endpoint: %s", r.address, r.node, r.why)
}

// whyRefused says why an address that a node claims is not published; empty where it is.
func (g registry) whyRefused(node *corev1.Node, address string) (string, error) {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return "it is no address", nil //nolint:nilerr // Others need not know more.
	}
	if why := ipam.Foreign(addr, g.ranges, g.services); why != "" {
		return why, nil
	}
	all, err := g.claimants(address)
	if err != nil {
		return "", err
	}
	self := claimant{node: node.Name, came: node.CreationTimestamp}
	if i := slices.IndexFunc(all, func(c claimant) bool { return c.node == node.Name }); i >= 0 {
		self = all[i]
	}
	for _, other := range all {
		if other.node == node.Name || !other.elder(self) {
			continue
		}
		if !other.claims && other.since == nil {
			return fmt.Sprintf("it is an address of Node %s, whose status names it", other.node), nil
		}
		return fmt.Sprintf("Node %s has the address, and keeps it until it no longer reports it", other.node), nil
	}
	return "", nil
}

// covered reports whether nothing but a range or a service CIDR is in the way of an address,
// and no block contains it, so that no pod can have it.
func (g registry) covered(addr netip.Addr) (bool, error) {
	if ipam.Foreign(addr, g.ranges, g.services) == "" || ipam.Foreign(addr, nil, nil) != "" {
		return false, nil
	}
	taken, err := g.inBlock(addr)
	return err == nil && !taken, err
}

// keeps reports whether an address that is refused stays a node's endpoint: it is published for
// the node, and a range or a service CIDR came over it later. To take it away would
// cut off at once all nodes that a range was put over by mistake. Whoever it is not published for
// never gets it.
func (g registry) keeps(node *corev1.Node, address string) (bool, error) {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return false, nil //nolint:nilerr // What is no address is nobody's.
	}
	if covered, err := g.covered(addr); err != nil || !covered {
		return false, err
	}
	all, err := g.claimants(address)
	if err != nil || !slices.ContainsFunc(all, func(c claimant) bool { return c.node == node.Name && c.since != nil }) {
		return false, err
	}
	why, err := registry{claimants: g.claimants}.whyRefused(node, address)
	return err == nil && why == "", err
}

// publish returns which of the addresses that a node claims others are told, and which are
// refused. Of a family whose claim is refused it keeps the one that was published before,
// as long as nobody else claims that.
func (g registry) publish(node *corev1.Node, claimed, before []string) (endpoints []string, refused []refusal, err error) {
	for _, address := range claimed {
		why, err := g.whyRefused(node, address)
		if err != nil {
			return nil, nil, err
		}
		if why == "" {
			endpoints = append(endpoints, address)
			continue
		}
		kept, err := g.keeps(node, address)
		if err != nil {
			return nil, nil, err
		}
		refused = append(refused, refusal{node.Name, address, why, kept})
		if kept {
			endpoints = append(endpoints, address)
			continue
		}
		former := slices.IndexFunc(before, func(b string) bool { return sameFamily(b, address) })
		if former < 0 || before[former] == address {
			continue
		}
		stays, err := g.stays(node, before[former])
		if err != nil {
			return nil, nil, err
		}
		if stays {
			endpoints = append(endpoints, before[former])
		}
	}
	return endpoints, refused, nil
}

// stays reports whether a node keeps an endpoint that it does not claim any more, as what it
// claims is refused. Another node that claims the address gets it, unless a range covers it.
func (g registry) stays(node *corev1.Node, former string) (bool, error) {
	addr, err := netip.ParseAddr(former)
	if err != nil {
		return false, nil //nolint:nilerr // What is no address is nobody's.
	}
	covered, err := g.covered(addr)
	if err != nil || !covered && ipam.Foreign(addr, g.ranges, g.services) != "" {
		return false, err
	}
	all, err := g.claimants(former)
	others := func(c claimant) bool { return c.node != node.Name && (c.since != nil || c.claims && !covered) }
	return err == nil && !slices.ContainsFunc(all, others), err
}

// claimedEndpoints returns the addresses to which others shall send packets for a node:
// those that its agent found on it, else those that Kubernetes knows.
func claimedEndpoints(node *corev1.Node, report *podnetv1alpha1.NodeNetwork) []string {
	if reported := reportedEndpoints(node, report); len(reported) > 0 {
		return reported
	}
	return internalIPs(node)
}

// reportedEndpoints returns the addresses that the agent of this very node found on it; none as
// long as it has not said so.
func reportedEndpoints(node *corev1.Node, report *podnetv1alpha1.NodeNetwork) []string {
	if report == nil || !objects.OwnedBy(report, node) {
		return nil
	}
	return oneOfEachFamily(report.Status.Endpoints)
}

// sameFamily reports whether two addresses are of one family.
func sameFamily(a, b string) bool {
	return strings.Contains(a, ":") == strings.Contains(b, ":")
}

// publishedSince returns when the oldest of a node's NodeSubnets was made that name an address,
// nil where none does. Those that were released are of a node that has gone.
func publishedSince(subnets []podnetv1alpha1.NodeSubnet, address string) *metav1.Time {
	var oldest *metav1.Time
	for i := range subnets {
		s := &subnets[i]
		if s.Spec.State == podnetv1alpha1.SubnetReleased || !slices.Contains(s.Spec.Endpoints, address) {
			continue
		}
		if oldest == nil || s.CreationTimestamp.Before(oldest) {
			oldest = &s.CreationTimestamp
		}
	}
	return oldest
}

// claimantOf returns what a node has to do with an address, and whether it has. An address is
// published for it also while its Node is not there, or its agent's report: the node may be
// there all the same, and its blocks are. It ends when the node claims another of the family; where the
// Node was recreated, when its agent does: until then only its former blocks know which one it chose.
func claimantOf(
	name string, node *corev1.Node, report *podnetv1alpha1.NodeNetwork, subnets []podnetv1alpha1.NodeSubnet, address string,
) (claimant, bool) {
	c := claimant{node: name}
	var claimed []string
	if node != nil {
		c.came = node.CreationTimestamp
		c.named = slices.Contains(statusAddresses(node), address)
		claimed = claimedEndpoints(node, report)
		c.claims = slices.Contains(claimed, address)
	} else if report != nil {
		claimed = oneOfEachFamily(report.Status.Endpoints)
	}
	claimsAnother := slices.ContainsFunc(claimed, func(other string) bool { return other != address && sameFamily(other, address) })
	switch {
	case !claimsAnother:
		c.since = publishedSince(subnets, address)
	case node != nil && len(reportedEndpoints(node, report)) == 0:
		c.since = publishedSince(slices.DeleteFunc(slices.Clone(subnets), func(s podnetv1alpha1.NodeSubnet) bool {
			return s.Spec.NodeUID == node.UID
		}), address)
	}
	c.had = c.claims && slices.ContainsFunc(subnets, func(s podnetv1alpha1.NodeSubnet) bool {
		return s.Spec.State == podnetv1alpha1.SubnetReleased && slices.Contains(s.Spec.Endpoints, address)
	})
	return c, c.claims || c.named || c.since != nil
}

// registryOf returns the registry of a cluster, which is read as it is needed.
func registryOf(ctx context.Context, reader client.Reader, network *podnetv1alpha1.PodNetwork) (registry, error) {
	services := &networkingv1.ServiceCIDRList{}
	if err := reader.List(ctx, services, client.UnsafeDisableDeepCopy); err != nil {
		return registry{}, fmt.Errorf("list ServiceCIDRs: %w", err)
	}
	g := registry{services: convert.ServiceCIDRs(services.Items), claimants: func(address string) ([]claimant, error) {
		return claimantsOf(ctx, reader, address)
	}, inBlock: func(addr netip.Addr) (bool, error) {
		subnets := &podnetv1alpha1.NodeSubnetList{}
		if err := reader.List(ctx, subnets, client.UnsafeDisableDeepCopy); err != nil {
			return false, fmt.Errorf("list NodeSubnets: %w", err)
		}
		return slices.ContainsFunc(subnets.Items, func(s podnetv1alpha1.NodeSubnet) bool {
			cidr, err := netip.ParsePrefix(s.Spec.CIDR)
			return err == nil && cidr.Contains(addr)
		}), nil
	}}
	if network != nil {
		ranges, _ := allocation.PoolOf(network) // What does not parse is said in the network's conditions.
		g.ranges = ranges.CIDRs()
	}
	return g, nil
}

// firstEndpoints returns those of the addresses that Kubernetes knows of a node which others may be
// told in a new NodeSubnet, until its agent's are.
func firstEndpoints(ctx context.Context, reader client.Reader, node *corev1.Node) ([]string, error) {
	network, err := objects.ServedNetwork(ctx, reader)
	if err != nil {
		return nil, err
	}
	known, err := registryOf(ctx, reader, network)
	if err != nil {
		return nil, err
	}
	// The NodeSubnet controller reports those that are refused.
	endpoints, _, err := known.publish(node, internalIPs(node), nil)
	return endpoints, err
}

// claimantsOf finds the nodes that an address may belong to.
func claimantsOf(ctx context.Context, reader client.Reader, address string) ([]claimant, error) {
	names, err := namesWith(ctx, reader, address)
	if err != nil {
		return nil, err
	}
	var out []claimant
	for _, name := range names {
		node, report, subnets := &corev1.Node{}, &podnetv1alpha1.NodeNetwork{}, &podnetv1alpha1.NodeSubnetList{}
		if err := reader.Get(ctx, client.ObjectKey{Name: name}, node); apierrors.IsNotFound(err) {
			node = nil
		} else if err != nil {
			return nil, fmt.Errorf("read Node %s: %w", name, err)
		}
		if err := reader.Get(ctx, client.ObjectKey{Name: name}, report); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("read NodeNetwork %s: %w", name, err)
		}
		if err := reader.List(ctx, subnets, client.MatchingFields{objects.NodeField: name}, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list the blocks of Node %s: %w", name, err)
		}
		if c, found := claimantOf(name, node, report, subnets.Items, address); found {
			out = append(out, c)
		}
	}
	return out, nil
}

// namesWith returns the names of nodes that an address may belong to, sorted: the agents' reports,
// the Nodes and the NodeSubnets name it.
func namesWith(ctx context.Context, reader client.Reader, address string) ([]string, error) {
	reports, nodes, subnets := &podnetv1alpha1.NodeNetworkList{}, &corev1.NodeList{}, &podnetv1alpha1.NodeSubnetList{}
	if err := reader.List(ctx, reports, client.MatchingFields{endpointField: address}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the NodeNetworks with endpoint %s: %w", address, err)
	}
	if err := reader.List(ctx, nodes, client.MatchingFields{addressField: address}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the Nodes with address %s: %w", address, err)
	}
	if err := reader.List(ctx, subnets, client.MatchingFields{publishedField: address}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the NodeSubnets with endpoint %s: %w", address, err)
	}
	var names []string
	for i := range reports.Items {
		names = append(names, reports.Items[i].Name)
	}
	for i := range nodes.Items {
		names = append(names, nodes.Items[i].Name)
	}
	for i := range subnets.Items {
		names = append(names, subnets.Items[i].Spec.Node)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// withClaimants returns a request for each NodeSubnet of the node that an object is of, and
// of those that claim an address which the object names: it may be theirs now.
func (r *NodeSubnetReconciler) withClaimants(ctx context.Context, o client.Object) []ctrl.Request {
	var addresses []string
	name := o.GetName()
	switch o := o.(type) {
	case *corev1.Node:
		addresses = statusAddresses(o)
	case *podnetv1alpha1.NodeNetwork:
		addresses = oneOfEachFamily(o.Status.Endpoints)
	case *podnetv1alpha1.NodeSubnet:
		name, addresses = o.Spec.Node, o.Spec.Endpoints
	}
	names := []string{name}
	for _, address := range addresses {
		with, err := namesWith(ctx, r, address)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "cannot look for other claims of an address")
		}
		names = append(names, with...)
	}
	slices.Sort(names)
	var requests []ctrl.Request
	for _, name := range slices.Compact(names) {
		requests = append(requests, r.subnets(ctx, client.MatchingFields{objects.NodeField: name})...)
	}
	return requests
}

// claimants returns the nodes that addresses may belong to, by address.
func (v *view) claimants() map[string][]claimant {
	nodes, names := map[string]*corev1.Node{}, slices.Collect(maps.Keys(v.ByNode))
	for i := range v.everyNode {
		node := &v.everyNode[i]
		nodes[node.Name] = node
		names = append(names, node.Name)
	}
	slices.Sort(names)
	out := map[string][]claimant{}
	for _, name := range slices.Compact(names) {
		node, report := nodes[name], v.reports[name]
		var addresses []string
		if node != nil {
			addresses = append(statusAddresses(node), claimedEndpoints(node, report)...)
		}
		for _, s := range v.ByNode[name] {
			addresses = append(addresses, s.Spec.Endpoints...)
		}
		slices.Sort(addresses)
		for _, address := range slices.Compact(addresses) {
			if c, found := claimantOf(name, node, report, v.ByNode[name], address); found {
				out[address] = append(out[address], c)
			}
		}
	}
	return out
}

// refusedEndpoints says which nodes claim addresses that others are not told.
func (v *view) refusedEndpoints() metav1.Condition {
	byAddress := v.claimants()
	g := registry{
		ranges: v.Ranges.CIDRs(), services: convert.ServiceCIDRs(v.services),
		claimants: func(address string) ([]claimant, error) { return byAddress[address], nil },
		inBlock: func(addr netip.Addr) (bool, error) {
			return v.Taken.Overlaps(netip.PrefixFrom(addr, addr.BitLen())), nil
		},
	}
	var sentences []string
	for i := range v.everyNode {
		node := &v.everyNode[i]
		for _, address := range claimedEndpoints(node, v.reports[node.Name]) {
			if why, err := g.whyRefused(node, address); err == nil && why != "" {
				kept, err := g.keeps(node, address)
				sentences = append(sentences, refusal{node.Name, address, why, err == nil && kept}.String()+".")
			}
		}
	}
	c := metav1.Condition{
		Type: podnetv1alpha1.ConditionEndpointsRefused, Status: metav1.ConditionFalse, Reason: podnetv1alpha1.ReasonEndpointsAccepted,
		Message: "Every endpoint that a node reports is its alone.",
	}
	if len(sentences) == 0 {
		return c
	}
	slices.Sort(sentences)
	first := sentences[:min(len(sentences), messages.Named)]
	if more := len(sentences) - len(first); more > 0 {
		first = append(slices.Clone(first), fmt.Sprintf("%d more are not listed.", more))
	}
	c.Status, c.Reason = metav1.ConditionTrue, podnetv1alpha1.ReasonEndpointsRefused
	c.Message = messages.Clip(messages.Condition, strings.Join(first, " ")+" Choose other addresses for these nodes (agent.nodeInterface, agent.nodeCIDRs), or correct their InternalIPs.")
	return c
}
