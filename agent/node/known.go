package node

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
)

const (
	// firstAsk is the least time between two reads of the Node, and, twice as much at
	// most, the time to the first one that is tried again. It doubles up to lastAsk.
	firstAsk = 5 * time.Second
	lastAsk  = 5 * time.Minute
	// askTimeout bounds a read that the API server holds up.
	askTimeout = 5 * time.Second
)

// Known are the addresses by which Kubernetes knows the node (InternalIP). Nobody
// tells an agent when they change, as it must not watch Nodes: it reads its own when it
// starts and when the node's own addresses changed, and then now and then until
// Kubernetes says something else. The kubelet, or the cloud's controller, follows such
// a change minutes later, or when it is told to.
type Known struct {
	// Lost, unless it is nil, is called when an address of the node went. Connections
	// from it are dead, of which nobody tells their programs. It must not block.
	Lost func()

	read func(ctx context.Context) ([]netip.Addr, error)
	wake loop.Signal

	mu sync.Mutex
	// addrs are Kubernetes' addresses as they were read last.
	addrs []netip.Addr
	// own are the node's own as they were found last, sorted; nil before the first time.
	own []netip.Addr
	// unsettled says that Kubernetes may be about to say something else.
	unsettled bool
}

// NewKnown returns what is known first, and reads by read what is known later. That
// returns no addresses where Kubernetes knows none.
func NewKnown(first []netip.Addr, read func(ctx context.Context) ([]netip.Addr, error)) *Known {
	return &Known{read: read, wake: loop.NewSignal(), addrs: first}
}

// addresses returns the addresses that are known now, given the node's own. It
// does not wait for the API server: where it may have something else to say it is
// asked meanwhile.
func (k *Known) addresses(has []model.Endpoint) []netip.Addr {
	own := []netip.Addr{}
	for _, e := range has {
		own = append(own, e.Addr)
	}
	slices.SortFunc(own, netip.Addr.Compare)
	k.mu.Lock()
	defer k.mu.Unlock()
	elsewhere := slices.ContainsFunc(k.addrs, func(a netip.Addr) bool { return !slices.Contains(own, a) })
	changed := !slices.Equal(own, k.own)
	lost := slices.ContainsFunc(k.own, func(a netip.Addr) bool { return !slices.Contains(own, a) })
	if lost && k.Lost != nil {
		k.Lost()
	}
	if changed || elsewhere && !k.unsettled {
		k.wake.Raise()
	}
	k.unsettled = k.unsettled || elsewhere || changed && k.own != nil
	k.own = own
	return k.addrs
}

// Run reads the Node when it is to be read, until ctx ends, and calls changed when
// Kubernetes knows the node by other addresses.
func (k *Known) Run(ctx context.Context, changed func()) error {
	delay := firstAsk
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
			delay = firstAsk
		case <-again:
			delay = min(2*delay, lastAsk)
		}
		failed := k.ask(ctx, changed)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(firstAsk):
		}
		again = nil
		if failed || k.isUnsettled() {
			again = time.After(wait.Jitter(delay, 1))
		}
	}
}

// ask reads the Node once. What cannot be read, or says nothing, stays as it was.
func (k *Known) ask(ctx context.Context, changed func()) (failed bool) {
	reading, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	addrs, err := k.read(reading)
	if err != nil {
		log.FromContext(ctx).Info("cannot read this node's addresses, trying again", "reason", err.Error())
		return true
	}
	k.mu.Lock()
	other := len(addrs) > 0 && !slices.Equal(addrs, k.addrs)
	if other {
		log.FromContext(ctx).Info("Kubernetes knows this node by other addresses now", "were", k.addrs, "are", addrs)
		k.addrs, k.unsettled = addrs, false
	}
	k.mu.Unlock()
	if other {
		changed()
	}
	return false
}

func (k *Known) isUnsettled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unsettled
}
