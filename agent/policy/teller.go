package policy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
	compiler "github.com/podnet/podnet/internal/policy"
)

const (
	// alike is the time in which what is alike is told once.
	alike = time.Minute
	// podEvents is how many Events a pod gets in that time at most.
	podEvents = 3
)

// Log gives the sample of denied packets that rules give to the agent.
type Log interface {
	// WatchDenied calls told with each, until ctx ends, and ready when rules may be made to
	// give them.
	WatchDenied(ctx context.Context, ready func(), told func(model.DeniedPacket)) error
}

// teller tells of the sample of denied packets that the kernel gives, while the network
// asks for it. The kernel's limit bounds what it remembers.
type teller struct {
	// event records an Event on a denial.
	event func(compiler.Denial)

	mu   sync.Mutex
	mode model.DeniedPackets
	// changed is closed when packets are to be told of, or not any more.
	changed chan struct{}
	// listens says that the kernel can give packets; else failed says why not, unless
	// none are asked for.
	listens bool
	failed  error
	// since is when the minute began of which told and events are: packets, without the
	// client's port, and how many Events each pod got.
	since  time.Time
	told   map[model.DeniedPacket]bool
	events map[string]int
}

func newTeller(event func(compiler.Denial)) *teller {
	return &teller{event: event, changed: make(chan struct{})}
}

// want says how denied packets are to be told of, and returns whether the kernel shall
// give a sample. It shall once somebody listens, as it refuses rules that it cannot execute.
func (t *teller) want(mode model.DeniedPackets) (sample bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mode.Told() != t.mode.Told() {
		close(t.changed)
		t.changed = make(chan struct{})
		t.failed = nil
	}
	t.mode = mode
	return mode.Told() && t.listens
}

func (t *teller) wanted() (told bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mode.Told(), t.changed
}

func (t *teller) set(listens bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listens = listens
	if t.mode.Told() {
		t.failed = err
	}
}

// problems returns why denied packets are not told of.
func (t *teller) problems() []model.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		return nil
	}
	return []model.Problem{{
		Reason: model.ReasonDegraded,
		Message: fmt.Sprintf("Packets that network policy denies are not told of, as spec.policy.denied of the PodNetwork asks for; "+
			"they are denied and counted all the same: %v.", t.failed),
	}}
}

// Tell tells of denied packets while the network asks for it, until ctx ends.
func (e *Enforcer) Tell(ctx context.Context) error {
	retry := loop.Backoff{First: firstRetry}
	for ctx.Err() == nil {
		told, changed := e.teller.wanted()
		var again <-chan time.Time
		if told {
			err := e.listen(ctx, changed)
			e.teller.set(false, err)
			e.Trigger()
			if err != nil {
				after := retry.Next()
				log.FromContext(ctx).Error(err, "cannot tell of denied packets, trying again", "after", after.String())
				again = time.After(after)
			}
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-changed:
			retry.Reset()
		}
	}
	return nil
}

// listen tells of packets until the network asks for something else, or that fails.
func (e *Enforcer) listen(ctx context.Context, changed <-chan struct{}) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-ctx.Done():
		case <-changed:
			stop()
		}
	}()
	return e.cfg.Log.WatchDenied(ctx, func() {
		e.teller.set(true, nil)
		e.Trigger()
	}, func(p model.DeniedPacket) {
		index := e.index.Load()
		if index == nil || !e.teller.isNew(p) {
			return
		}
		if d, ok := index.Explain(e.cfg.Pods(), p); ok {
			e.teller.tell(ctx, d)
		}
	})
}

// isNew reports whether a packet is the first of its kind in a minute. It takes some
// milliseconds to explain one where the cluster is large.
func (t *teller) isNew(p model.DeniedPacket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.since) >= alike {
		t.since, t.told, t.events = time.Now(), map[model.DeniedPacket]bool{}, map[string]int{}
	}
	p.From, p.To, p.ToPort = p.Connection()
	p.FromPort = 0
	if p.Way == model.WayReply {
		p.Way = model.WayOriginal
	}
	known := t.told[p]
	t.told[p] = true
	return !known
}

// tell tells of a denial. A pod gets few Events in a minute.
func (t *teller) tell(ctx context.Context, d compiler.Denial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.mode {
	case model.DeniedLogged:
		log.FromContext(ctx).Info("network policy denied a packet", "pod", d.Pod.Namespace+"/"+d.Pod.Name,
			"direction", d.Direction, "packet", d.Connection, "reason", d.Reason)
	case model.DeniedEvents:
		if t.events[d.Pod.ContainerID]++; t.events[d.Pod.ContainerID] <= podEvents {
			t.event(d)
		}
	case model.DeniedIgnored:
	}
}
