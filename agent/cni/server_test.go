package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni/protocol"
)

// agent is a Server that runs, and what it depends on.
type agent struct {
	*Server
	net    *fakeNetwork
	socket string
	stop   func() error
}

func startAgent(t *testing.T, network *fakeNetwork, dir string) *agent {
	t.Helper()
	socket := filepath.Join(dir, "cni.sock")
	server, err := NewServer(ServerConfig{Socket: socket, Book: open(t, filepath.Join(dir, "attachments")), Network: network, Checker: network, Present: network.Present, Demand: &attach.Demand{}})
	if err != nil {
		t.Fatal(err)
	}
	former, _ := os.Stat(socket) // nil where there is none
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	a := &agent{Server: server, net: network, socket: socket, stop: stop}
	for {
		if current, err := os.Stat(socket); err == nil && !os.SameFile(former, current) {
			return a
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

// endQuarantine ends the quarantine of all addresses that were released.
func (a *agent) endQuarantine() {
	book := a.config.Book
	book.mu.Lock()
	defer book.mu.Unlock()
	now := book.now
	book.now = func() time.Time { return now().Add(leastQuarantine) }
	a.net.mu.Lock()
	defer a.net.mu.Unlock()
	clear(a.net.left)
}

func (a *agent) call(t *testing.T, verb protocol.Verb, r protocol.Request) (*types100.Result, *types.Error) {
	t.Helper()
	result := &types100.Result{}
	err := protocol.Call(t.Context(), a.socket, verb, r, result)
	if err == nil {
		return result, nil
	}
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no CNI error: %v", err, err)
	}
	return nil, e
}

func wantError(t *testing.T, e *types.Error, code uint, sentence string) {
	t.Helper()
	if e == nil || e.Code != code || !strings.Contains(e.Msg, sentence) {
		t.Errorf("got %+v, want code %d and %q", e, code, sentence)
	}
}

func wantNoError(t *testing.T, e *types.Error) {
	t.Helper()
	if e != nil {
		t.Errorf("got %+v", e)
	}
}

func TestSocketIsForRootAloneAndReplacesAFormerOne(t *testing.T) {
	network, dir := newFakeNetwork("10.0.0.0/24"), folder(t)
	first := startAgent(t, network, dir)
	if info, err := os.Stat(first.socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v: %v", info.Mode(), err)
	}
	// The second starts before the first ends, as in a surge, and keeps its socket.
	second := startAgent(t, network, dir)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	_, e := second.call(t, protocol.Status, request("", `{}`))
	wantNoError(t, e)
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	_, e = second.call(t, protocol.Add, request("a", `{}`))
	wantError(t, e, types.ErrTryAgainLater, "podnet's agent does not answer on this node (socket "+second.socket+"): is the pod of DaemonSet podnet-agent running?")
	third := startAgent(t, network, dir)
	_, e = third.call(t, protocol.Add, request("a", `{}`))
	wantNoError(t, e)
}

func TestConcurrentRequests(t *testing.T) {
	network := newFakeNetwork("10.0.0.0/24", "fd00::/64")
	a := startAgent(t, network, folder(t))
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			id := fmt.Sprint("c", i%20)
			for range 5 {
				if _, e := a.call(t, protocol.Add, request(id, `{}`)); e != nil {
					t.Error(e)
				}
				if _, e := a.call(t, protocol.Del, request(id, `{}`)); e != nil {
					t.Error(e)
				}
			}
		})
	}
	wait.Wait()
	if len(network.links) != 0 || a.config.Book.Usage(network.offer.Blocks[0]) != 0 || len(a.keys.held) != 0 {
		t.Errorf("left links %v, records %v, locks %v", network.links, a.config.Book.Pods(), a.keys.held)
	}
}

func TestServerNeedsItsParts(t *testing.T) {
	if _, err := NewServer(ServerConfig{}); err == nil {
		t.Error("no error")
	}
}

func TestUnreadableRequestIsAnError(t *testing.T) {
	a := startAgent(t, newFakeNetwork("10.0.0.0/24"), folder(t))
	_, e := a.call(t, "NONE", request("a", `{}`))
	wantError(t, e, types.ErrInternal, "HTTP status 404")
}
