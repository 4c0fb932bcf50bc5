// Package prober proves paths: it sends probes between this node's blocks and those
// of others, by each path that is possible, from a network namespace of its own
// that hangs on the node as pods do, and answers those of other nodes. When to probe
// and what follows from the answers is left to internal/path; how a probe gets on
// its path to the routes and marks of internal/plan; and which path is put into the
// kernel to the next pass, which it asks for when the choice changes.
//
// The namespace goes with the agent. Then no probe is answered, by neither path,
// which is no reason for other nodes to change anything.
package prober

import (
	"container/heap"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/time/rate"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/paths"
)

// Config is what a Prober works with.
type Config struct {
	// Changed is called when another path is to be taken, or there is something else
	// to say of one. It must not block.
	Changed func()
	// Taken returns which paths are in force. It is asked once, before all else: they
	// are trusted until they are known better.
	Taken func(ctx context.Context) (map[netip.Prefix]model.Path, error)
	// Talking returns addresses in blocks to which this node has sent lately.
	Talking func(ctx context.Context) ([]netip.Addr, error)
}

// Prober proves paths. Its methods may be called concurrently.
type Prober struct {
	cfg  Config
	ns   ns.NetNS
	wake loop.Signal
	// dial opens the socket of an address that sends messages of a kind and way.
	dial func(addr netip.Addr, kind byte, way int) (*socket, error)
	// doubts bounds the rounds that are sent in doubt, urgent those of paths in use.
	doubts, urgent *rate.Limiter

	mu     sync.Mutex
	closed bool
	// buffer is what probes are written into.
	buffer  []byte
	network [16]byte
	// sockets are those of each address.
	sockets map[netip.Addr][]*socket
	probe   model.Pod
	// adopted are the paths that were found in force when the agent started; nil
	// before they were asked for.
	adopted map[netip.Prefix]model.Path
	targets map[netip.Prefix]*target
	// asking are the targets by the addresses from which they ask, which are answered.
	asking map[netip.Addr]*target
	pairs  []*pair
	queue  queue
	// flights are the rounds that are under way, by the nonces of their probes:
	// airborne until their time is over, and late for a while after.
	flights  map[nonce]*flight
	airborne airborne
	late     []*flight
	// actives is how many pairs this node talks to.
	actives int
	cells   cells
}

// target is a block of another node.
type target struct {
	model.PathChoice
	addr netip.Addr
	// pairs are this node's blocks of the family with it, by the address of the former.
	pairs  map[netip.Addr]*pair
	active bool
	wish   model.Path
	// announced is what a pass was asked for last, or is in force.
	announced news
}

// news is what of the evidence a pass is asked for.
type news struct {
	path                       model.Path
	standing                   model.Standing
	mtu                        int
	unheard, silent, corrupted bool
}

// newsOf returns what there is to say of a choice. A path that has just become suspect
// is news only if it stays so.
func newsOf(taken model.Path, proof model.Proof, corrupted bool) news {
	n := news{path: taken, standing: proof.Standing, mtu: proof.MTU, unheard: proof.Unheard, silent: proof.Silent, corrupted: corrupted}
	if n.standing == model.Suspect && !n.silent {
		n.standing = model.Proven
	}
	return n
}

// New makes the namespace from which probes are sent.
func New(cfg Config) (*Prober, error) {
	made, err := ns.TempNetNS()
	if err != nil {
		return nil, fmt.Errorf("make the network namespace of the probes: %w", err)
	}
	p := newProber(cfg)
	p.ns = made
	p.dial = func(addr netip.Addr, kind byte, way int) (s *socket, err error) {
		err = made.Do(func(ns.NetNS) error {
			s, err = listen(addr, kind, way)
			return err
		})
		return s, err
	}
	return p, nil
}

func newProber(cfg Config) *Prober {
	return &Prober{
		cfg: cfg, wake: loop.NewSignal(), buffer: make([]byte, maxPacket),
		doubts:  rate.NewLimiter(doubtRate, doubtRate/10),
		urgent:  rate.NewLimiter(activeRate, activeRate/10),
		sockets: map[netip.Addr][]*socket{}, targets: map[netip.Prefix]*target{}, flights: map[nonce]*flight{},
		asking: map[netip.Addr]*target{},
	}
}

// Netns is the path by which the kernel's side opens the namespace.
func (p *Prober) Netns() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns.Fd()) }

// Close ends all that the prober has open.
func (p *Prober) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for addr := range p.sockets {
		errs = append(errs, p.closeSockets(addr))
	}
	if p.ns != nil {
		errs = append(errs, p.ns.Close())
	}
	return errors.Join(errs...)
}

func (p *Prober) closeSockets(addr netip.Addr) error {
	var errs []error
	for _, s := range p.sockets[addr] {
		errs = append(errs, s.conn.Close())
	}
	delete(p.sockets, addr)
	return errors.Join(errs...)
}

// Evidence returns what is known of the paths to other nodes' blocks.
func (p *Prober) Evidence(ctx context.Context) (map[netip.Prefix]model.Evidence, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.adopted == nil {
		taken, err := p.cfg.Taken(ctx)
		if err != nil {
			return nil, fmt.Errorf("see which paths are in force: %w", err)
		}
		p.adopted = taken
	}
	now := time.Now()
	out := make(map[netip.Prefix]model.Evidence, max(len(p.targets), len(p.adopted)))
	for block, taken := range p.adopted {
		out[block] = paths.Adopted(taken)
	}
	for block, t := range p.targets {
		out[block] = t.evidence(now)
	}
	return out, nil
}

func (t *target) evidence(now time.Time) model.Evidence {
	var all []model.Evidence
	for _, pair := range t.pairs {
		all = append(all, pair.machine.Evidence(now))
	}
	if len(all) == 0 {
		all = append(all, paths.Adopted(t.Path))
	}
	e := paths.Weakest(all)
	e.Node = t.Node
	return e
}

// Listen opens the sockets of an attachment, once it is there, and closes those of
// an earlier one.
func (p *Prober) Listen(probe model.Pod, network string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.network, p.probe = networkID(network), probe
	var errs []error
	for addr := range p.sockets {
		if !slices.Contains(probe.Addrs, addr) {
			errs = append(errs, p.closeSockets(addr))
		}
	}
	for _, addr := range probe.Addrs {
		if p.sockets[addr] != nil {
			continue
		}
		opened, err := p.open(addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.sockets[addr] = opened
	}
	return errors.Join(errs...)
}

// open opens the sockets of an address, and begins to serve them.
func (p *Prober) open(addr netip.Addr) ([]*socket, error) {
	var opened []*socket
	for _, kind := range []byte{request, answer} {
		for way := range model.Ways {
			s, err := p.dial(addr, kind, way)
			if err != nil {
				for _, s := range opened {
					err = errors.Join(err, s.conn.Close())
				}
				return nil, err
			}
			opened = append(opened, s)
		}
	}
	for _, s := range opened {
		go s.serve(p)
	}
	return opened, nil
}

// Aim takes the paths that were chosen, and are in force now.
func (p *Prober) Aim(choices []model.PathChoice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	gone := p.targets
	p.targets = make(map[netip.Prefix]*target, len(choices))
	clear(p.asking)
	for _, c := range choices {
		addr := ipam.ProbeAddress(c.Block)
		if !addr.IsValid() {
			continue
		}
		t := gone[c.Block]
		if t != nil && t.Node != c.Node {
			t = nil
		}
		delete(gone, c.Block)
		t = p.aim(t, c, addr, now)
		p.targets[c.Block], p.asking[addr] = t, t
	}
	clear(p.adopted)
	p.collect(now)
}

// aim brings one target up to date, or makes it.
func (p *Prober) aim(t *target, c model.PathChoice, addr netip.Addr, now time.Time) *target {
	first := t == nil
	if first {
		t = &target{PathChoice: c, addr: addr, pairs: map[netip.Addr]*pair{}}
	}
	was := t.PathChoice
	t.PathChoice = c
	for from := range t.pairs {
		if !slices.Contains(p.probe.Addrs, from) {
			delete(t.pairs, from)
		}
	}
	for _, from := range p.probe.Addrs {
		if from.Is4() != addr.Is4() {
			continue
		}
		pr := t.pairs[from]
		if pr == nil {
			// Of a block that is new to both nobody knows anything. One that came to
			// others shares their path, which is trusted.
			taken := c.Path
			if first {
				taken = p.adopted[c.Block]
			}
			pr = &pair{target: t, from: from, machine: paths.NewMachine(taken, c.Ways), due: now}
			t.pairs[from] = pr
		}
		pr.aim(was)
	}
	t.announced = newsOf(c.Path, c.Proof, c.Corrupter != "")
	t.wish = paths.Choose(c.PathQuestion, t.evidence(now)).Wish
	return t
}

// aim follows what became of the target of a pair.
func (r *pair) aim(was model.PathChoice) {
	c := r.target.PathChoice
	for i, w := range c.Ways {
		switch {
		case !w.Possible():
			r.machine.Forget(i)
		case i >= len(was.Ways) || w.Hop != was.Ways[i].Hop || w.Limit != r.machine.Limit(i):
			r.machine.Moved(i, w.Limit)
		}
	}
	r.machine.Taken = c.Path
}

// collect rebuilds the queue of the pairs that there are.
func (p *Prober) collect(now time.Time) {
	p.pairs = p.pairs[:0]
	for _, t := range p.targets {
		for _, r := range t.pairs {
			p.pairs = append(p.pairs, r)
		}
	}
	p.count()
	p.queue = append(p.queue[:0], p.pairs...)
	for i, r := range p.queue {
		r.index = i
		r.hasten(p, now)
	}
	heap.Init(&p.queue)
	p.cells = newCells(p.targets)
	p.wake.Raise()
}

// count counts the pairs in use.
func (p *Prober) count() {
	p.actives = 0
	for _, r := range p.pairs {
		if p.inUse(r.target) {
			p.actives++
		}
	}
}

// Run sends probes until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { p.watchTalking(ctx) })
	defer parts.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return p.Close()
		case <-timer.C:
		case <-p.wake:
		}
		timer.Reset(p.turn(time.Now()))
	}
}

// mayAsk reports whether a request is answered. Who asks is there: what was silent is
// probed at once.
func (p *Prober) mayAsk(from netip.Addr, network [16]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.asking[from]
	if t == nil || network != p.network {
		return false
	}
	now := time.Now()
	for _, r := range t.pairs {
		if r.machine.Unheard() && r.due.Sub(now) > paths.WaitingInterval && !r.reserved {
			r.due = now
			heap.Fix(&p.queue, r.index)
			p.wake.Raise()
		}
	}
	return true
}

// freshNonce cannot be guessed.
func freshNonce() nonce {
	var n nonce
	// It never fails (crypto/rand).
	_, _ = rand.Read(n[:])
	return n
}

// talkingInterval is how often the kernel is asked to whom this node talks.
const talkingInterval = time.Second

// watchTalking follows to whom this node talks. Where there are so few pairs that
// all are probed as active ones it is not asked for.
func (p *Prober) watchTalking(ctx context.Context) {
	ticker := time.NewTicker(talkingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		few := len(p.pairs) <= fewPairs
		p.mu.Unlock()
		if few {
			continue
		}
		addrs, err := p.cfg.Talking(ctx)
		if err != nil {
			log.FromContext(ctx).V(1).Info("cannot see to whom this node talks", "reason", err.Error())
			continue
		}
		p.talk(addrs, time.Now())
	}
}

// talk takes the addresses to which this node has sent lately.
func (p *Prober) talk(addrs []netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	talking := map[*target]bool{}
	for _, a := range addrs {
		for _, t := range p.cells.of(a) {
			talking[t] = true
		}
	}
	for _, t := range p.targets {
		began := talking[t] && !t.active
		t.active = talking[t]
		if !began {
			continue
		}
		for _, r := range t.pairs {
			// Its turn among paths that nobody uses may be far away.
			r.due, r.reserved = now, false
			heap.Fix(&p.queue, r.index)
		}
	}
	p.count()
	p.wake.Raise()
}
