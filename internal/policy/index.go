package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/podnet/podnet/internal/model"
)

// Index is what the objects of the cluster say, arranged so that Build need not
// look at all of them. It does not change.
type Index struct {
	// policies are by namespace, sorted by name.
	policies map[string][]model.NetworkPolicy
	// tooLarge are the names of those that allow nothing, as their namespace names too many blocks.
	tooLarge []string
	// tiers are the cluster's policies of each tier, in the order in which they are asked.
	tiers [tierCount][]model.ClusterPolicy
	// namespaces are the labels of each namespace.
	namespaces map[string]map[string]string
	// groups are the pods that selectors cannot tell apart, by namespace.
	groups map[string][]*podGroup
	pods   map[podName]*indexedPod
	// nodes are all addresses of nodes. More than one node may say that it has one.
	nodes map[netip.Addr][]nodeAddress
	// contested are the addresses that more than one pod says it has.
	contested map[netip.Addr][]*indexedPod
	// ranges are the addresses that pods may have.
	ranges *netipx.IPSet
	// sample says that the kernel gives some of the packets that it denies to the agent.
	sample bool
}

// tierCount is the number of tiers of the cluster's policies.
const tierCount = 2

type podName struct{ namespace, name string }

// podGroup are the pods of a namespace that have the same labels.
type podGroup struct {
	labels map[string]string
	pods   []*indexedPod
}

// indexedPod is a pod that can be a peer.
type indexedPod struct {
	*model.ClusterPod
	group *podGroup
	// addrs are the addresses that are the pod's and that no other pod says it has.
	addrs []addrKey
}

// addrKey is an address, and how it is written as the key of an element.
type addrKey struct {
	netip.Addr
	key []string
}

func keyOf(a netip.Addr) addrKey { return addrKey{a, []string{a.String()}} }

// NewIndex arranges objects. The blocks say which addresses in the pod ranges are
// those of nodes.
func NewIndex(o model.PolicyObjects, blocks []model.Block) *Index {
	x := &Index{
		policies:   map[string][]model.NetworkPolicy{},
		namespaces: make(map[string]map[string]string, len(o.Namespaces)),
		groups:     map[string][]*podGroup{},
		pods:       make(map[podName]*indexedPod, len(o.Pods)),
		ranges:     podRanges(o.Ranges, blocks),
		contested:  map[netip.Addr][]*indexedPod{},
		sample:     o.Sample,
	}
	served := servedBlocks(blocks)
	x.nodes = nodeAddresses(blocks, served, x.ranges)
	for _, p := range o.NetworkPolicies {
		x.policies[p.Namespace] = append(x.policies[p.Namespace], p)
	}
	for _, namespace := range slices.Sorted(maps.Keys(x.policies)) {
		policies := x.policies[namespace]
		slices.SortFunc(policies, func(a, b model.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
		kept, left := withinBlocks(policies)
		x.policies[namespace], x.tooLarge = kept, append(x.tooLarge, left...)
	}
	for _, p := range o.ClusterPolicies {
		x.tiers[p.Tier] = append(x.tiers[p.Tier], p)
	}
	for _, policies := range x.tiers {
		slices.SortFunc(policies, func(a, b model.ClusterPolicy) int {
			return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Name, b.Name))
		})
	}
	for _, n := range o.Namespaces {
		x.namespaces[n.Name] = n.Labels
	}
	byLabels := map[string]*podGroup{}
	for i := range o.Pods {
		p := &o.Pods[i]
		// Packets of a pod in the node's network are the node's: nobody can tell them apart.
		if p.HostNetwork {
			continue
		}
		key := p.Namespace + "\x00" + labelsKey(p.Labels)
		group := byLabels[key]
		if group == nil {
			group = &podGroup{labels: p.Labels}
			byLabels[key] = group
			x.groups[p.Namespace] = append(x.groups[p.Namespace], group)
		}
		indexed := &indexedPod{ClusterPod: p, group: group}
		group.pods = append(group.pods, indexed)
		x.pods[podName{p.Namespace, p.Name}] = indexed
	}
	x.giveAddresses(served)
	return x
}

func labelsKey(labels map[string]string) string {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		key.WriteString(name)
		key.WriteByte('=')
		key.WriteString(labels[name])
		// Neither names nor values of labels have a comma.
		key.WriteByte(',')
	}
	return key.String()
}

// podRanges returns the addresses that pods may have.
func podRanges(ranges []netip.Prefix, blocks []model.Block) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, r := range ranges {
		b.AddPrefix(r)
	}
	for _, block := range blocks {
		b.AddPrefix(block.CIDR)
	}
	set, err := b.IPSet()
	if err != nil {
		// Only of prefixes that are not valid, of which neither has any.
		return &netipx.IPSet{}
	}
	return set
}

// CanAttach reports whether it is known which policies select a pod. Pods of no
// namespace are not Kubernetes' and no policy's.
func (x *Index) CanAttach(p model.Pod) bool {
	object := x.lookup(p)
	if object == nil && len(x.policies[p.Namespace]) > 0 {
		return false
	}
	for _, policies := range x.tiers {
		for i := range policies {
			if _, sure := x.isSubject(&policies[i], p.Namespace, object); !sure {
				return false
			}
		}
	}
	return true
}

// lookup returns the object of an attached pod, and nil where there is none, or
// only one of a former pod of the same name.
func (x *Index) lookup(p model.Pod) *indexedPod {
	found := x.pods[podName{p.Namespace, p.Name}]
	if found == nil || p.UID != "" && found.UID != "" && p.UID != found.UID {
		return nil
	}
	return found
}
