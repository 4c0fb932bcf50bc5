package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// Result is what network policy makes of a node.
type Result struct {
	// Tables are those of nftables: one of the inet family and, where a pod on a
	// bridge is isolated, one of the bridge family.
	Tables []model.Table
	// Unknown are the attached pods whose labels are not known although a policy
	// of their namespace may select them. Nothing may reach them, or leave them, in
	// the directions that such policies isolate.
	Unknown []model.Pod
}

// Index is what the objects of the cluster say, arranged so that Build need not
// look at all of them. It does not change.
type Index struct {
	// policies are by namespace, sorted by name.
	policies map[string][]model.NetworkPolicy
	// namespaces are the labels of each namespace.
	namespaces map[string]map[string]string
	// groups are the pods that selectors cannot tell apart, by namespace.
	groups map[string][]*podGroup
	pods   map[podName]*indexedPod
	// nodes are the addresses that nodes have in the pod ranges, and the address
	// that each is judged by.
	nodes map[netip.Addr]netip.Addr
}

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
	// addrs are the addresses that are the pod's, and no younger pod's or a node's.
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
		nodes:      nodeAddresses(blocks),
	}
	for _, p := range o.NetworkPolicies {
		x.policies[p.Namespace] = append(x.policies[p.Namespace], p)
	}
	for _, policies := range x.policies {
		slices.SortFunc(policies, func(a, b model.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
	}
	for _, n := range o.Namespaces {
		x.namespaces[n.Name] = n.Labels
	}
	owners := ownersOf(o.Pods)
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
		for _, a := range addrsOf(p) {
			if _, isNode := x.nodes[a]; owners[a] == p && !isNode {
				indexed.addrs = append(indexed.addrs, keyOf(a))
			}
		}
		group.pods = append(group.pods, indexed)
		x.pods[podName{p.Namespace, p.Name}] = indexed
	}
	return x
}

// ownersOf says whose each address is. A pod that has ended, or is about to, may
// still name an address that another one has by now: the younger pod's it is.
func ownersOf(pods []model.ClusterPod) map[netip.Addr]*model.ClusterPod {
	owners := make(map[netip.Addr]*model.ClusterPod, len(pods))
	for i := range pods {
		p := &pods[i]
		if p.HostNetwork {
			continue
		}
		for _, a := range addrsOf(p) {
			if o := owners[a]; o == nil || younger(p, o) {
				owners[a] = p
			}
		}
	}
	return owners
}

// addrsOf returns the addresses of a pod, each once.
func addrsOf(p *model.ClusterPod) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range p.Addrs {
		a = a.Unmap().WithZone("")
		if a.IsValid() && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

func younger(a, b *model.ClusterPod) bool {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name)) > 0
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

// nodeAddresses returns the addresses that nodes have in the pod ranges, with those
// by which other nodes reach them. A node may have the base address of any of its
// blocks. Where it has no endpoint of the family, the address stands for itself.
func nodeAddresses(blocks []model.Block) map[netip.Addr]netip.Addr {
	nodes := make(map[netip.Addr]netip.Addr, len(blocks))
	for _, b := range blocks {
		own := ipam.NodeAddress(b.CIDR)
		judged := own
		if e, ok := b.Endpoint(own.Is4()); ok {
			judged = e
		}
		nodes[own] = judged
	}
	return nodes
}

// CanAttach says whether it is known which policies select a pod: its labels are,
// or no policy of its namespace could select it. Pods of no namespace are not
// Kubernetes' and no policy's.
func (x *Index) CanAttach(p model.Pod) bool {
	return x.lookup(p) != nil || len(x.policies[p.Namespace]) == 0
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

// Build computes the tables of a node with these pods attached. Their addresses are
// those that they were attached with, whatever their objects say.
func (x *Index) Build(attached []model.Pod) Result {
	b := &build{Index: x, portSets: map[string]ports{}}
	b.join(attached)
	for _, d := range directions {
		b.compile(d)
	}
	result := Result{Tables: b.tables()}
	for _, l := range b.local {
		if l.unknown {
			result.Unknown = append(result.Unknown, l.Pod)
		}
	}
	return result
}

// build is one computation.
type build struct {
	*Index
	// local are the attached pods, sorted.
	local []*localPod
	// attached are the objects of attached pods, and claimed the addresses of these.
	attached map[*indexedPod]bool
	claimed  map[netip.Addr]bool
	// decided is what each direction came to.
	decided [len(directions)]decision
	// portSets are the sets of ports that pods and identities have in common, by name.
	portSets map[string]ports
}

// localPod is a pod that hangs on this node.
type localPod struct {
	model.Pod
	keys []addrKey
	// object is nil where it is not known.
	object  *indexedPod
	unknown bool
	// isolated says in which directions a policy selects the pod, and classes what
	// is allowed then.
	isolated [len(directions)]bool
	classes  [len(directions)]*class
}

// join finds the objects of the attached pods.
func (b *build) join(attached []model.Pod) {
	b.attached, b.claimed = map[*indexedPod]bool{}, map[netip.Addr]bool{}
	for _, p := range attached {
		l := &localPod{Pod: p, object: b.lookup(p)}
		if l.object != nil {
			b.attached[l.object] = true
		}
		for _, a := range p.Addrs {
			b.claimed[a] = true
			l.keys = append(l.keys, keyOf(a))
		}
		b.local = append(b.local, l)
	}
	slices.SortFunc(b.local, func(x, y *localPod) int {
		return cmp.Or(strings.Compare(x.ContainerID, y.ContainerID), strings.Compare(x.IfName, y.IfName))
	})
}
