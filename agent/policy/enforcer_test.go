package policy

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/nft/nfttest"
	compiler "github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// node is what an Enforcer works with: nftables in memory, and what the API holds.
type node struct {
	*nfttest.Fake

	mu       sync.Mutex
	found    state.Policies
	pods     []model.Pod
	enforcer *Enforcer
}

func newNode(w policytest.World) *node {
	n := &node{Fake: nfttest.New()}
	n.set(w)
	n.enforcer = New(Config{Source: n, NFT: n, Pods: n.attached, FullInterval: time.Hour})
	return n
}

func (n *node) set(w policytest.World) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.found, n.pods = state.Policies{Objects: w.Objects, Blocks: w.Blocks}, w.Attached
}

func (n *node) Policies(context.Context) (state.Policies, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.found, nil
}

func (n *node) attached() []model.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods
}

// refuse makes the kernel refuse some steps.
func (n *node) refuse(err error, steps func(nft.Step) bool) {
	n.Refuse = func(s nft.Step) error {
		if steps(s) {
			return err
		}
		return nil
	}
}

// isPut reports whether a step puts something, and does not only delete.
func isPut(s nft.Step) bool {
	switch s.(type) {
	case nft.Put, nft.Change:
		return true
	}
	return false
}

// expect checks that the kernel has the tables of a world.
func (n *node) expect(t *testing.T, w policytest.World) {
	t.Helper()
	want := nfttest.New(compiler.NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables...).Tables()
	got := n.Tables()
	for _, tables := range [][]nft.Table{want, got} {
		for _, table := range tables {
			for i := range table.Sets {
				table.Sets[i].Elements = append([]nft.Element{}, table.Sets[i].Elements...)
			}
			slices.SortFunc(table.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the kernel has\n%+v\nwant\n%+v", got, want)
	}
}

func world(seed uint64) policytest.World { return policytest.NewRandom(seed).World }

func TestKernelFollowsTheObjects(t *testing.T) {
	n := newNode(world(1))
	for seed := uint64(1); seed <= 100; seed++ {
		n.set(world(seed))
		if err := n.enforcer.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.expect(t, world(seed))
	}
	executed := len(n.Done)
	if err := n.enforcer.Pass(t.Context()); err != nil || len(n.Done) != executed {
		t.Errorf("a pass over an unchanged node executes %v (%v)", n.Done[executed:], err)
	}
}

func TestAfterAFailureTheTableIsReplacedWhole(t *testing.T) {
	n := newNode(world(1))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.refuse(errors.New("no memory"), isPut)
	n.set(world(2))
	if err := n.enforcer.Pass(t.Context()); err == nil {
		t.Fatal("the failure is not told")
	}
	n.expect(t, world(1))
	if got := n.enforcer.Problems(); len(got) == 0 || !strings.Contains(got[0].Message, "no memory") {
		t.Errorf("problems are %+v", got)
	}
	n.Refuse = nil
	before := len(n.Done)
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, whole := n.Done[before].(nft.Put); !whole {
		t.Errorf("executes %v", n.Done[before])
	}
	n.expect(t, world(2))
}

// A new agent does not know what the kernel has, and replaces it at once.
func TestRestartReplacesWhatIsThere(t *testing.T) {
	n := newNode(world(1))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.enforcer = New(n.enforcer.cfg)
	n.set(world(2))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.expect(t, world(2))
}

// Parts that the kernel counts as used are deleted later, and may be wanted again before.
func TestOldPartsAreDeletedWhenTheKernelLetsThemGo(t *testing.T) {
	n := newNode(world(1))
	n.refuse(errors.New("device or resource busy"), func(s nft.Step) bool {
		_, parts := s.(nft.DeleteParts)
		return parts
	})
	for _, seed := range []uint64{1, 2, 1, 3, 2} {
		n.set(world(seed))
		if err := n.enforcer.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.Refuse = nil
	n.set(world(4))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.expect(t, world(4))
}

// link is a kernel that knows when a pod is attached.
type link struct {
	attach.Kernel
	attached chan struct{}
}

func (l link) Between(func(*model.Cluster) error) error { close(l.attached); return nil }

func denyAll(pods ...model.ClusterPod) policytest.World {
	return policytest.World{Objects: model.PolicyObjects{
		NetworkPolicies: []model.NetworkPolicy{{Namespace: "red", Name: "deny"}}, Namespaces: []model.Namespace{{Name: "red"}}, Pods: pods,
	}}
}

func TestPodIsAttachedWhenItsPoliciesAreInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := model.Pod{ContainerID: "c", IfName: "eth0", Namespace: "red", Name: "p", UID: "1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}
		n := newNode(denyAll())
		l := link{attached: make(chan struct{})}
		attacher := attach.New(attach.Config{Kernel: l, Policy: n.enforcer})
		done := make(chan error, 1)
		go func() { done <- attacher.Attach(t.Context(), pod) }()
		waits := func(what string) {
			t.Helper()
			synctest.Wait()
			select {
			case <-l.attached:
				t.Fatalf("%s: the pod is attached", what)
			default:
			}
		}
		waits("before the agent has heard from the API server")
		pass := func(w policytest.World) {
			t.Helper()
			w.Attached = []model.Pod{pod}
			n.set(w)
			if err := n.enforcer.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		pass(denyAll())
		waits("without an object")
		pass(denyAll(model.ClusterPod{Namespace: "red", Name: "p", UID: "of a former pod"}))
		waits("with the object of a former pod")
		known := denyAll(model.ClusterPod{Namespace: "red", Name: "p", UID: "1"})
		pass(known)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		<-l.attached
		known.Attached = []model.Pod{pod}
		n.expect(t, known)
	})
}

func TestPodWithoutLabelsIsRefusedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(denyAll())
		if err := n.enforcer.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := n.enforcer.Admit(t.Context(), model.Pod{Namespace: "red", Name: "p", UID: "1"})
		if err == nil || !strings.Contains(err.Error(), "the labels of pod red/p are unknown") {
			t.Errorf("got %v", err)
		}
		// No policy can select this one, whatever its labels are.
		if err := n.enforcer.Admit(t.Context(), model.Pod{Namespace: "blue", Name: "p", UID: "2"}); err != nil {
			t.Error(err)
		}
	})
}

// Others ask for problems in passes of their own, which must go on, and packets are
// explained: neither waits for nft.
func TestSlowTransactionHoldsNobodyElseUp(t *testing.T) {
	n := newNode(denyAll())
	n.pods = []model.Pod{{ContainerID: "c", Namespace: "red", Name: "p", UID: "1"}}
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.set(world(2))
	began, end := make(chan struct{}), make(chan struct{})
	n.refuse(errors.New("too slow"), func(nft.Step) bool { close(began); <-end; return true })
	done := make(chan error)
	go func() { done <- n.enforcer.Pass(t.Context()) }()
	<-began
	asked := make(chan []model.Problem)
	go func() { asked <- n.enforcer.Problems() }()
	select {
	case got := <-asked:
		if len(got) != 1 || !strings.Contains(got[0].Message, "red/p") {
			t.Errorf("problems are %+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("Problems waits for nft")
	}
	if n.enforcer.index.Load() == nil {
		t.Error("there is nothing to explain packets with")
	}
	close(end)
	if err := <-done; err == nil {
		t.Error("the failure is not told")
	}
	if got := n.enforcer.Problems(); len(got) == 0 || !strings.Contains(got[0].Message, "too slow") {
		t.Errorf("afterwards problems are %+v", got)
	}
}

func TestUninstallTakesTheTablesAway(t *testing.T) {
	n := newNode(world(1))
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.found.Uninstall = true
	for range 2 {
		if err := n.enforcer.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.Tables(); len(got) != 0 {
		t.Errorf("left are %+v", got)
	}
}

func TestPodsThatTheAPIDoesNotKnowAreAProblem(t *testing.T) {
	n := newNode(denyAll())
	n.pods = []model.Pod{{ContainerID: "c", Namespace: "red", Name: "p", UID: "1"}}
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := n.enforcer.Problems()
	if len(got) != 1 || !strings.Contains(got[0].Message, "1 pods of this node are unknown") || !strings.Contains(got[0].Message, "red/p") {
		t.Errorf("problems are %+v", got)
	}
}

func TestPoliciesThatCostTooMuchAreAProblem(t *testing.T) {
	w := denyAll()
	all := make([]netip.Prefix, compiler.MostBlocks)
	for i := range all {
		all[i] = netip.MustParsePrefix("192.0.2.1/32")
	}
	w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, model.NetworkPolicy{Namespace: "red", Name: "wide", Ingress: []model.PolicyRule{
		{Peers: []model.PolicyPeer{{Block: &model.IPBlock{CIDR: netip.MustParsePrefix("0.0.0.0/0"), Except: all}}}},
	}})
	n := newNode(w)
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := n.enforcer.Problems()
	if len(got) != 1 || got[0].Fatal || !strings.Contains(got[0].Message, "1 NetworkPolicies allow nothing (red/wide)") {
		t.Errorf("problems are %+v", got)
	}
}

// propagation is what was reported of the time that changes took: how many, and their sum in seconds.
func propagation(t *testing.T) (changes uint64, seconds float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(propagationSeconds); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := families[0].GetMetric()[0].GetHistogram()
	return told.GetSampleCount(), told.GetSampleSum()
}

// The time that a change takes includes what it waits for: the pass before it, the pause
// after that, and passes that fail.
func TestPropagationIsMeasuredFromTheChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(world(1))
		const takes = 3 * time.Second
		fails := 0
		n.refuse(errors.New("no memory"), func(s nft.Step) bool {
			if !isPut(s) {
				return false
			}
			time.Sleep(takes)
			fails--
			return fails >= 0
		})
		go n.enforcer.Run(t.Context()) //nolint:errcheck // it ends with the test
		time.Sleep(time.Second)
		took := func(seed uint64) time.Duration {
			t.Helper()
			before, sum := propagation(t)
			n.set(world(seed))
			n.enforcer.Trigger()
			time.Sleep(time.Minute)
			synctest.Wait()
			after, total := propagation(t)
			if after != before+1 {
				t.Fatalf("%d changes are reported, want 1", after-before)
			}
			return time.Duration((total - sum) * float64(time.Second)).Round(time.Millisecond)
		}
		if got, want := took(2), takes-time.Second+pauseFactor*takes+takes; got != want {
			t.Errorf("a change during a pass took %s, want %s", got, want)
		}
		fails = 1
		if got, want := took(3), settle+takes+firstRetry+takes; got != want {
			t.Errorf("a change that the kernel refused first took %s, want %s", got, want)
		}
	})
}

// Many changes lead to few passes, and the last one is seen.
func TestChangesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(world(1))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.enforcer.Run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		before := len(n.Done)
		for seed := uint64(2); seed <= 50; seed++ {
			n.set(world(seed))
			n.enforcer.Trigger()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		n.expect(t, world(50))
		if got := len(n.Done) - before; got > 6 {
			t.Errorf("50 changes at once lead to %d operations", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// heldKernel is a kernel of which a change of the policy tables takes long.
type heldKernel struct {
	*node
	holds, held chan struct{}
}

func (k *heldKernel) Do(ctx context.Context, step nft.Step) error {
	select {
	case k.holds <- struct{}{}:
	default:
	}
	<-k.held
	return k.node.Do(ctx, step)
}

// While the kernel holds a change of the policy tables, a pod that no policy is about is
// attached, and none that some are about, or that has an address that some were about.
func TestPodWithoutPolicyDoesNotWaitForTheTables(t *testing.T) {
	attached := func(namespace, name, addr string) model.Pod {
		return model.Pod{ContainerID: name, IfName: "eth0", Namespace: namespace, Name: name, UID: name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	former, selected := attached("red", "former", "10.244.1.2"), attached("red", "selected", "10.244.1.3")
	free, reuses := attached("blue", "free", "10.244.1.4"), attached("blue", "reuses", "10.244.1.2")
	w := denyAll()
	w.Objects.Namespaces = append(w.Objects.Namespaces, model.Namespace{Name: "blue"})
	for _, p := range []model.Pod{former, selected, free, reuses} {
		w.Objects.Pods = append(w.Objects.Pods, model.ClusterPod{Namespace: p.Namespace, Name: p.Name, UID: p.UID})
	}
	w.Attached = []model.Pod{former}
	n := newNode(w)
	k := &heldKernel{node: n, holds: make(chan struct{}, 1), held: make(chan struct{}, 1)}
	n.enforcer = New(Config{Source: n, NFT: k, Pods: n.attached, FullInterval: time.Hour})
	close(k.held)
	if err := n.enforcer.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-k.holds
	k.held = make(chan struct{})
	w.Attached = []model.Pod{selected, free, reuses}
	n.set(w)
	passed := make(chan error, 1)
	go func() { passed <- n.enforcer.Pass(t.Context()) }()
	<-k.holds

	attach := func(p model.Pod) error {
		return attach.New(attach.Config{Kernel: link{attached: make(chan struct{})}, Policy: n.enforcer}).Attach(t.Context(), p)
	}
	if err := attach(free); err != nil {
		t.Error(err)
	}
	if problems := n.enforcer.Problems(); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	for _, p := range []model.Pod{selected, reuses} {
		if n.enforcer.isFree(p) {
			t.Errorf("pod %s is attached before what it needs is in force", p.Name)
		}
	}
	close(k.held)
	if err := <-passed; err != nil {
		t.Fatal(err)
	}
	for _, p := range []model.Pod{selected, reuses} {
		if err := attach(p); err != nil {
			t.Error(err)
		}
	}
	n.expect(t, w)
}
