package cni

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// DefaultBookDir is where the agent keeps its Book: on a tmpfs, since a reboot
// ends all pods.
const DefaultBookDir = "/run/podnet/attachments"

const (
	recordSuffix = ".json"
	// damagedSuffix marks records that could not be read and were set aside.
	damagedSuffix = ".damaged"
	// cursorsName is the file with the address of each block that was given last.
	cursorsName = "cursors"
	recordMode  = 0o600
)

// Key identifies an attachment, as in the CNI specification.
type Key struct {
	ContainerID string
	IfName      string
}

// KeyOf returns the key of a pod's attachment.
func KeyOf(pod model.Pod) Key { return Key{ContainerID: pod.ContainerID, IfName: pod.IfName} }

// HostLink returns the name of the link on the node's side of the attachment. It
// depends on the key alone, and names the attachment's record too.
func (k Key) HostLink() string {
	sum := sha256.Sum256([]byte(k.ContainerID + "/" + k.IfName))
	return (model.PodLinkPrefix + hex.EncodeToString(sum[:]))[:maxLinkName]
}

// maxLinkName is the length in bytes of the longest name that a link may have
// (IFNAMSIZ, less the byte that ends it).
const maxLinkName = 15

// RefusedError says, in a sentence for the user, why a pod cannot be attached
// now. It may pass.
type RefusedError struct{ Sentence string }

func (e *RefusedError) Error() string { return e.Sentence }

// Book records which pods are attached and which addresses and ports of the node
// they have: a file for each attachment, written before anybody hears of it. It
// is safe for concurrent use, by one process.
type Book struct {
	dir  string
	disk disk

	mu   sync.Mutex
	pods map[Key]model.Pod
	// leaving are the pods that are being detached. After a restart they count as
	// attached, until the runtime repeats its request.
	leaving map[Key]bool
	// damaged holds, by host link, the addresses that could be read from records
	// that were set aside. They stay taken, since the pod may be there.
	damaged map[string][]netip.Addr
	cursors map[netip.Prefix]netip.Addr
}

// Reserve records a pod with one address of each family that blocks has, taken
// from the first block that has one left, and returns it with Addrs and Blocks
// filled in, in the order in which blocks names the families. An address that
// was released is given again after all others of its block. The error is a
// *RefusedError where all addresses or a port of the node are in use.
func (b *Book) Reserve(pod model.Pod, blocks []netip.Prefix) (model.Pod, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.checkNew(pod); err != nil {
		return model.Pod{}, err
	}
	pod.Addrs, pod.Blocks = nil, nil
	taken := b.taken()
	cursors := maps.Clone(b.cursors)
	for _, family := range byFamily(blocks) {
		addr, block, ok := next(family, cursors, taken)
		if !ok {
			return model.Pod{}, &RefusedError{Sentence: allInUse(family)}
		}
		pod.Addrs = append(pod.Addrs, addr)
		pod.Blocks = append(pod.Blocks, block)
		cursors[block] = addr
	}
	if len(pod.Addrs) == 0 {
		return model.Pod{}, &RefusedError{Sentence: noBlock}
	}
	maps.DeleteFunc(cursors, func(block netip.Prefix, _ netip.Addr) bool {
		return !slices.Contains(blocks, block)
	})
	if err := b.record(pod, cursors); err != nil {
		return model.Pod{}, err
	}
	return pod, nil
}

// describeNetwork ends the sentences of what the PodNetwork's conditions explain.
const describeNetwork = "see `kubectl describe podnetwork default`"

const noBlock = "this node has no block of addresses yet: " + describeNetwork

// checkNew returns an error where a pod's record or ports would meet those of another.
func (b *Book) checkNew(pod model.Pod) error {
	for key, other := range b.pods {
		if other.HostLink == pod.HostLink {
			return fmt.Errorf("record attachment of container %s: container %s has its record", pod.ContainerID, key.ContainerID)
		}
		for _, port := range pod.HostPorts {
			if slices.ContainsFunc(other.HostPorts, func(p model.HostPort) bool { return portsMeet(p, port) }) {
				return &RefusedError{Sentence: fmt.Sprintf("host port %d/%s of this node is in use by pod %s/%s",
					port.Host, port.Protocol, other.Namespace, other.Name)}
			}
		}
	}
	return nil
}

// portsMeet says whether a packet can be for both ports.
func portsMeet(a, b model.HostPort) bool {
	return a.Host == b.Host && a.Protocol == b.Protocol &&
		(a.HostIP == b.HostIP || !a.HostIP.IsValid() || !b.HostIP.IsValid())
}

// record writes the cursors, then the record. Where it fails and nobody can tell
// whether the record is there, nobody else gets its addresses, and the attachment
// counts as one that is being detached: it has to be released first.
func (b *Book) record(pod model.Pod, cursors map[netip.Prefix]netip.Addr) error {
	if err := b.write(cursorsName, cursors); err != nil {
		return err
	}
	b.cursors = cursors
	err := b.write(pod.HostLink+recordSuffix, pod)
	if err != nil {
		removeErr := b.disk.remove(b.path(pod.HostLink + recordSuffix))
		if removeErr == nil {
			return err
		}
		err = errors.Join(err, removeErr)
		b.leaving[KeyOf(pod)] = true
	}
	b.pods[KeyOf(pod)] = pod
	return err
}

func (b *Book) write(name string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", b.path(name), err)
	}
	return b.disk.write(b.path(name), append(content, '\n'), recordMode)
}

func (b *Book) path(name string) string { return filepath.Join(b.dir, name) }

// Release removes the record of an attachment, and one that was set aside, and
// frees its addresses. It succeeds where there is none.
func (b *Book) Release(key Key) error { return b.release(key.HostLink()) }

func (b *Book) release(hostLink string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, suffix := range []string{recordSuffix, damagedSuffix} {
		if err := b.disk.remove(b.path(hostLink + suffix)); err != nil {
			return fmt.Errorf("release the addresses of %s: %w", hostLink, err)
		}
	}
	maps.DeleteFunc(b.pods, func(_ Key, pod model.Pod) bool { return pod.HostLink == hostLink })
	maps.DeleteFunc(b.leaving, func(key Key, _ bool) bool { return key.HostLink() == hostLink })
	delete(b.damaged, hostLink)
	return nil
}

// leave makes Pods no longer name an attachment, so that nobody makes anew what
// is about to be removed from the kernel. Its addresses stay taken until Release.
func (b *Book) leave(key Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.pods[key]; ok {
		b.leaving[key] = true
	}
}

// Get returns the pod of an attachment, also of one that is being detached, and
// whether there is one.
func (b *Book) Get(key Key) (model.Pod, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pod, ok := b.pods[key]
	return clone(pod), ok
}

// Pods returns the pods that shall hang on the node, sorted by host link: not
// those that are being detached. The link of one that was just recorded may not
// be there yet.
func (b *Book) Pods() []model.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list(func(key Key) bool { return !b.leaving[key] })
}

// recorded returns all pods that have a record, sorted by host link.
func (b *Book) recorded() []model.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list(func(Key) bool { return true })
}

func (b *Book) list(include func(Key) bool) []model.Pod {
	pods := make([]model.Pod, 0, len(b.pods))
	for key, pod := range b.pods {
		if include(key) {
			pods = append(pods, clone(pod))
		}
	}
	slices.SortFunc(pods, func(a, b model.Pod) int { return cmp.Compare(a.HostLink, b.HostLink) })
	return pods
}

func (b *Book) isLeaving(key Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leaving[key]
}

// Damaged returns the host links of attachments whose records could not be
// read, sorted. A pod may still hang on them.
func (b *Book) Damaged() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.damaged))
}

// Usage returns how many addresses of a block are in use.
func (b *Book) Usage(block netip.Prefix) (used int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for addr := range b.taken() {
		if block.Contains(addr) {
			used++
		}
	}
	return used
}

func (b *Book) taken() map[netip.Addr]bool {
	taken := map[netip.Addr]bool{}
	for _, pod := range b.pods {
		for _, addr := range pod.Addrs {
			taken[addr] = true
		}
	}
	for _, addrs := range b.damaged {
		for _, addr := range addrs {
			taken[addr] = true
		}
	}
	return taken
}

// byFamily splits blocks by family, in the order in which the families appear.
func byFamily(blocks []netip.Prefix) [][]netip.Prefix {
	var families [][]netip.Prefix
	for _, block := range blocks {
		i := slices.IndexFunc(families, func(f []netip.Prefix) bool { return f[0].Addr().Is4() == block.Addr().Is4() })
		if i < 0 {
			families = append(families, nil)
			i = len(families) - 1
		}
		families[i] = append(families[i], block)
	}
	return families
}

// next returns the next free address of the first block that has one.
func next(blocks []netip.Prefix, cursors map[netip.Prefix]netip.Addr, taken map[netip.Addr]bool) (netip.Addr, netip.Prefix, bool) {
	for _, block := range blocks {
		addr, ok := ipam.NextAddress(block, cursors[block], func(a netip.Addr) bool { return taken[a] })
		if ok {
			return addr, block, true
		}
	}
	return netip.Addr{}, netip.Prefix{}, false
}

// allInUse is the sentence for a family none of whose blocks has an address left.
func allInUse(blocks []netip.Prefix) string {
	names := make([]string, 0, len(blocks))
	var count int64
	for _, block := range blocks {
		names = append(names, block.String())
		count += ipam.AddressCount(block)
	}
	noun := "block"
	if len(blocks) > 1 {
		noun = "blocks"
	}
	return fmt.Sprintf("all %d addresses of %s %s are in use: pods wait until others of this node have gone; a larger nodePrefixLength is for new ranges only, %s",
		count, noun, strings.Join(names, ", "), describeNetwork)
}

// clone returns a pod that shares no memory with the book.
func clone(pod model.Pod) model.Pod {
	pod.Addrs = slices.Clone(pod.Addrs)
	pod.Blocks = slices.Clone(pod.Blocks)
	pod.HostPorts = slices.Clone(pod.HostPorts)
	return pod
}
