package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/podnet/podnet/agent/source"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/bench/apiserver"
	"github.com/podnet/podnet/test/netns/topology"
)

const (
	// arrivals is how many pods, and how many policies, come one after the other.
	arrivals = 200
	// pausePasses is how many times as long as a pass the loop pauses at most, and takes for
	// the next one.
	pausePasses = 5
	// relabels is how many pods of the cluster change in a second where changes do not end.
	relabels = 20
)

// BenchmarkPolicyProgramming measures from the moment when the agent's cache tells
// of a pod or of a policy until the node's kernel goes by it, and until the first packet
// passes that may; and the memory of an agent that knows so many.
func BenchmarkPolicyProgramming(b *testing.B) {
	topology.Require(b)
	s := newStored(b)
	for _, size := range apiserver.Smallest([]struct{ pods, policies int }{{1000, 100}, {10_000, 1000}}) {
		b.Run(fmt.Sprintf("pods=%d,policies=%d", size.pods, size.policies), func(b *testing.B) {
			s.grow(b, size.pods, size.policies)
			s.prepare(b)
			forgetMemory(b)
			before, _, _ := memory(b)
			b.Logf("heap of the benchmark itself: %.1f MiB", before)
			p := newProgramming(b, s)
			p.begin(b)
			heap, resident, atMost := memory(b)
			for i := range apiserver.Few(arrivals) {
				time.Sleep(pausePasses*p.idle + rand.N(p.idle))
				p.arrive(b, "pod", addressIn(arriving, i), func() client.Object { return s.giveAddress(b, arriving, i) })
				time.Sleep(pausePasses*p.idle + rand.N(p.idle))
				p.arrive(b, "policy", addressIn(waiting, i), func() client.Object { return s.allow(b, i) })
			}
			p.beside(b, "pods that change", func(ctx context.Context) error { return s.relabel(ctx, relabels) })
			for i := range apiserver.Few(arrivals) {
				time.Sleep(rand.N(pausePasses * p.idle))
				p.arrive(b, "pod:others-change", addressIn(late, i), func() client.Object { return s.giveAddress(b, late, i) })
			}
			b.ReportMetric(0, "ns/op") // of all of these together
			b.ReportMetric(heap, "MiB-heap")
			b.ReportMetric(resident, "MiB-resident")
			b.ReportMetric(atMost, "MiB-resident-at-most")
			p.report(b)
		})
	}
}

// programming is an agent that knows a cluster, and what was measured of it.
type programming struct {
	*agent
	sender *topology.Namespace
	door   *door
	// knocks counts the addresses to which was sent.
	knocks uint64
	// first and idle are how long a pass over policy takes that replaces the tables, and
	// one that changes nothing.
	first, idle time.Duration
	took        map[string][]latency

	mu sync.Mutex
	// told is when the cache reported an object first.
	told map[client.ObjectKey]time.Time
}

// latency is from when the cache reported an object until the kernel went by it, and until
// the first packet passed.
type latency struct{ enforced, passed time.Duration }

// newProgramming makes an agent that has heard of all objects, and done nothing.
func newProgramming(b *testing.B, s *stored) *programming {
	b.Helper()
	p := &programming{told: map[client.ObjectKey]time.Time{}, took: map[string][]latency{}}
	src := source.New(func() (cache.Cache, error) { return p.newCache(b.Context(), s) }, s.API)
	objects := state.NewKeeper(state.KeeperConfig{
		Source: src, Clock: clock.RealClock{}, FullInterval: fullInterval,
		Changed: func() { p.applier.Trigger(); p.enforcer.Trigger() },
	})
	p.agent = newAgentOn(b, topology.NewUnderlay(b, 1500), self, objects)
	p.played = ownPods()
	src.WatchPolicies(p.enforcer.Trigger)
	s.settle(b, p.IPv4.Addr())
	p.beside(b, "the source", func(ctx context.Context) error { return src.Run(ctx, objects.Trigger) })
	select {
	case <-src.Synced():
	case <-time.After(patience):
		b.Fatal("the caches are not complete")
	}
	p.beside(b, "the keeper of the objects", objects.Run)
	// Which policies of the cluster there are is known a moment later.
	for late := time.Now().Add(patience); ; time.Sleep(hush) {
		_, err := objects.Policies(b.Context())
		if err == nil {
			return p
		}
		if time.Now().After(late) {
			b.Fatalf("policies cannot be read after %s: %v", patience, err)
		}
	}
}

// beside runs something outside of the node until the benchmark ends.
func (p *programming) beside(b *testing.B, what string, run func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			b.Errorf("%s: %v", what, err)
		}
	})
	b.Cleanup(func() { cancel(); running.Wait() })
}

// begin starts the agent, and attaches the pod that sends.
func (p *programming) begin(b *testing.B) {
	b.Helper()
	p.agent.begin(b)
	p.answerAll(b)()
	p.sender = p.attach(b, model.ClusterPod{Namespace: sending, Name: sending, UID: string(uidOf(sending, sending)), Addrs: []netip.Addr{senderAddr}})
	p.door = newDoor(b, p.underlay.Namespace)
	p.first = p.policyPass(b)
	p.start(b, p.applier.Run, p.applier.Watch, p.enforcer.Run, p.enforcer.Watch)
	var passes []time.Duration
	for range 2 * repetitions {
		passes = append(passes, p.policyPass(b))
	}
	p.idle = quantile(passes, 0.5)
}

// policyPass makes a pass over policy, and returns how long it took.
func (p *programming) policyPass(b *testing.B) time.Duration {
	b.Helper()
	start := time.Now()
	p.Do(b, func() error { return p.enforcer.Pass(b.Context()) })
	return time.Since(start)
}

// newCache makes a cache as the agent does, which also notes when it reports objects.
func (p *programming) newCache(ctx context.Context, s *stored) (cache.Cache, error) {
	scheme, err := apiserver.Scheme()
	if err != nil {
		return nil, err
	}
	c, err := cache.New(s.Config, cache.Options{
		Scheme: scheme, DefaultTransform: cache.TransformStripManagedFields(), ByObject: source.CacheOptions(),
	})
	if err != nil {
		return nil, err
	}
	note := func(o any) {
		now := time.Now()
		object, ok := o.(client.Object)
		if pod, isPod := o.(*corev1.Pod); !ok || isPod && pod.Status.PodIP == "" {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		key := client.ObjectKeyFromObject(object)
		if _, again := p.told[key]; !again && slices.Contains(ownNamespaces, key.Namespace) {
			p.told[key] = now
		}
	}
	for _, kind := range []client.Object{&corev1.Pod{}, &networkingv1.NetworkPolicy{}} {
		informer, err := c.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err == nil {
			_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, o any) { note(o) }})
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// arrive lets something happen that allows to send to an address, to which is sent
// all the time, and measures how long that takes to be so.
func (p *programming) arrive(b *testing.B, what string, to netip.Addr, happen func() client.Object) {
	b.Helper()
	p.enforced.await(to)
	p.knocks++
	stop := p.knock(b, to, p.knocks)
	defer stop()
	time.Sleep(10 * knockInterval)
	if _, ok := p.door.heard(p.knocks); ok {
		b.Fatalf("%s is reached before it may be", to)
	}
	key := client.ObjectKeyFromObject(happen())
	var enforced, passed time.Time
	var done, heard bool
	for late := time.Now().Add(patience); !done || !heard; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			b.Fatalf("%s is not allowed by %s %s: in the kernel %t, reached %t", to, what, key, done, heard)
		}
		enforced, done = p.enforced.since()
		passed, heard = p.door.heard(p.knocks)
	}
	p.mu.Lock()
	told := p.told[key]
	p.mu.Unlock()
	p.took[what] = append(p.took[what], latency{enforced: enforced.Sub(told), passed: passed.Sub(told)})
}

// report reports what was measured.
func (p *programming) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(milliseconds(p.first), "ms/first-pass")
	b.ReportMetric(milliseconds(p.idle), "ms/idle-pass")
	for what, took := range p.took {
		var enforced, passed []time.Duration
		for _, l := range took {
			enforced, passed = append(enforced, l.enforced), append(passed, l.passed)
		}
		for _, percent := range []int{50, 99} {
			b.ReportMetric(milliseconds(quantile(enforced, float64(percent)/100)), fmt.Sprintf("ms/%s:p%d", what, percent))
			b.ReportMetric(milliseconds(quantile(passed, float64(percent)/100)), fmt.Sprintf("ms/%s:first-packet:p%d", what, percent))
		}
	}
}
