package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/internal/model"
)

// folder returns a temporary folder on a tmpfs where there is one, as the Book's
// folder is: to write through to a disk takes milliseconds.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "podnet-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fakeNetwork is a kernel that holds pods' links. It refuses two of one address, and
// one whose address another had a moment ago, with errMixedUp.
type fakeNetwork struct {
	mu       sync.Mutex
	offer    attach.Offer
	offerErr error
	// changed is closed when offer changes; nil where that is not reported.
	changed chan struct{}
	links   map[string]model.Pod
	// left are the pods whose links were removed, by address, and when.
	left map[netip.Addr]left
	// reused counts addresses that were another pod's before.
	reused int
	// attachErr and detachErr are returned by the next call, before or, where
	// late is set, after what it does.
	attachErr, detachErr error
	late                 bool
	presentErr           error
	detached             []model.Pod
}

type left struct {
	hostLink string
	at       time.Time
}

// errMixedUp says that nodes would take one pod for another.
var errMixedUp = errors.New("MIXED UP")

func newFakeNetwork(blocks ...string) *fakeNetwork {
	n := &fakeNetwork{links: map[string]model.Pod{}, left: map[netip.Addr]left{}}
	n.offer = attach.Offer{Attachment: model.PointToPoint, MTU: 1500}
	for _, b := range blocks {
		n.offer.Blocks = append(n.offer.Blocks, netip.MustParsePrefix(b))
	}
	return n
}

func (n *fakeNetwork) Offer() (attach.Offer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.offer, n.offerErr
}

func (n *fakeNetwork) Attach(_ context.Context, pod model.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.attachErr
	n.attachErr = nil
	if err != nil && !n.late {
		return err
	}
	for name, other := range n.links {
		for _, addr := range pod.Addrs {
			if name != pod.HostLink && contains(other.Addrs, addr) {
				return fmt.Errorf("%w: %s has address %s of %s", errMixedUp, name, addr, pod.HostLink)
			}
		}
	}
	for _, addr := range pod.Addrs {
		last, again := n.left[addr]
		if !again || last.hostLink == pod.HostLink {
			continue
		}
		n.reused++
		if free := time.Since(last.at); free < leastQuarantine {
			return fmt.Errorf("%w: %s has address %s that %s had until %s ago", errMixedUp, pod.HostLink, addr, last.hostLink, free)
		}
	}
	n.links[pod.HostLink] = pod
	return err
}

func (n *fakeNetwork) Detach(_ context.Context, pod model.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.detachErr
	n.detachErr = nil
	if err != nil && !n.late {
		return err
	}
	for _, addr := range n.links[pod.HostLink].Addrs {
		n.left[addr] = left{hostLink: pod.HostLink, at: time.Now()}
	}
	delete(n.links, pod.HostLink)
	n.detached = append(n.detached, pod)
	return err
}

func (n *fakeNetwork) CheckAttached(_ context.Context, pod model.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.links[pod.HostLink]; !ok {
		return fmt.Errorf("link %s is gone", pod.HostLink)
	}
	return nil
}

func (n *fakeNetwork) Present(_ context.Context, pods []model.Pod) ([]model.Pod, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(pods), func(pod model.Pod) bool {
		_, ok := n.links[pod.HostLink]
		return !ok
	}), n.presentErr
}

func contains(addrs []netip.Addr, addr netip.Addr) bool {
	for _, a := range addrs {
		if a == addr {
			return true
		}
	}
	return false
}

var errFault = errors.New("fault")

// fault says where an operation of a faultyDisk fails.
type fault int

const (
	// nothingDone fails before anything is written or removed.
	nothingDone fault = iota
	// halfDone leaves half of a temporary file, or a file that is not removed.
	halfDone
	// allDone fails although the file was written or removed.
	allDone
	faults
)

// faultyDisk fails at the operation numbered failAt. Where crash is set, every
// operation after it fails too, as if the agent were dead.
type faultyDisk struct {
	osDisk
	failAt int
	fault  fault
	crash  bool
	count  int
}

func (d *faultyDisk) dead() bool { return d.crash && d.failAt > 0 && d.count > d.failAt }

func (d *faultyDisk) write(path string, content []byte, mode fs.FileMode) error {
	d.count++
	if d.dead() {
		return errFault
	}
	if d.count != d.failAt {
		return d.osDisk.write(path, content, mode)
	}
	switch d.fault {
	case halfDone:
		half := filepath.Join(filepath.Dir(path), temporaryPrefix+"half")
		if err := os.WriteFile(half, content[:len(content)/2], mode); err != nil {
			return err
		}
	case allDone:
		if err := d.osDisk.write(path, content, mode); err != nil {
			return err
		}
	}
	return errFault
}

func (d *faultyDisk) remove(path string) error {
	d.count++
	if d.dead() {
		return errFault
	}
	if d.count != d.failAt {
		return d.osDisk.remove(path)
	}
	if d.fault == allDone {
		if err := d.osDisk.remove(path); err != nil {
			return err
		}
	}
	return errFault
}
