package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/internal/model"
)

// fakeRuntime is a container runtime, and the processes of its containers.
type fakeRuntime struct {
	sandboxes map[string]bool
	err       error
	// busy are the namespaces with a process in them.
	busy    map[string]bool
	idleErr error
	// asked and looked count the questions for sandboxes and for processes.
	asked, looked int
	// hang makes it answer only when the caller gives up.
	hang bool
}

func (r *fakeRuntime) Sandboxes(ctx context.Context) (map[string]bool, error) {
	r.asked++
	if r.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return maps.Clone(r.sandboxes), r.err
}

func (r *fakeRuntime) IdleAmong(_ context.Context, netns []string) (map[string]bool, error) {
	r.looked++
	idle := map[string]bool{}
	for _, path := range netns {
		idle[path] = !r.busy[path] && r.idleErr == nil
	}
	return idle, r.idleErr
}

// swept is a node whose leaks are looked for, in a bubble of its own time.
type swept struct {
	*Server
	t         *testing.T
	dir       string
	net       *fakeNetwork
	runtime   *fakeRuntime
	reclaimed []string
}

func newSwept(t *testing.T) *swept {
	t.Helper()
	s := &swept{
		t: t, dir: folder(t), net: newFakeNetwork("10.0.0.0/24", "fd00::/64"),
		runtime: &fakeRuntime{sandboxes: map[string]bool{}, busy: map[string]bool{}},
	}
	s.start()
	return s
}

// start starts an agent, in place of a former one.
func (s *swept) start() {
	s.t.Helper()
	var err error
	s.Server, err = NewServer(ServerConfig{
		Socket: "unused", Book: open(s.t, filepath.Join(s.dir, "attachments")), Network: s.net, Checker: s.net, Present: s.net.Present, Demand: &attach.Demand{},
		Runtime:   s.runtime,
		Reclaimed: func(pod model.Pod, why string) { s.reclaimed = append(s.reclaimed, pod.ContainerID+": "+why) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *swept) netns(id string) string { return filepath.Join(s.dir, "netns-"+id) }

// run adds pods that have namespaces with a process in them, of sandboxes that the
// runtime knows.
func (s *swept) run(ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		if err := os.WriteFile(s.netns(id), nil, 0o600); err != nil {
			s.t.Fatal(err)
		}
		r := request(id, `{}`)
		r.Netns = s.netns(id)
		if _, err := s.add(s.t.Context(), r); err != nil {
			s.t.Fatal(err)
		}
		s.runtime.sandboxes[id], s.runtime.busy[s.netns(id)] = true, true
	}
}

// lose makes the runtime forget pods whose processes have ended.
func (s *swept) lose(ids ...string) {
	for _, id := range ids {
		delete(s.runtime.sandboxes, id)
		delete(s.runtime.busy, s.netns(id))
	}
}

// sweep lets time pass, sweeps, and checks who is left.
func (s *swept) sweep(after time.Duration, left ...string) {
	s.t.Helper()
	time.Sleep(after)
	if err := s.Sweep(s.t.Context()); err != nil {
		s.t.Error(err)
	}
	var have []string
	for _, pod := range s.config.Book.Pods() {
		have = append(have, pod.ContainerID)
	}
	slices.Sort(have)
	if !slices.Equal(have, left) || len(s.net.links) != len(left) {
		s.t.Errorf("%v and %d links are left, want %v", have, len(s.net.links), left)
	}
}

// counted is the metric of addresses that were reclaimed.
func counted(t *testing.T) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "podnet_agent_addresses_reclaimed_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("there is no such metric")
	return 0
}

func TestSweepDetachesPodsWhoseNamespaceAndLinkAreGone(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/24"), folder(t)
	a := startAgent(t, network, dir)
	here := filepath.Join(dir, "netns")
	if err := os.WriteFile(here, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for id, netns := range map[string]string{"both": here, "link": dir + "/gone", "netns": here, "none": dir + "/gone"} {
		r := request(id, `{}`)
		r.Netns = netns
		_, e := a.call(t, protocol.Add, r)
		wantNoError(t, e)
	}
	for _, id := range []string{"netns", "none"} {
		delete(network.links, Key{id, "eth0"}.HostLink())
	}
	unlock := a.keys.lock(Key{"none", "eth0"}.HostLink())
	if err := a.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pods := a.config.Book.Pods(); len(pods) != 4 {
		t.Errorf("a pod with a request under way was detached, left %v", pods)
	}
	unlock()
	if err := a.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, pod := range a.config.Book.Pods() {
		left = append(left, pod.ContainerID)
	}
	if len(left) != 3 || strings.Contains(strings.Join(left, " "), "none") {
		t.Errorf("left %v", left)
	}
}

func TestPodThatTheRuntimeLostIsReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwept(t)
		s.run("a", "b")
		s.lose("b")
		before := counted(t)
		s.sweep(leastAge, "a", "b")
		s.sweep(doubt-1, "a", "b")
		s.sweep(1, "a")
		want := "b: the runtime does not know its sandbox, and no process is in its network namespace"
		if len(s.reclaimed) != 1 || s.reclaimed[0] != want {
			t.Errorf("reported %q", s.reclaimed)
		}
		if count := counted(t) - before; count != 2 {
			t.Errorf("%v addresses counted, want one of each family", count)
		}
		s.sweep(time.Hour, "a")
	})
}

func TestLivePodIsNeverReclaimed(t *testing.T) {
	for name, doubtful := range map[string]func(s *swept){
		"the runtime cannot be asked":            func(s *swept) { s.runtime.err = errors.New("connection refused") },
		"the runtime lists nothing":              func(s *swept) { clear(s.runtime.sandboxes) },
		"another runtime answers":                func(s *swept) { s.runtime.sandboxes = map[string]bool{"x": true} },
		"a process is in its namespace":          func(s *swept) { s.runtime.busy[s.netns("b")] = true },
		"processes cannot be seen":               func(s *swept) { s.runtime.idleErr = errors.New("the agent does not see processes") },
		"a request for it is under way":          func(s *swept) { s.keys.lock(Key{"b", "eth0"}.HostLink()) },
		"nobody asks the runtime":                func(s *swept) { s.config.Runtime = nil },
		"its namespace is hidden, not its link":  func(s *swept) { _ = os.Remove(s.netns("b")) },
		"the runtime knows it":                   func(s *swept) { s.runtime.sandboxes["b"] = true },
		"it is not of Kubernetes, but of `ctr`.": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwept(t)
				s.run("a")
				if doubtful == nil {
					r := request("b", `{}`)
					r.Args, r.Netns = "", s.netns("b")
					if _, err := s.add(t.Context(), r); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(s.netns("b"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				} else {
					s.run("b")
					s.lose("b")
					doubtful(s)
				}
				for range 20 {
					s.sweep(time.Minute, "a", "b")
				}
			})
		})
	}
}

func TestDoubtBeginsAgainWhen(t *testing.T) {
	for name, between := range map[string]func(s *swept){
		"the runtime listed it once":     func(s *swept) { s.runtime.sandboxes["b"] = true; s.sweep(0, "a", "b"); s.lose("b") },
		"the runtime could not be asked": func(s *swept) { s.runtime.err = errFault; s.sweep(0, "a", "b"); s.runtime.err = nil },
		"the runtime listed nothing":     func(s *swept) { s.lose("a"); s.sweep(0, "a", "b"); s.runtime.sandboxes["a"] = true },
		"the agent was started again": func(s *swept) {
			// The files have the time of the world outside the bubble.
			record := filepath.Join(s.dir, "attachments", Key{"b", "eth0"}.HostLink()+recordSuffix)
			if err := os.Chtimes(record, time.Now(), time.Now().Add(-leastAge)); err != nil {
				s.t.Fatal(err)
			}
			s.start()
		},
		"the pod was attached once again": func(s *swept) { s.del(s.t.Context(), request("b", `{}`)); s.run("b"); s.lose("b") }, //nolint:errcheck // seen by what is left
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwept(t)
				s.run("a", "b")
				s.lose("b")
				s.sweep(leastAge, "a", "b")
				time.Sleep(doubt - 1)
				between(s)
				s.sweep(1, "a", "b")
				if name == "the pod was attached once again" {
					s.sweep(leastAge-2, "a", "b")
					s.sweep(1, "a", "b")
				}
				s.sweep(doubt-2, "a", "b")
				s.sweep(time.Minute, "a")
			})
		})
	}
}

// The record tells a new agent how old an attachment is, and its file where an older agent
// wrote it.
func TestAgeOutlastsARestart(t *testing.T) {
	dir := folder(t)
	pod := reserve(t, open(t, dir), "a", "10.0.0.0/24")
	if since, ok := open(t, dir).recordedSince(KeyOf(pod)); !ok || !since.Equal(pod.Since) || since.IsZero() {
		t.Errorf("%s %t, want %s", since, ok, pod.Since)
	}
	pod.Since = time.Time{}
	record, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, pod.HostLink+recordSuffix), record, recordMode); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(dir, pod.HostLink+recordSuffix), past, past); err != nil {
		t.Fatal(err)
	}
	if since, ok := open(t, dir).recordedSince(KeyOf(pod)); !ok || !since.Equal(past) {
		t.Errorf("%s %t, want %s", since, ok, past)
	}
}

func TestProcessesAreLookedAtOnceForAllLostPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwept(t)
		s.run("a", "b", "c", "d", "e")
		s.lose("b", "c", "d", "e")
		s.runtime.busy[s.netns("d")] = true
		s.sweep(leastAge, "a", "b", "c", "d", "e")
		if s.runtime.looked != 0 {
			t.Errorf("looked %d times, for no pod", s.runtime.looked)
		}
		s.sweep(doubt, "a", "d")
		if s.runtime.looked != 1 {
			t.Errorf("looked %d times", s.runtime.looked)
		}
	})
}

func TestHangingRuntimeHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwept(t)
		s.run("a", "b", "c")
		s.runtime.hang = true
		start, done := time.Now(), make(chan error)
		go func() { done <- s.Sweep(t.Context()) }()
		synctest.Wait()
		// Nothing below waits: the time of the bubble stands still.
		if err := s.Sweep(t.Context()); err != nil || s.runtime.asked != 1 {
			t.Errorf("another sweep: %v, the runtime was asked %d times", err, s.runtime.asked)
		}
		if _, err := s.del(t.Context(), request("a", `{}`)); err != nil {
			t.Error(err)
		}
		s.run("d")
		list := `{"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}, {"containerID": "d", "ifname": "eth0"}]}`
		if _, err := s.gc(t.Context(), request("", list)); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 0 || len(s.config.Book.Pods()) != 2 {
			t.Errorf("took %s, left %v", took, s.config.Book.Pods())
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != sweepTimeout {
			t.Errorf("the sweep ended after %s: %v", time.Since(start), err)
		}
		s.runtime.hang = false
		s.sweep(0, "b", "d")
	})
}

// Sweeps go on beside all other verbs, and take nothing from a pod that lives.
func TestSweepBesideOtherVerbs(t *testing.T) {
	s := newSwept(t)
	s.run("a")
	var wait sync.WaitGroup
	for i := range 8 {
		id := fmt.Sprint("x", i)
		if err := os.WriteFile(s.netns(id), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r := request(id, `{}`)
		r.Netns = s.netns(id)
		wait.Go(func() {
			for range 20 {
				if _, err := s.add(t.Context(), r); err != nil {
					t.Error(err)
				}
				if _, attached := s.config.Book.Get(Key{id, "eth0"}); !attached {
					t.Errorf("%s is gone", id)
				}
				if _, err := s.del(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Go(func() {
		for range 50 {
			if err := s.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := s.gc(t.Context(), request("", `{}`)); err != nil {
				t.Error(err)
			}
		}
	})
	wait.Wait()
	s.sweep(0, "a")
}

func TestSweepFailsWhereTheKernelDoesNotSayWhichLinksThereAre(t *testing.T) {
	s := newSwept(t)
	s.run("a")
	if err := os.Remove(s.netns("a")); err != nil {
		t.Fatal(err)
	}
	clear(s.net.links)
	s.net.presentErr = errFault
	if err := s.Sweep(t.Context()); !errors.Is(err, errFault) || len(s.config.Book.Pods()) != 1 {
		t.Errorf("%v, left %v", err, s.config.Book.Pods())
	}
	s.net.presentErr = nil
	s.sweep(0)
	if want := "a: its network namespace and its link are gone"; !slices.Equal(s.reclaimed, []string{want}) {
		t.Errorf("reported %q", s.reclaimed)
	}
}

func TestGCTellsWhatItReclaims(t *testing.T) {
	s := newSwept(t)
	s.run("a", "b")
	list := `{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}`
	if _, err := s.gc(t.Context(), request("", list)); err != nil {
		t.Fatal(err)
	}
	if want := "b: the runtime no longer counts it among its attachments"; !slices.Equal(s.reclaimed, []string{want}) {
		t.Errorf("reported %q", s.reclaimed)
	}
}

func TestRuntimeIsNotAskedWithoutPods(t *testing.T) {
	s := newSwept(t)
	if err := s.Sweep(t.Context()); err != nil || s.runtime.asked != 0 {
		t.Error(fmt.Sprint(err, s.runtime.asked))
	}
}

// withPort adds a pod of a name that has a port of the node.
func (s *swept) withPort(id, name string) error {
	s.t.Helper()
	r := request(id, `{"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]}}`)
	r.Args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=" + name
	r.Netns = s.netns(id)
	_, err := s.add(s.t.Context(), r)
	return err
}

func TestSuccessorOfALostSandboxGetsItsHostPort(t *testing.T) {
	for name, tc := range map[string]struct {
		successor string
		age       time.Duration
		// known says that the runtime knows the first sandbox.
		known, refused bool
	}{
		"the same pod":                         {successor: "web", known: true},
		"another pod":                          {successor: "other", age: time.Hour, known: true, refused: true},
		"another pod, after a while":           {successor: "other", age: doubt},
		"another pod, while one is being made": {successor: "other", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwept(t)
				s.run("witness")
				if err := s.withPort("first", "web"); err != nil {
					t.Fatal(err)
				}
				s.runtime.sandboxes["first"] = tc.known
				time.Sleep(tc.age)
				err := s.withPort("second", tc.successor)
				if refused := err != nil; refused != tc.refused {
					t.Errorf("the successor: %v", err)
				}
			})
		})
	}
}
