package cni

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/internal/model"
)

// grow changes what the network serves, as a Network does.
func (n *fakeNetwork) grow(change func(s *attach.Offer)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.offer)
	if n.changed != nil {
		close(n.changed)
	}
	n.changed = make(chan struct{})
	n.offer.Changed = n.changed
}

// adding is an ADD that goes on in the background.
type adding struct {
	result *types100.Result
	err    error
	took   time.Duration
	done   bool
}

// waiting is a Server in a bubble of its own time.
type waiting struct {
	*Server
	t      *testing.T
	net    *fakeNetwork
	wanted atomic.Int32
}

// newWaiting returns a Server whose blocks may grow, and on which pod "first" has
// an address of each family.
func newWaiting(t *testing.T, blocks ...string) *waiting {
	t.Helper()
	w := &waiting{t: t, net: newFakeNetwork(blocks...)}
	w.net.grow(func(s *attach.Offer) { s.Growing = [2]bool{true, true} })
	var err error
	w.Server, err = NewServer(ServerConfig{
		Socket: "unused", Book: open(t, folder(t)), Network: w.net, Checker: w.net, Present: w.net.Present, Demand: &attach.Demand{}, Wanted: func() { w.wanted.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := w.begin(t.Context(), "first"); !a.done || a.err != nil {
		t.Fatalf("first pod: %+v", a)
	}
	return w
}

// begin starts an ADD and returns when it is done or waits.
func (w *waiting) begin(ctx context.Context, id string) *adding {
	a, start := &adding{}, time.Now()
	go func() {
		answer, err := w.add(ctx, request(id, `{}`))
		if err == nil {
			a.result = answer.(*types100.Result)
		}
		a.err, a.took, a.done = err, time.Since(start), true
	}()
	synctest.Wait()
	return a
}

func (w *waiting) wantWaiting(ipv4, ipv6 int64) {
	w.t.Helper()
	if got := w.config.Demand.Waiting(); got != [2]int64{ipv4, ipv6} {
		w.t.Errorf("%v wait, want %d and %d", got, ipv4, ipv6)
	}
}

func (w *waiting) wantResult(a *adding, addr string) {
	w.t.Helper()
	synctest.Wait()
	if !a.done || a.err != nil || a.result.IPs[0].Address.IP.String() != addr {
		w.t.Errorf("done %t, error %v, result %v, want %s", a.done, a.err, a.result, addr)
	}
}

func (w *waiting) wantRefusal(a *adding, sentence string) {
	w.t.Helper()
	synctest.Wait()
	var refused *RefusedError
	if !a.done || !errors.As(a.err, &refused) || !strings.Contains(a.err.Error(), sentence) {
		w.t.Errorf("done %t, error %v, want %q", a.done, a.err, sentence)
	}
}

func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestAddWaitsForABlock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		a, b := w.begin(t.Context(), "a"), w.begin(t.Context(), "b")
		w.wantWaiting(2, 0)
		if a.done || b.done || w.wanted.Load() != 2 {
			t.Fatalf("a %+v, b %+v, Wanted was called %d times", a, b, w.wanted.Load())
		}
		time.Sleep(10 * time.Second)
		// A change that brings nothing, as that of a block that is drained.
		w.net.grow(func(s *attach.Offer) { s.MTU = 1400 })
		synctest.Wait()
		w.wantWaiting(2, 0)
		w.net.grow(func(s *attach.Offer) { s.Blocks = append(s.Blocks, prefixes("10.0.1.0/29")...) })
		synctest.Wait()
		w.wantWaiting(0, 0)
		for _, x := range []*adding{a, b} {
			if !x.done || x.err != nil || x.took != 10*time.Second {
				t.Errorf("%+v", x)
			}
		}
		if w.wanted.Load() != 4 {
			t.Errorf("Wanted was called %d times", w.wanted.Load())
		}
		// It has what is served when it ends, not what was when it began.
		if pod, _ := w.config.Book.Get(Key{"a", "eth0"}); pod.MTU != 1400 {
			t.Errorf("its MTU is %d", pod.MTU)
		}
	})
}

// end is a DEL.
func (w *waiting) end(id string) {
	w.t.Helper()
	if _, err := w.del(w.t.Context(), request(id, `{}`)); err != nil {
		w.t.Fatal(err)
	}
}

func TestAddGivesUp(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(s *attach.Offer)
		took     time.Duration
		sentence string
	}{
		"in the end": {func(*attach.Offer) {}, addWait,
			"all 1 addresses of block 10.0.0.0/30 are in use: pods wait until others of this node have gone; " +
				"the node got no further block within 30s, see `kubectl describe podnetwork default`"},
		"when the node stops growing": {func(s *attach.Offer) { s.Growing[0] = false }, time.Second,
			"; a larger nodePrefixLength is for new ranges only, see `kubectl"},
		"with the reason": {func(s *attach.Offer) {
			s.Growing[0], s.NotGrowing[0] = false, "all blocks of range 10.0.0.0/24 are allocated."
		}, time.Second,
			"; all blocks of range 10.0.0.0/24 are allocated, see `kubectl"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWaiting(t, "10.0.0.0/30")
				a := w.begin(t.Context(), "a")
				time.Sleep(time.Second)
				w.net.grow(tc.change)
				time.Sleep(addWait)
				w.wantRefusal(a, tc.sentence)
				if a.took != tc.took {
					t.Errorf("took %s, want %s", a.took, tc.took)
				}
				w.wantWaiting(0, 0)
			})
		})
	}
}

func TestAddDoesNotWaitForWhatCannotCome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30", "fd00::/64")
		w.net.grow(func(s *attach.Offer) { s.Growing = [2]bool{false, true} })
		a := w.begin(t.Context(), "a")
		w.wantRefusal(a, "all 1 addresses of block 10.0.0.0/30 are in use")
		w.net.grow(func(s *attach.Offer) { s.Blocks = nil; s.Growing = [2]bool{} })
		w.wantRefusal(w.begin(t.Context(), "b"), noBlock)
		if w.wanted.Load() != 0 {
			t.Error("Wanted was called")
		}
	})
}

func TestAddWaitsForTheFirstBlock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		w.net.grow(func(s *attach.Offer) { s.Blocks = nil })
		a := w.begin(t.Context(), "a")
		w.wantWaiting(1, 1)
		w.net.grow(func(s *attach.Offer) { s.Blocks = prefixes("10.0.1.0/30") })
		w.wantResult(a, "10.0.1.2")
	})
}

// A pod that waits for one family keeps no address of the other from those that
// need only that one.
func TestWaitingPodHoldsNoAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/29", "fd00::/127", "fd00:1::/126")
		a := w.begin(t.Context(), "a")
		w.wantResult(a, "10.0.0.3")
		b := w.begin(t.Context(), "b")
		w.wantWaiting(0, 1)
		if used := w.config.Book.Usage(netip.MustParsePrefix("10.0.0.0/29")); used != 2 {
			t.Errorf("%d addresses in use, want those of the two others", used)
		}
		w.net.grow(func(s *attach.Offer) { s.Blocks = slices.Concat(prefixes("10.0.9.0/31"), s.Blocks[1:]) })
		synctest.Wait()
		w.wantWaiting(1, 1)
		w.net.grow(func(s *attach.Offer) { s.Blocks = prefixes("10.0.2.0/29", "fd00:2::/64") })
		w.wantResult(b, "10.0.2.2")
	})
}

func TestDelEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		a, other := w.begin(t.Context(), "a"), w.begin(t.Context(), "other")
		start := time.Now()
		w.end("a")
		if took := time.Since(start); took != 0 {
			t.Errorf("DEL took %s", took)
		}
		synctest.Wait()
		var e *types.Error
		if !a.done || !errors.As(a.err, &e) || e.Code != types.ErrTryAgainLater {
			t.Errorf("ADD: %+v", a)
		}
		w.wantWaiting(1, 0)
		if other.done {
			t.Errorf("the ADD of another ended: %v", other.err)
		}
		// The next one of the same attachment waits again.
		again := w.begin(t.Context(), "a")
		w.wantWaiting(2, 0)
		w.net.grow(func(s *attach.Offer) { s.Blocks = prefixes("10.0.2.0/29") })
		synctest.Wait()
		if again.err != nil || other.err != nil || len(w.keys.held) != 0 {
			t.Errorf("%v, %v, locks %v", again.err, other.err, w.keys.held)
		}
	})
}

func TestWaitEndsWithTheRequestOrTheAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		ctx, cancel := context.WithCancel(t.Context())
		a, b := w.begin(ctx, "a"), w.begin(t.Context(), "b")
		cancel()
		synctest.Wait()
		if !a.done || !errors.Is(a.err, context.Canceled) {
			t.Errorf("%+v", a)
		}
		w.wantWaiting(1, 0)
		close(w.ending)
		synctest.Wait()
		if !b.done || !strings.Contains(b.err.Error(), "before podnet's agent ended") {
			t.Errorf("%+v", b)
		}
		w.wantWaiting(0, 0)
	})
}

func TestWaitEndsWhereNothingIsServedAnyMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		a := w.begin(t.Context(), "a")
		w.net.mu.Lock()
		w.net.offerErr = errors.New("podnet is being uninstalled")
		w.net.mu.Unlock()
		w.net.grow(func(*attach.Offer) {})
		synctest.Wait()
		if !a.done || !strings.Contains(a.err.Error(), "being uninstalled") {
			t.Errorf("%+v", a)
		}
	})
}

// A burst of more pods than a block has addresses, while blocks come one by one.
func TestBurstLargerThanABlock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/28", "fd00::/64")
		var all []*adding
		for i := range 60 {
			all = append(all, w.begin(t.Context(), strings.Repeat("x", i+1)))
		}
		w.wantWaiting(60-11, 0)
		for i := byte(1); w.config.Demand.Waiting()[0] > 0; i++ {
			time.Sleep(time.Second)
			w.net.grow(func(s *attach.Offer) {
				block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, i, 0}), 28)
				s.Blocks = slices.Insert(slices.Clone(s.Blocks), 1, block)
			})
			synctest.Wait()
		}
		seen := map[string]bool{}
		for _, a := range all {
			if !a.done || a.err != nil {
				t.Fatalf("%+v", a)
			}
			seen[a.result.IPs[0].Address.IP.String()] = true
		}
		if len(seen) != 60 {
			t.Errorf("60 pods have %d addresses", len(seen))
		}
		if used := w.config.Book.Usage(netip.MustParsePrefix("10.0.0.0/28")); used != 12 {
			t.Errorf("%d of the first block in use", used)
		}
		for _, pod := range w.config.Book.Pods() {
			if pod.Attachment != model.PointToPoint || len(pod.Addrs) != 2 {
				t.Errorf("%+v", pod)
			}
		}
	})
}

// An ADD whose addresses can neither be given nor given back fails with the reason,
// and whatever comes next of the runtime puts it right.
func TestAddFailsWhereItsAddressesCannotBeGivenBack(t *testing.T) {
	for name, next := range map[string]func(s *Server) error{
		"DEL": func(s *Server) error { _, err := s.del(t.Context(), request("a", `{}`)); return err },
		"ADD": func(s *Server) error { _, err := s.add(t.Context(), request("a", `{}`)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			// The cursors, the record and the last releases are written before.
			book, err := openBook(t.Context(), folder(t), time.Now, &faultyDisk{failAt: 4, fault: halfDone})
			if err != nil {
				t.Fatal(err)
			}
			n := &drainingNetwork{fakeNetwork: newFakeNetwork("10.0.0.0/29", "10.0.1.0/29")}
			s, err := NewServer(ServerConfig{Socket: "unused", Book: book, Network: n, Checker: n, Present: n.Present, Demand: &attach.Demand{}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.add(t.Context(), request("a", `{}`)); !errors.Is(err, errFault) || !strings.Contains(err.Error(), "give back addresses") {
				t.Fatalf("got %v", err)
			}
			if len(n.links) != 0 || len(book.Pods()) != 0 {
				t.Errorf("links %v, pods %v", n.links, book.Pods())
			}
			if err := next(s); err != nil {
				t.Fatal(err)
			}
			if used := book.Usage(netip.MustParsePrefix("10.0.0.0/29")); used != 0 {
				t.Errorf("%d addresses of the block are still in use", used)
			}
			if _, attached := book.Get(Key{"a", "eth0"}); attached != (name == "ADD") {
				t.Errorf("attached: %t", attached)
			}
		})
	}
}
