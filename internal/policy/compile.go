package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Result is what network policy makes of a node.
type Result struct {
	// Tables are those of nftables: one of the inet family and, where a pod on a
	// bridge is isolated, one of the bridge family.
	Tables []nft.Table
	// Unknown are the attached pods of which it is unknown whether a policy
	// selects them. Whatever one may forbid is forbidden to them.
	Unknown []model.Pod
	// Counted are the rules whose packets are counted, and NotCounted the policies that
	// are too many to be.
	Counted    []CountedRule
	NotCounted []string
	// TooLarge are the NetworkPolicies that allow nothing, as those of their namespace name
	// more blocks than MostBlocks, and Closed the namespaces of which none does in some
	// direction, as they would cost more than MostElements.
	TooLarge, Closed []string
}

// Build computes the tables of a node with these pods attached. Their addresses are
// those that they were attached with, whatever their objects say.
func (x *Index) Build(attached []model.Pod) Result {
	b := &build{Index: x, portSets: map[string]ports{}}
	b.join(attached)
	for _, d := range directions {
		b.compile(d)
	}
	counted, left := b.counted()
	slices.Sort(b.closed)
	result := Result{NotCounted: left, TooLarge: b.tooLarge, Closed: slices.Compact(b.closed)}
	result.Tables, result.Counted = b.tables(counted)
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
	// shared are the addresses that are not attached and that more than one pod says it has.
	shared []sharedAddr
	// closed are the namespaces whose policies would cost too much.
	closed []string
	// decided is what each direction came to.
	decided [len(directions)]decision
	// portSets are the sets of ports that pods and identities have in common, by name.
	portSets map[string]ports
}

// sharedAddr is an address that any of some pods may have, or that is the one's that is left.
type sharedAddr struct {
	addrKey
	pods []*indexedPod
}

// localPod is a pod that hangs on this node.
type localPod struct {
	model.Pod
	keys []addrKey
	// object is nil where it is unknown.
	object  *indexedPod
	unknown bool
	// classes say what is allowed in each direction; nil where no policy is about it.
	classes [len(directions)]*class
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
	for a, pods := range b.contested {
		left := claimants(pods, func(p *indexedPod) bool { return b.attached[p] })
		if len(left) > 0 && !b.claimed[a] {
			b.shared = append(b.shared, sharedAddr{keyOf(a), left})
		}
	}
}
