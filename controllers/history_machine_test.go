package controllers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/podnet/podnet/agent/apply"
	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/source"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/agent/status"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// What an agent does by itself, as its process has it.
const (
	// passInterval is the time between an agent's passes when nothing changes.
	passInterval = 30 * time.Second
	// rereadInterval is how often it looks whether its report is still there.
	rereadInterval = 2 * time.Minute
	// mostLag is how late at most a watch brings what happened.
	mostLag = 20 * time.Second
)

// machine is what a Node stands for: pods, and an agent, whose view of the API
// lags. It outlives its Node where that is deleted and the machine is not told.
type machine struct {
	w      *world
	name   string
	serial int
	labels map[string]string
	// families are those of the node's own addresses.
	families [2]bool

	// off says that the machine, with its pods, is no more.
	off bool
	// lies says that its agent reports what is not true. It runs no pods.
	lies bool
	// up says that the agent runs, and online that it reaches the API server.
	up, online bool
	// orphaned is since when it has no Node; zero while it has one.
	orphaned time.Time

	cache   *watcher
	book    *cni.Book
	source  *source.Source
	objects *state.Keeper
	// watches says that the agent has heard all from the API server once.
	watches bool
	applier *apply.Applier
	offers  *attach.Offers
	report  *status.Report
	// written is the status that the agent wrote last, as far as it remembers, and
	// read when it last looked at the object.
	written *podnetv1alpha1.NodeNetworkStatus
	read    time.Time
	passed  time.Time
	// counting is called during a pass while the book is counted.
	counting func()

	pods []*pod
	made int
}

// podState is how far the attachment of a pod is.
type podState int

const (
	// podAsked is a pod for which an ADD waits.
	podAsked podState = iota
	// podRead is one whose ADD knows which blocks give addresses.
	podRead
	// podRecorded is one that has addresses in the book and no answer.
	podRecorded
	// podLive is one whose ADD has returned.
	podLive
	// podStray is one whose ADD was cut off by a crash: the runtime deletes it.
	podStray
)

type pod struct {
	id    string
	state podState
	// serving is what the ADD read.
	serving attach.Offer
	waits   [2]bool
	model   model.Pod
	// lost says that nobody answers for its addresses: somebody took the object of
	// its block by force while the agent could not say so.
	lost [2]bool
}

func (m *machine) String() string { return fmt.Sprintf("%s#%d", m.name, m.serial) }

func (p *pod) key() cni.Key { return cni.Key{ContainerID: p.id, IfName: "eth0"} }

func (w *world) newMachine(name string, labels map[string]string, families [2]bool) *machine {
	w.serial++
	m := &machine{w: w, name: name, serial: w.serial, labels: labels, families: families, up: true, online: true}
	m.boot()
	w.machines = append(w.machines, m)
	return m
}

// boot begins without any pod: the book is on a tmpfs.
func (m *machine) boot() {
	m.pods = nil
	m.made++
	m.startAgent()
}

func (m *machine) dirOf() string {
	return filepath.Join(m.w.dir, fmt.Sprintf("%d-%d", m.serial, m.made))
}

// startAgent starts a process that knows nothing but the book.
func (m *machine) startAgent() {
	book, err := cni.OpenBook(quiet, m.dirOf(), m.w.clock.Now)
	if err != nil {
		panic(err)
	}
	m.book, m.up = book, true
	m.cache, m.report, m.written, m.read = newWatcher(m.w.api), nil, nil, time.Time{}
	m.watches = false
	m.source = source.New(func() (cache.Cache, error) { return agentCache{view: m.cache}, nil }, m.w.api.client)
	m.objects = state.NewKeeper(state.KeeperConfig{Source: m.source, Clock: m.w.clock, Changed: func() {}, FullInterval: passInterval})
	m.offers = attach.NewOffers()
	m.applier = apply.New(apply.Config{
		Source: host{m}, Kernel: host{m}, Links: host{m}, Offers: m.offers, Node: host{m},
		Pods: func(context.Context) ([]model.Pod, error) { return m.book.Pods(), nil },
		Usage: func(held []netip.Prefix) map[netip.Prefix]int64 {
			if m.counting != nil {
				m.counting()
			}
			return m.book.UsageByBlock(held)
		},
		Waiting:      m.waiting,
		Report:       func(r status.Report) { m.report = &r },
		Install:      func(context.Context) error { return nil },
		FullInterval: passInterval,
	})
}

// watch begins to watch once the API server is there.
func (m *machine) watch() {
	if m.watches || !m.online {
		return
	}
	m.watches = true
	m.cache.latest()
	ctx, cancel := context.WithCancel(quiet)
	ended := make(chan error)
	go func() { ended <- m.source.Run(ctx, func() {}) }()
	<-m.source.Synced()
	// What it would do from now on by itself is done step by step here.
	cancel()
	if err := <-ended; err != nil {
		panic(err)
	}
}

// crash ends the agent's process at any moment: the book's files stay.
func (m *machine) crash() {
	m.up = false
	for _, p := range m.pods {
		switch p.state {
		case podRead:
			p.state = podAsked
		case podRecorded:
			p.state = podStray
		}
		p.waits = [2]bool{}
	}
}

func (m *machine) turnOff() {
	m.off, m.up, m.online = true, false, false
	m.pods = nil
}

func (m *machine) waiting() [2]int64 {
	var n [2]int64
	for _, p := range m.pods {
		for i := range n {
			if p.waits[i] {
				n[i]++
			}
		}
	}
	return n
}

// progress lets the agent's watches bring some of what is new.
func (m *machine) progress(r *rand.Rand) {
	if !m.online || !m.watches {
		return
	}
	for k := range kinds {
		if behind := len(m.w.api.log[k]) - m.cache.at[k]; behind > 0 {
			m.cache.advance(k, m.cache.at[k]+r.IntN(behind+1))
		}
	}
}

// pass is one pass of the agent. Meanwhile ADDs that have read which blocks there
// are can take addresses of them.
func (m *machine) pass(r *rand.Rand) {
	if !m.up || m.lies {
		return
	}
	m.watch()
	m.counting = func() {
		for _, p := range m.pods {
			if p.state == podRead && r.IntN(2) == 0 {
				m.reserve(p)
			}
		}
	}
	err := m.applier.Pass(quiet)
	m.counting = nil
	m.passed = m.w.clock.Now()
	if err != nil {
		m.w.note("%s: pass: %v", m, err)
	}
}

// add does the next step of a pod's ADD, as cni.Server does it.
func (m *machine) add(p *pod) {
	if !m.up {
		return
	}
	switch p.state {
	case podAsked:
		serving, err := m.offers.Current()
		if err == nil {
			p.serving, p.state = serving, podRead
		}
	case podRead:
		m.reserve(p)
	case podRecorded:
		// It is confirmed and attached.
		serving, err := m.offers.Current()
		if err == nil && !slices.ContainsFunc(p.model.Blocks, func(b netip.Prefix) bool { return !slices.Contains(serving.Blocks, b) }) {
			p.state = podLive
			m.w.note("%s: pod %s has %v", m, p.id, p.model.Addrs)
			return
		}
		m.release(p)
		p.state = podAsked
	case podStray:
		m.remove(p)
	}
}

// reserve takes addresses for a pod of the blocks that its ADD has read.
func (m *machine) reserve(p *pod) {
	reserved, err := m.book.Reserve(model.Pod{
		ContainerID: p.id, IfName: "eth0", HostLink: p.key().HostLink(), Netns: "/n/" + p.id, Attachment: p.serving.Attachment,
	}, p.serving.Blocks)
	if err == nil {
		p.model, p.state, p.waits, p.lost = reserved, podRecorded, [2]bool{}, [2]bool{}
		return
	}
	var refused *cni.RefusedError
	if !errors.As(err, &refused) {
		panic(err)
	}
	p.state, p.waits = podAsked, [2]bool{}
	// Where none comes it fails at once, and the runtime asks again.
	if needed, comes := refused.Needs(p.serving); comes {
		p.waits = needed
	}
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

func (m *machine) release(p *pod) {
	if err := m.book.Release(p.key()); err != nil {
		panic(err)
	}
}

// remove is a DEL.
func (m *machine) remove(p *pod) {
	if !m.up {
		return
	}
	if p.state == podLive {
		m.w.note("%s: pod %s goes", m, p.id)
	}
	m.release(p)
	m.pods = slices.DeleteFunc(m.pods, func(other *pod) bool { return other == p })
}

// write writes the last report, as status.Writer does it.
func (m *machine) write() {
	if m.lies {
		m.lie()
		return
	}
	if !m.up || !m.online || m.report == nil {
		return
	}
	now := m.w.clock.Now()
	if now.Sub(m.read) > rereadInterval {
		m.written, m.read = nil, now
	}
	if m.written != nil {
		st := status.Build(*m.report, m.written.Conditions, 1, "")
		if equality.Semantic.DeepEqual(st, *m.written) {
			return
		}
	}
	nn := m.w.api.report(m.name)
	if nn == nil {
		m.read = time.Time{} // It fails and is tried again.
		return
	}
	st := status.Build(*m.report, nn.Status.Conditions, 1, "")
	m.written = &st
	if equality.Semantic.DeepEqual(st, nn.Status) {
		return
	}
	m.apply(st)
}

// apply writes a status.
func (m *machine) apply(st podnetv1alpha1.NodeNetworkStatus) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&st)
	if err != nil {
		panic(err)
	}
	apply := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	apply.SetGroupVersionKind(podnetv1alpha1.GroupVersion.WithKind("NodeNetwork"))
	apply.SetName(m.name)
	err = m.w.api.applyStatus(reportKind, m.name, client.ApplyConfigurationFromUnstructured(apply),
		client.FieldOwner(status.FieldOwner), client.ForceOwnership)
	if err != nil {
		panic(err)
	}
	m.w.note("%s reports %s, roll call %.8s", m, blocksOf(st), st.RollCall)
}

func blocksOf(st podnetv1alpha1.NodeNetworkStatus) string {
	out := ""
	for _, b := range st.Blocks {
		out += fmt.Sprintf("[%s %s %d]", b.CIDR, b.State, ptr.Deref(b.AddressesUsed, 0))
	}
	return out
}

// object is the machine as a Node.
func (m *machine) object() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.name, Labels: m.labels}}
	for i, address := range []string{fmt.Sprintf("192.0.2.%d", m.serial%250+1), fmt.Sprintf("2001:db8::%x", m.serial+1)} {
		if m.families[i] {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
		}
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return n
}

// host is the kernel of a machine: it is always what was asked.
type host struct{ m *machine }

// Objects implements apply.Source. It reads before each pass.
func (h host) Objects() (state.Objects, error) {
	if err := h.m.objects.Build(quiet); err != nil {
		return state.Objects{}, err
	}
	return h.m.objects.Objects()
}

func (h host) Observe(_ context.Context, want model.State) (model.State, error) { return want, nil }
func (h host) Execute(context.Context, []diff.Op) error                         { return nil }
func (h host) Attach(context.Context, model.Pod) error                          { return nil }
func (h host) Detach(context.Context, model.Pod) error                          { return nil }
func (h host) CheckAttached(context.Context, model.Pod) error                   { return nil }
func (h host) Forget(context.Context, model.Pod) error                          { return nil }
func (h host) Remove(context.Context) error                                     { return nil }

func (h host) Host(context.Context) (model.Host, []model.Problem, error) {
	out := model.Host{Node: h.m.name, VXLAN: true, BridgeNetfilter: true, IPv6: true}
	for i, address := range []string{fmt.Sprintf("192.0.2.%d", h.m.serial%250+1), fmt.Sprintf("2001:db8::%x", h.m.serial+1)} {
		if h.m.families[i] {
			out.Endpoints = append(out.Endpoints, model.Endpoint{Addr: netip.MustParseAddr(address), Link: "eth0", MTU: 1500})
		}
	}
	return out, nil, nil
}

func (h host) Findings(context.Context, []netip.Prefix, []model.Block, *model.Pod) ([]model.Finding, error) {
	return nil, nil
}

// agentCache is a view as the agent's source reads it.
type agentCache struct {
	cache.Cache
	view *watcher
}

func (c agentCache) Get(ctx context.Context, key client.ObjectKey, out client.Object, opts ...client.GetOption) error {
	return c.view.Get(ctx, key, out, opts...)
}

func (c agentCache) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.view.List(ctx, list, opts...)
}

func (c agentCache) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return agentInformer{}, nil
}

func (c agentCache) WaitForCacheSync(context.Context) bool { return true }

func (c agentCache) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

type agentInformer struct{ cache.Informer }

func (agentInformer) AddEventHandler(toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return nil, nil
}
