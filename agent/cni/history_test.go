package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// history plays a runtime and the faults of a node against a Server. Its links
// outlast the agent, as those of a kernel do.
type history struct {
	t      *testing.T
	dir    string
	rand   *rand.Rand
	net    *fakeNetwork
	disk   *faultyDisk
	book   *Book
	server *Server
	// answered are the results of ADDs that no DEL followed.
	answered map[string]*types100.Result
}

func (h *history) start(faulty bool) {
	h.disk = &faultyDisk{}
	if faulty {
		h.disk.failAt = 1 + h.rand.IntN(12)
		h.disk.fault = fault(h.rand.IntN(int(faults)))
		h.disk.crash = h.rand.IntN(2) == 0
	}
	var err error
	// What is read at start, and set in order there, meets no fault.
	if h.book, err = openBook(h.t.Context(), h.dir, time.Now, osDisk{}); err != nil {
		h.t.Fatal(err)
	}
	h.book.disk = h.disk
	if h.server, err = NewServer(ServerConfig{Socket: h.dir + "/unused", Book: h.book, Network: h.net, Checker: h.net, Present: h.net.Present, Demand: &attach.Demand{}}); err != nil {
		h.t.Fatal(err)
	}
}

func request(id, config string) protocol.Request {
	return protocol.Request{
		ContainerID: id, IfName: "eth0", Netns: "/var/run/netns/" + id,
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod-" + id, Config: json.RawMessage(config),
	}
}

func (h *history) step(ctx context.Context) {
	id := fmt.Sprint("c", h.rand.IntN(8))
	switch h.rand.IntN(10) {
	case 0, 1, 2, 3:
		answer, err := h.server.add(ctx, request(id, `{}`))
		if errors.Is(err, errMixedUp) {
			h.t.Error(err)
		}
		if err != nil {
			return
		}
		result := answer.(*types100.Result)
		if before := h.answered[id]; before != nil && !reflect.DeepEqual(before, result) {
			h.t.Errorf("ADD of %s repeated: %v, before %v", id, result, before)
		}
		h.answered[id] = result
	case 4, 5, 6:
		delete(h.answered, id)
		if _, err := h.server.del(ctx, request(id, `{}`)); err == nil {
			if _, ok := h.net.links[(Key{id, "eth0"}).HostLink()]; ok {
				h.t.Errorf("DEL of %s left its link", id)
			}
		}
	case 7:
		var valid []map[string]string
		for id := range h.answered {
			valid = append(valid, map[string]string{"containerID": id, "ifname": "eth0"})
		}
		config, err := json.Marshal(map[string]any{"cni.dev/valid-attachments": append([]map[string]string{}, valid...)})
		if err != nil {
			h.t.Fatal(err)
		}
		_, _ = h.server.gc(ctx, request("", string(config)))
	case 8:
		h.net.late = h.rand.IntN(2) == 0
		if h.rand.IntN(2) == 0 {
			h.net.attachErr = errFault
		} else {
			h.net.detachErr = errFault
		}
	case 9:
		h.start(h.rand.IntN(3) > 0)
	}
}

// check reports whether every link's addresses are taken, and every answered pod is
// in the book with its addresses.
func (h *history) check() {
	for _, pod := range h.net.links {
		for _, addr := range pod.Addrs {
			if h.book.holders[addr] == 0 {
				h.t.Errorf("%s of %s can be given again although its link is there", addr, pod.ContainerID)
			}
		}
	}
	for id, result := range h.answered {
		pod, ok := h.book.Get(Key{id, "eth0"})
		if !ok || !reflect.DeepEqual(newResult(pod, "/var/run/netns/"+id), result) {
			h.t.Errorf("the book has %v for %s, the runtime was told %v", pod, id, result)
		}
	}
}

func TestNoHistoryGivesAnAddressTwiceOrLosesOne(t *testing.T) {
	t.Attr("budget", "30s")
	var reused int
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := &history{
					t: t, dir: folder(t), rand: rand.New(rand.NewPCG(seed, 0)),
					net: newFakeNetwork("10.0.0.0/29", "fd00::/125"), answered: map[string]*types100.Result{},
				}
				h.play()
				reused += h.net.reused
			})
		})
	}
	if reused < 1000 {
		t.Errorf("addresses were given again %d times only", reused)
	}
}

// play plays faults and restarts, and then gives everything back.
func (h *history) play() {
	t := h.t
	h.start(false)
	for range 120 {
		h.step(t.Context())
		h.check()
		if t.Failed() {
			return
		}
		time.Sleep(time.Duration(h.rand.Int64N(int64(leastQuarantine / 2))))
	}
	// Without faults, everything is given back.
	h.net.attachErr, h.net.detachErr = nil, nil
	h.start(false)
	h.check()
	if _, err := h.server.gc(t.Context(), request("", `{"cni.dev/valid-attachments": []}`)); err != nil {
		t.Fatal(err)
	}
	h.start(false)
	for _, block := range h.net.offer.Blocks {
		if used := h.book.Usage(block); used != 0 || len(h.net.links) != 0 {
			t.Errorf("at the end %d addresses and %d links", used, len(h.net.links))
		}
	}
	count := ipam.AddressCount(h.net.offer.Blocks[0])
	for i := range count {
		if _, err := h.server.add(t.Context(), request(fmt.Sprint("last", i), `{}`)); err != nil {
			t.Errorf("address %d of %d is lost: %v", i+1, count, err)
		}
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil || int64(len(entries)) != count+2 { // and the cursors and the last releases
		t.Errorf("%d files, want %d: %v", len(entries), count+2, err)
	}
}

func TestPodThatIsBeingDetachedIsNotListedButKeepsItsAddress(t *testing.T) {
	book, now := clocked(t, folder(t))
	pod := reserve(t, book, "a", "10.0.0.0/30")
	book.leave(KeyOf(pod))
	if pods := book.Pods(); len(pods) != 0 {
		t.Errorf("listed: %v", pods)
	}
	if _, err := book.Reserve(newPod("b"), prefixes("10.0.0.0/30")); err == nil {
		t.Error("its address was given again")
	}
	if err := book.Release(KeyOf(pod)); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(leastQuarantine)
	if again := reserve(t, book, "a", "10.0.0.0/30"); !reflect.DeepEqual(book.Pods(), []model.Pod{again}) {
		t.Errorf("after it was attached again: %v", book.Pods())
	}
}
