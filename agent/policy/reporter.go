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
	// reportInterval is the time in which packets of one kind are reported once.
	reportInterval = time.Minute
	// podEvents is how many Events a pod gets in that time at most.
	podEvents = 3
)

// Log gives the sample of denied packets that rules give to the agent.
type Log interface {
	// WatchDenied calls seen with each, until ctx ends, and ready when rules may be made to
	// give them.
	WatchDenied(ctx context.Context, ready func(), seen func(model.DeniedPacket)) error
}

// reporter reports the sample of denied packets that the kernel gives, while the network
// asks for it. The kernel's limit bounds what it remembers.
type reporter struct {
	// event records an Event on a denial.
	event func(compiler.Denial)

	mu   sync.Mutex
	mode model.DeniedPackets
	// changed is closed when packets are to be reported, or not any more.
	changed chan struct{}
	// listens says that the kernel can give packets; else failed says why not, unless
	// none are asked for.
	listens bool
	failed  error
	// since is when the minute began of which reported and events are: packets, without the
	// client's port, and how many Events each pod got.
	since    time.Time
	reported map[model.DeniedPacket]bool
	events   map[string]int
}

func newReporter(event func(compiler.Denial)) *reporter {
	return &reporter{event: event, changed: make(chan struct{})}
}

// want sets how denied packets are to be reported, and returns whether the kernel shall
// give a sample. It shall once somebody listens, as it refuses rules that it cannot execute.
func (r *reporter) want(mode model.DeniedPackets) (sample bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mode.Reported() != r.mode.Reported() {
		close(r.changed)
		r.changed = make(chan struct{})
		r.failed = nil
	}
	r.mode = mode
	return mode.Reported() && r.listens
}

// wanted reports whether packets are to be reported, until changed is closed.
func (r *reporter) wanted() (wanted bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mode.Reported(), r.changed
}

func (r *reporter) set(listens bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listens = listens
	if r.mode.Reported() {
		r.failed = err
	}
}

// problems returns why denied packets are not reported.
func (r *reporter) problems() []model.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return nil
	}
	return []model.Problem{{
		Reason: model.ReasonDegraded,
		Message: fmt.Sprintf("Packets that network policy denies are not reported, which spec.policy.denied of the PodNetwork asks for: %v. "+
			"They are denied and counted all the same.", r.failed),
	}}
}

// ReportDenied reports denied packets while the network asks for it, until ctx ends.
func (e *Enforcer) ReportDenied(ctx context.Context) error {
	retry := loop.Backoff{First: firstRetry}
	for ctx.Err() == nil {
		wanted, changed := e.reporter.wanted()
		var again <-chan time.Time
		if wanted {
			err := e.listen(ctx, changed)
			e.reporter.set(false, err)
			e.Trigger()
			if err != nil {
				after := retry.Next()
				log.FromContext(ctx).Error(err, "cannot report denied packets, trying again", "after", after.String())
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

// listen reports packets until the network asks for something else, or that fails.
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
		e.reporter.set(true, nil)
		e.Trigger()
	}, func(p model.DeniedPacket) {
		index := e.index.Load()
		if index == nil || !e.reporter.isNew(p) {
			return
		}
		if d, ok := index.Explain(e.cfg.Pods(), p); ok {
			e.reporter.report(ctx, d)
		}
	})
}

// isNew reports whether a packet is the first of its kind in a minute. It takes some
// milliseconds to explain one where the cluster is large.
func (r *reporter) isNew(p model.DeniedPacket) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.since) >= reportInterval {
		r.since, r.reported, r.events = time.Now(), map[model.DeniedPacket]bool{}, map[string]int{}
	}
	p.From, p.To, p.ToPort = p.Connection()
	p.FromPort = 0
	if p.Way == model.WayReply {
		p.Way = model.WayOriginal
	}
	known := r.reported[p]
	r.reported[p] = true
	return !known
}

// report reports a denial. A pod gets few Events in a minute.
func (r *reporter) report(ctx context.Context, d compiler.Denial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.mode {
	case model.DeniedLogged:
		log.FromContext(ctx).Info("network policy denied a packet", "pod", d.Pod.Namespace+"/"+d.Pod.Name,
			"direction", d.Direction, "packet", d.Connection, "reason", d.Reason)
	case model.DeniedEvents:
		if r.events[d.Pod.ContainerID]++; r.events[d.Pod.ContainerID] <= podEvents {
			r.event(d)
		}
	case model.DeniedIgnored:
	}
}
