package controllers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
)

// quiet is the context of all that logs: a history notes more than the logs tell.
var quiet = ctrl.LoggerInto(context.Background(), logr.Discard())

// silent is an EventRecorder that nobody listens to.
type silent struct{}

func (silent) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

// role is one of a manager's reconcilers.
type role int

const (
	nodeController role = iota
	subnetController
	networkController
	roles
)

// worker is a reconciler at work on an object.
type worker struct {
	role role
	name string
}

// fault is what befalls the calls of a manager.
type fault struct {
	// after is how many writes succeed before.
	after int
	// done says that the write which fails is done all the same.
	done bool
	// crash says that the manager ends, where only the call fails otherwise.
	crash bool
}

// simManager is a manager's process: the real reconcilers, a cache that lags, and
// a client on which calls fail. It implements client.Client as far as they use it.
type simManager struct {
	client.Client
	w     *world
	id    int
	cache *watcher
	// written is the version of a kind that the manager's own writes have made:
	// its cache shows them (see CacheOptions).
	written [kinds]int
	// told is the version of the NodeSubnets of which the ledger was told, and
	// known what it was told: handlers of an informer lag behind its cache.
	told  int
	known map[string]*podnetv1alpha1.NodeSubnet

	allocator   *allocation.Allocator
	ledger      cache.ResourceEventHandler
	reconcilers [roles]reconcile.Reconciler
	busy        map[worker]bool
	fault       *fault
	dead        bool

	// began is what the cache had when the node controller began its work,
	// seenSubnets what it saw of NodeSubnets, and created what it created since.
	began       [kinds]int
	seenSubnets map[string]*podnetv1alpha1.NodeSubnet
	created     []*podnetv1alpha1.NodeSubnet
}

func (w *world) startManager(r *rand.Rand) *simManager {
	w.managerCount++
	m := &simManager{w: w, id: w.managerCount, cache: newWatcher(w.api), known: map[string]*podnetv1alpha1.NodeSubnet{}, busy: map[worker]bool{}}
	m.cache.catchUp(w.clock.Now().Add(-seconds(r.IntN(10))))
	m.allocator = allocation.New(allocation.Config{
		Client: m, Live: live{m}, Events: silent{}, Clock: w.clock,
		Endpoints: func(ctx context.Context, node *corev1.Node) ([]string, error) { return firstEndpoints(ctx, m, node) },
	})
	w.must(m.allocator.Follow(m))
	m.reconcilers = [roles]reconcile.Reconciler{
		&NodeReconciler{
			Client: m, Live: live{m}, Events: silent{}, Allocator: m.allocator, Clock: w.clock,
		},
		&NodeSubnetReconciler{
			Client: m, Live: live{m}, Events: silent{}, Clock: w.clock, idle: idleness{}, unused: idleness{},
			gone: idleness{}, agentless: idleness{}, Policies: policyList{},
		},
		&PodNetworkReconciler{Client: m, Events: silent{}, Allocator: m.allocator, Clock: w.clock},
	}
	w.managers = append(w.managers, m)
	w.note("manager %d starts", m.id)
	return m
}

// AddEventHandler implements allocation.Informer. The first list is told to handlers one by one;
// before, nothing is synced.
func (m *simManager) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	m.ledger = handler
	return registration{m: m, first: m.cache.at[subnetKind]}, nil
}

type registration struct {
	cache.ResourceEventHandlerRegistration
	m     *simManager
	first int
}

func (r registration) HasSynced() bool { return r.m.told >= r.first }

// reconcile lets a reconciler look at an object, unless it is at work or would
// wait for a lock.
func (m *simManager) reconcile(c role, name string) {
	if m.dead || m.busy[worker{c, name}] || !m.idle(c) {
		return
	}
	if c == nodeController {
		defer func(began [kinds]int, created []*podnetv1alpha1.NodeSubnet, seen map[string]*podnetv1alpha1.NodeSubnet) {
			m.began, m.created, m.seenSubnets = began, created, seen
		}(m.began, m.created, m.seenSubnets)
		m.began, m.created, m.seenSubnets = m.cache.at, nil, map[string]*podnetv1alpha1.NodeSubnet{}
		for name, o := range m.cache.objects[subnetKind] {
			m.seenSubnets[name] = o.(*podnetv1alpha1.NodeSubnet)
		}
	}
	m.busy[worker{c, name}] = true
	defer delete(m.busy, worker{c, name})
	_, err := m.reconcilers[c].Reconcile(quiet, ctrl.Request{NamespacedName: types.NamespacedName{Name: name}})
	if err != nil {
		m.w.note("manager %d: %v", m.id, err)
	}
}

// idle reports whether a reconciler can work now: several do on nodes, as far as they
// do not wait for a lock, and one at a time on the rest.
func (m *simManager) idle(c role) bool {
	if c != nodeController {
		for w := range m.busy {
			if w.role == c {
				return false
			}
		}
	}
	free := true
	switch c {
	case nodeController:
		if free = m.allocator.Counting.TryRLock(); free {
			m.allocator.Counting.RUnlock()
		}
	case networkController:
		if free = m.allocator.Counting.TryLock(); free {
			m.allocator.Counting.Unlock()
		}
	}
	return free
}

// tellLedger makes the ledger know versions up to one. An informer that lists anew
// tells only what is different.
func (m *simManager) tellLedger(to int, anew bool) {
	to = min(to, m.cache.at[subnetKind])
	if to <= m.told {
		return
	}
	after := map[string]*podnetv1alpha1.NodeSubnet{}
	for _, v := range m.w.api.log[subnetKind][m.told:to] {
		s, _ := v.object.(*podnetv1alpha1.NodeSubnet)
		after[v.name] = s
		if !anew {
			m.tell(v.name, s, false)
		}
	}
	if anew {
		for _, name := range sortedKeys(after) {
			m.tell(name, after[name], true)
		}
	}
	m.told = to
}

func (m *simManager) tell(name string, is *podnetv1alpha1.NodeSubnet, anew bool) {
	was := m.known[name]
	switch {
	case is == nil && was == nil:
	case is == nil && anew:
		m.ledger.OnDelete(cache.DeletedFinalStateUnknown{Key: name, Obj: was})
	case is == nil:
		m.ledger.OnDelete(was)
	case was == nil:
		m.ledger.OnAdd(is, false)
	default:
		m.ledger.OnUpdate(was, is)
	}
	delete(m.known, name)
	if is != nil {
		m.known[name] = is
	}
}

// progress lets the cache, and the ledger behind it, take in some of what is new.
func (m *simManager) progress(r *rand.Rand) {
	for k := range kinds {
		if behind := len(m.w.api.log[k]) - m.cache.at[k]; behind > 0 {
			m.cache.advance(k, m.cache.at[k]+r.IntN(behind+1))
		}
	}
	if behind := m.cache.at[subnetKind] - m.told; behind > 0 {
		m.tellLedger(m.told+r.IntN(behind+1), r.IntN(8) == 0)
	}
}

// latest lets the manager take in everything.
func (m *simManager) latest() {
	m.cache.latest()
	m.tellLedger(len(m.w.api.log[subnetKind]), false)
}

var errGone = errors.New("the manager is no more")

// before is called before each call of the API: meanwhile others act.
func (m *simManager) before() error {
	if m.dead {
		return errGone
	}
	m.w.meanwhile(m)
	if m.dead {
		return errGone
	}
	return nil
}

// write makes a write, or fails to.
func (m *simManager) write(k kind, what string, write func() error) error {
	if err := m.before(); err != nil {
		return err
	}
	if m.fault != nil {
		if m.fault.after > 0 {
			m.fault.after--
		} else {
			f := *m.fault
			m.fault = nil
			m.dead = f.crash
			if f.done {
				_ = write() // Nobody hears what came of it.
			}
			m.w.note("manager %d fails at %s (done: %t, crash: %t)", m.id, what, f.done, f.crash)
			return errors.New("the connection was lost")
		}
	}
	err := write()
	if err == nil {
		m.written[k] = len(m.w.api.log[k])
	}
	m.w.note("manager %d: %s: %v", m.id, what, err)
	return err
}

func (m *simManager) Get(ctx context.Context, key client.ObjectKey, out client.Object, opts ...client.GetOption) error {
	if err := m.before(); err != nil {
		return err
	}
	m.cache.advance(kindOf(out), m.written[kindOf(out)])
	return m.cache.Get(ctx, key, out, opts...)
}

func (m *simManager) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := m.before(); err != nil {
		return err
	}
	m.cache.advance(kindOf(list), m.written[kindOf(list)])
	return m.cache.List(ctx, list, opts...)
}

func (m *simManager) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	return m.write(kindOf(o), "create "+o.GetName(), func() error {
		if s, ok := o.(*podnetv1alpha1.NodeSubnet); ok {
			m.w.checkCreation(m, s)
		}
		return m.w.api.create(o)
	})
}

func (m *simManager) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	what := "update " + o.GetName()
	if s, ok := o.(*podnetv1alpha1.NodeSubnet); ok {
		what += fmt.Sprintf(" to %s with finalizers %v", s.Spec.State, s.Finalizers)
	}
	return m.write(kindOf(o), what, func() error { return m.w.api.update(o) })
}

func (m *simManager) Delete(_ context.Context, o client.Object, opts ...client.DeleteOption) error {
	return m.write(kindOf(o), fmt.Sprintf("delete %T %s", o, o.GetName()), func() error { return m.w.api.delete(o, opts...) })
}

func (m *simManager) Status() client.SubResourceWriter { return statusOf{m: m} }

// statusOf writes statuses for a manager.
type statusOf struct {
	client.SubResourceWriter
	m *simManager
}

func (s statusOf) Patch(_ context.Context, o client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.m.write(kindOf(o), "patch status of "+o.GetName(), func() error { return s.m.w.api.patchStatus(o, patch) })
}

func (s statusOf) Apply(_ context.Context, o runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	return s.m.write(networkKind, "apply status of the PodNetwork", func() error {
		return s.m.w.api.applyStatus(networkKind, podnetv1alpha1.DefaultPodNetwork, o, opts...)
	})
}

// live reads for a manager from the API server itself.
type live struct{ m *simManager }

func (l live) Get(ctx context.Context, key client.ObjectKey, out client.Object, opts ...client.GetOption) error {
	if err := l.m.before(); err != nil {
		return err
	}
	if _, isNode := out.(*corev1.Node); !isNode {
		return fmt.Errorf("%T is not read live", out)
	}
	return l.m.w.api.client.Get(ctx, key, out, opts...)
}

func (l live) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nothing is listed live")
}
