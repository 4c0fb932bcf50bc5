package allocation

import (
	"net/netip"
	"sync"

	"k8s.io/client-go/tools/cache"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// ledger is what NodeSubnets take, those of other networks and those at rest
// included. It follows their informer, and the manager's own creations ahead of
// it, so that giving out a block costs the same however many there are. What it
// does not know yet costs a refused Create, and no more.
type ledger struct {
	mu    sync.Mutex
	taken ipam.Taken
	known map[string]netip.Prefix
	// lost are the blocks whose NodeSubnets disappeared without having been released,
	// and the nodes that held them, until there are NodeSubnets for them again.
	lost map[netip.Prefix]string
	// reserved are blocks that are nobody's and are kept from being given out, by the
	// node whose pods use them as its agent says.
	reserved map[string][]netip.Prefix
	// vanished is called when a NodeSubnet disappears that was not released.
	vanished func(subnet *podnetv1alpha1.NodeSubnet)
	synced   func() bool
}

func newLedger(vanished func(*podnetv1alpha1.NodeSubnet)) *ledger {
	return &ledger{
		known: map[string]netip.Prefix{}, lost: map[netip.Prefix]string{}, reserved: map[string][]netip.Prefix{},
		vanished: vanished, synced: func() bool { return false },
	}
}

// pick returns, for each demand, the lowest free blocks of the first of its ranges
// that have any, fewer where there are not so many. All are picked at once: of two
// nodes that want the last blocks of both families, one gets both. They
// count as taken until the caller gives them back, whatever it does with them.
func (l *ledger) pick(demands ...demand) [][]netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([][]netip.Prefix, len(demands))
	for i, d := range demands {
		for _, r := range d.ranges {
			for len(out[i]) < d.blocks {
				block, found := l.taken.Next(r.Range)
				if !found {
					break
				}
				l.taken.Take(block)
				out[i] = append(out[i], block)
			}
		}
	}
	return out
}

// demand is so many blocks of the first ranges that have them.
type demand struct {
	ranges Pool
	blocks int
}

// scarce reports whether a tenth or less of the blocks of the ranges is free.
func (l *ledger) scarce(ranges Pool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var free, total int64
	for _, r := range ranges {
		free, total = ipam.Sum(free, l.taken.Free(r.Range)), ipam.Sum(total, r.Total())
	}
	return free <= total/lowShare
}

// giveBack undoes pick.
func (l *ledger) giveBack(blocks []netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, block := range blocks {
		l.taken.GiveBack(block)
	}
}

// add enters a NodeSubnet.
func (l *ledger) add(name, cidr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	block, err := netip.ParsePrefix(cidr)
	if _, known := l.known[name]; known || err != nil {
		return
	}
	l.known[name] = block.Masked()
	l.taken.Take(block.Masked())
	delete(l.lost, block.Masked())
}

// lostBy returns the node that held a block whose NodeSubnet disappeared without having been
// released; empty where this manager saw nothing of the kind.
func (l *ledger) lostBy(block netip.Prefix) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[block]
}

// reserve keeps blocks from being given out as long as the agent of a node names
// them, in place of those that it named before.
func (l *ledger) reserve(node string, blocks []netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, block := range l.reserved[node] {
		l.taken.GiveBack(block)
	}
	for _, block := range blocks {
		l.taken.Take(block)
	}
	if len(blocks) == 0 {
		delete(l.reserved, node)
	} else {
		l.reserved[node] = blocks
	}
}

// lose remembers whose block it was.
func (l *ledger) lose(s *podnetv1alpha1.NodeSubnet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if block, known := l.known[s.Name]; known {
		l.lost[block] = s.Spec.Node
	}
}

func (l *ledger) remove(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if block, known := l.known[name]; known {
		delete(l.known, name)
		l.taken.GiveBack(block)
	}
}

// OnAdd implements cache.ResourceEventHandler.
func (l *ledger) OnAdd(o any, _ bool) {
	if s, ok := o.(*podnetv1alpha1.NodeSubnet); ok {
		l.add(s.Name, s.Spec.CIDR)
	}
}

// OnUpdate implements cache.ResourceEventHandler: a block never changes its
// addresses, but an update may stand for a deletion and a creation.
func (l *ledger) OnUpdate(before, after any) {
	was, ok := before.(*podnetv1alpha1.NodeSubnet)
	if is, also := after.(*podnetv1alpha1.NodeSubnet); ok && also && was.UID != is.UID {
		l.OnDelete(was)
		l.OnAdd(is, false)
	}
}

// OnDelete implements cache.ResourceEventHandler.
func (l *ledger) OnDelete(o any) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	s, ok := o.(*podnetv1alpha1.NodeSubnet)
	if !ok {
		return
	}
	// First, so that nobody takes the block before it is known why it is free.
	if s.Spec.Network == podnetv1alpha1.DefaultPodNetwork && s.Spec.NodeUID != "" && s.Spec.State != podnetv1alpha1.SubnetReleased {
		l.lose(s)
		l.vanished(s)
	}
	l.remove(s.Name)
}
