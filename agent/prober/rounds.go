package prober

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
)

// What bounds the rate of a node's probes, however many nodes there are. A round is
// the probes that are sent to a block at one time.
const (
	// idleRate is how many rounds a second go to paths in good standing that nobody
	// uses, all together, and idleInterval the least time between two of a path.
	idleRate     = 40
	idleInterval = time.Second
	// activeRate is how many rounds a second go to paths that are in use.
	activeRate = 1000
	// doubtRate is how many go to paths of which more has to be known.
	doubtRate = 400
	// fewPairs is how many pairs of blocks are all probed as if they were in use.
	fewPairs = 10
	// spread is the share by which an interval is longer or shorter than it says.
	spread = 0.1
)

// How long an answer is waited for: a multiple of the time that answers have taken,
// within bounds. A later one still tells how long answers take.
const (
	timeoutFactor = 4
	firstTimeout  = 250 * time.Millisecond
	leastTimeout  = 100 * time.Millisecond
	mostTimeout   = time.Second
	lateness      = 2 * time.Second
)

// pair is a block of this node and one of another.
type pair struct {
	target *target
	// from is this node's end.
	from    netip.Addr
	machine paths.Machine
	// pace is that of the last round.
	pace paths.Pace
	// due is when the next round is, and full when the next of both paths.
	due, full time.Time
	// reserved says that due is when the rate allows the round.
	reserved bool
	// flights are the rounds that are not evaluated yet, the oldest first.
	flights []*flight
	// took is about how long answers take; 0 for unknown.
	took  time.Duration
	index int
}

// flight is a round that is under way.
type flight struct {
	pair      *pair
	round     paths.Round
	deadline  time.Time
	nonces    []nonce
	left      int
	evaluated bool
}

// queue holds pairs, the one that is due next first.
type queue []*pair

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface. The queue is only ever made as a whole.
func (q *queue) Push(x any) {
	r, ok := x.(*pair)
	if ok {
		r.index = len(*q)
		*q = append(*q, r)
	}
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// airborne holds rounds, the one whose time is over next first.
type airborne []*flight

func (a airborne) Len() int           { return len(a) }
func (a airborne) Less(i, j int) bool { return a[i].deadline.Before(a[j].deadline) }
func (a airborne) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *airborne) Push(x any) {
	if f, ok := x.(*flight); ok {
		*a = append(*a, f)
	}
}

// Pop implements heap.Interface.
func (a *airborne) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// turn evaluates the rounds whose time is over, sends those that are due, and returns
// how long to wait for the next turn.
func (p *Prober) turn(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.airborne) > 0 && !now.Before(p.airborne[0].deadline) {
		f, ok := heap.Pop(&p.airborne).(*flight)
		if ok && !f.evaluated {
			p.evaluate(f.pair, now)
		}
		p.late = append(p.late, f)
	}
	for len(p.late) > 0 && now.Sub(p.late[0].deadline) > lateness {
		p.forget(p.late[0])
		p.late = p.late[1:]
	}
	for len(p.queue) > 0 && !now.Before(p.queue[0].due) {
		p.fly(p.queue[0], now)
		heap.Fix(&p.queue, 0)
	}
	next := now.Add(idleInterval)
	if len(p.queue) > 0 && p.queue[0].due.Before(next) {
		next = p.queue[0].due
	}
	if len(p.airborne) > 0 && p.airborne[0].deadline.Before(next) {
		next = p.airborne[0].deadline
	}
	return max(next.Sub(now), time.Millisecond)
}

func (p *Prober) forget(f *flight) {
	for _, n := range f.nonces {
		delete(p.flights, n)
	}
}

// pace returns the pace of a pair.
func (p *Prober) pace(r *pair) paths.Pace {
	return r.machine.Next(r.target.Ways, p.inUse(r.target), r.target.wish)
}

// inUse reports whether this node talks to a block, or it has so few that it may.
func (p *Prober) inUse(t *target) bool { return t.active || len(p.pairs) <= fewPairs }

// interval returns the time until the next round of a pace.
func (p *Prober) interval(pace paths.Pace) time.Duration {
	every := max(idleInterval, time.Duration(len(p.pairs))*time.Second/idleRate)
	switch pace {
	case paths.Doubt:
		every = paths.DoubtInterval
	case paths.Active:
		every = max(paths.ActiveInterval, time.Duration(p.actives)*time.Second/activeRate)
	case paths.Waiting:
		every = paths.WaitingInterval
	case paths.Idle:
	}
	return time.Duration(float64(every) * (1 - spread + 2*spread*rand.Float64())) //nolint:gosec // It need not be unpredictable.
}

// hasten brings the next round of a pair forward where its pace asks for it.
func (r *pair) hasten(p *Prober, now time.Time) {
	if r.reserved {
		return
	}
	if due := now.Add(p.interval(p.pace(r))); due.Before(r.due) {
		r.due = due
	}
}

// fly sends a round.
func (p *Prober) fly(r *pair, now time.Time) {
	pace := p.pace(r)
	if pace == paths.Doubt || pace == paths.Waiting {
		if wait := p.reserve(r, now); wait > 0 {
			r.due, r.reserved = now.Add(wait), true
			return
		}
	}
	r.reserved = false
	interval := p.interval(pace)
	if pace == paths.Idle && r.pace != paths.Idle {
		// Pairs that have settled together are not probed together ever after.
		interval = time.Duration(float64(interval) * rand.Float64()) //nolint:gosec // It need not be unpredictable.
	}
	r.pace, r.due = pace, now.Add(interval)
	if pace == paths.Active && !now.Before(r.full) {
		pace = paths.Idle
	}
	if pace != paths.Active {
		r.full = now.Add(p.interval(paths.Idle))
	}
	sockets := p.sockets[r.from]
	if sockets == nil {
		return
	}
	ways := r.target.Ways
	f := &flight{
		pair: r, round: paths.Round{At: now, Results: make([]paths.Result, len(ways))}, deadline: now.Add(r.timeout()),
		nonces: make([]nonce, len(ways)),
	}
	for way, sizes := range r.machine.Sizes(pace, ways) {
		if len(sizes) == 0 {
			continue
		}
		f.nonces[way] = freshNonce()
		p.flights[f.nonces[way]] = f
		f.round.Results[way].Sent = sizes
		f.left += len(sizes)
		for _, size := range sizes {
			m := message{size: size, network: p.network, nonce: f.nonces[way]}
			// What is not sent does not come back.
			_ = asking(sockets, way).send(m, r.target.addr, p.buffer)
			probesSent.WithLabelValues(string(ways[way].Path)).Inc()
		}
		if r.machine.Bare(pace, ways[way], way) {
			m := message{size: paths.BareSize, bare: true, network: p.network, nonce: f.nonces[way]}
			_ = asking(sockets, way).send(m, r.target.addr, p.buffer)
		}
	}
	if f.left > 0 {
		r.flights = append(r.flights, f)
		heap.Push(&p.airborne, f)
	}
}

// reserve returns how long a round of a pair has to wait for its turn, paths in use
// apart from others.
func (p *Prober) reserve(r *pair, now time.Time) time.Duration {
	if r.reserved {
		return 0
	}
	limiter := p.doubts
	if p.inUse(r.target) {
		limiter = p.urgent
	}
	return limiter.ReserveN(now, 1).DelayFrom(now)
}

// asking returns the one of an address's sockets that sends the requests of a way.
func asking(sockets []*socket, way int) *socket {
	return sockets[slices.IndexFunc(sockets, func(s *socket) bool { return s.kind == request && s.way == way })]
}

func (r *pair) timeout() time.Duration {
	if r.took == 0 {
		return firstTimeout
	}
	return min(max(timeoutFactor*r.took, leastTimeout), mostTimeout)
}

// answered takes an answer.
func (p *Prober) answered(from netip.Addr, m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	f := p.flights[m.nonce]
	if f == nil || m.way >= len(f.nonces) || f.nonces[m.way] != m.nonce || f.pair.target.addr != from || m.network != p.network {
		return
	}
	result := &f.round.Results[m.way]
	if m.bare {
		result.Bare = true
		return
	}
	if !slices.Contains(result.Sent, m.size) || slices.Contains(result.Back, m.size) {
		return
	}
	probesAnswered.WithLabelValues(string(model.Ways[m.way].Path)).Inc()
	f.pair.learn(now.Sub(f.round.At))
	if f.evaluated {
		return
	}
	result.Back = append(result.Back, m.size)
	if f.left--; f.left == 0 {
		p.evaluate(f.pair, now)
	}
}

// learn follows how long answers take: at once when they take longer, and slowly
// when they take less.
func (r *pair) learn(took time.Duration) {
	if took > r.took {
		r.took = took
		return
	}
	r.took -= (r.took - took) / 16
}

// evaluate evaluates the rounds of a pair that are complete or overdue, in their order.
func (p *Prober) evaluate(r *pair, now time.Time) {
	for len(r.flights) > 0 {
		f := r.flights[0]
		if f.left > 0 && now.Before(f.deadline) {
			break
		}
		f.evaluated = true
		r.flights = r.flights[1:]
		r.machine.Evaluate(f.round)
	}
	if p.targets[r.target.Block] != r.target {
		return
	}
	p.consider(r.target, now)
}

// consider asks for a pass where the choice of a path is no longer what it was, and
// brings forward what has to be known soon.
func (p *Prober) consider(t *target, now time.Time) {
	e := t.evidence(now)
	d := paths.Choose(t.PathQuestion, e)
	t.wish = d.Wish
	if is := newsOf(d.Path, d.Proof, e.Corrupted()); is != t.announced {
		t.announced = is
		p.cfg.Changed()
	}
	for _, r := range t.pairs {
		if due := r.due; r.index < len(p.queue) && p.queue[r.index] == r {
			if r.hasten(p, now); r.due != due {
				heap.Fix(&p.queue, r.index)
				p.wake.Raise()
			}
		}
	}
}
