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
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

const (
	recordSuffix = ".json"
	// damagedSuffix marks files that could not be read and were set aside.
	damagedSuffix = model.DamagedSuffix
	// cursorsName is the file with the address of each block that was given last of
	// those that were never used before.
	cursorsName = "cursors"
	// releasedName is the file with the addresses that were released last.
	releasedName = "released"
	recordMode   = 0o600
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
type RefusedError struct {
	Sentence string
	// full are the blocks of each family that has no address to give.
	full [2][]netip.Prefix
	// quarantined is for how long yet the first address of each of full is in quarantine;
	// 0 where all are in use.
	quarantined [2]time.Duration
	// noBlock says that there was no block of any family.
	noBlock bool
	// holder is the attachment that has a port of the node which was asked for.
	holder Key
}

func (e *RefusedError) Error() string { return e.Sentence }

// quarantine is how long an address that was released is not given again where another can be:
// others may send to it for a while yet, and nodes remember its flows.
const quarantine = 30 * time.Second

// leastQuarantine is how long it is not given again in any case: longer than other
// nodes usually take to hear that the pod has gone, so that their network policy does not
// take the next one for it.
const leastQuarantine = 5 * time.Second

// Book records which pods are attached and which addresses and ports of the node
// they have: a file for each attachment, written before anybody hears of it. It
// is safe for concurrent use, by one process. However many pods there are, to
// reserve and to release costs the same.
type Book struct {
	dir  string
	disk disk
	now  func() time.Time
	// opened is when the book was opened. Free addresses of whose release it knows
	// nothing count as released then.
	opened time.Time
	// info logs what fails and does no harm.
	info func(message string, keysAndValues ...any)

	mu   sync.Mutex
	pods map[Key]*entry
	// links, containers and ports find attachments by their host link, by the ID of their
	// container and by their ports.
	links      map[string]Key
	containers map[string][]Key
	ports      map[hostPortKey][]Key
	// damaged holds, by host link, the addresses that could be read from records
	// that were set aside. They stay taken, since the pod may be there.
	damaged map[string][]netip.Addr
	// holders counts the records that have an address. What blocks know of their
	// addresses follows from it.
	holders map[netip.Addr]int
	blocks  map[netip.Prefix]*ipam.Addresses
	cursors map[netip.Prefix]netip.Addr
	// recent are the addresses that were released last, in that order: all that have
	// not been free for leastQuarantine, and others. Their quarantine outlasts a restart.
	recent []released
	// freed is closed when addresses are released; nil where nobody waits for that.
	freed chan struct{}
}

// entry is an attachment in the book.
type entry struct {
	pod model.Pod
	// leaving says that the pod is being detached. After a restart it counts as
	// attached, until the runtime repeats its request.
	leaving bool
}

// hostPortKey is a port of the node, on whichever of its addresses.
type hostPortKey struct {
	port     uint16
	protocol string
}

// Reserve records a pod with one address of each family that blocks has, and
// returns it with Addrs and Blocks filled in, in the order in which blocks names
// the families. Each address is of the first block that has one which was never
// used, or has left quarantine; where no block has one it is that which has been free
// longest, and for leastQuarantine. The error is a *RefusedError where a family has no such address,
// or a port of the node is in use, and a *types.Error where the pod has an attachment
// already: then the pod gets none.
func (b *Book) Reserve(pod model.Pod, blocks []netip.Prefix) (model.Pod, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.checkNew(pod); err != nil {
		return model.Pod{}, err
	}
	if len(blocks) == 0 {
		return model.Pod{}, &RefusedError{Sentence: noBlock, noBlock: true}
	}
	pod.Addrs, pod.Blocks = nil, nil
	// As it is read from the record.
	pod.Since = b.now().UTC().Round(0)
	refused := &RefusedError{}
	moved := map[netip.Prefix]netip.Addr{}
	for _, family := range byFamily(blocks) {
		block, candidate, ok := b.choose(family)
		if left := b.quarantined(candidate); !ok || left > 0 {
			i := model.FamilyIndex(family[0].Addr())
			refused.full[i], refused.quarantined[i] = family, left
			continue
		}
		pod.Addrs = append(pod.Addrs, candidate.Addr)
		pod.Blocks = append(pod.Blocks, block)
		if candidate.Released.IsZero() {
			moved[block] = candidate.Addr
		}
	}
	if refused.isFull() {
		refused.Sentence = refused.lack()
		return model.Pod{}, refused
	}
	if err := b.moveCursors(moved, blocks); err != nil {
		return model.Pod{}, err
	}
	if err := b.record(pod); err != nil {
		return model.Pod{}, err
	}
	return pod, nil
}

// moveCursors writes which addresses are the last that were given for the first
// time, and forgets the blocks that new pods get none of.
func (b *Book) moveCursors(moved map[netip.Prefix]netip.Addr, blocks []netip.Prefix) error {
	cursors := maps.Clone(b.cursors)
	maps.Copy(cursors, moved)
	if maps.Equal(cursors, b.cursors) {
		return nil
	}
	unknown := func(block netip.Prefix) bool { return !slices.Contains(blocks, block) }
	maps.DeleteFunc(cursors, func(block netip.Prefix, _ netip.Addr) bool { return unknown(block) })
	if err := b.write(cursorsName, cursors); err != nil {
		return err
	}
	b.cursors = cursors
	maps.DeleteFunc(b.blocks, func(block netip.Prefix, a *ipam.Addresses) bool { return unknown(block) && a.Used() == 0 })
	return nil
}

// describeNetwork ends the sentences of what the PodNetwork's conditions explain.
const describeNetwork = "see `kubectl describe podnetwork default`"

const noBlock = "this node has no block of addresses yet: " + describeNetwork

// checkNew returns an error where a pod's record or ports would meet those of another.
func (b *Book) checkNew(pod model.Pod) error {
	if key, ok := b.links[pod.HostLink]; ok {
		return fmt.Errorf("record attachment of container %s: container %s has its record", pod.ContainerID, key.ContainerID)
	}
	for _, key := range b.containers[pod.ContainerID] {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("the pod has interface %s from podnet already, and podnet gives a pod one: "+
			"take podnet out of what asks for interface %s, such as the annotation k8s.v1.cni.cncf.io/networks", key.IfName, pod.IfName), "")
	}
	for _, port := range pod.HostPorts {
		for _, key := range b.ports[hostPortKey{port.Host, port.Protocol}] {
			other := b.pods[key].pod
			if succeeds(pod, other) {
				continue
			}
			if slices.ContainsFunc(other.HostPorts, func(p model.HostPort) bool { return portsMeet(p, port) }) {
				return &RefusedError{holder: key, Sentence: fmt.Sprintf("host port %d/%s of this node is in use by pod %s/%s",
					port.Host, port.Protocol, other.Namespace, other.Name)}
			}
		}
	}
	return nil
}

// succeeds reports whether a pod takes the place of another: it has the same name, in a
// sandbox of its own, as after its runtime lost the former one. Kubernetes has one pod of
// a name.
func succeeds(pod, other model.Pod) bool {
	return pod.Name != "" && pod.Name == other.Name && pod.Namespace == other.Namespace && pod.ContainerID != other.ContainerID
}

// yieldPorts makes a pod's ports of the node free for others, though it is still attached.
func (b *Book) yieldPorts(key Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.pods[key]; e != nil {
		b.freePorts(e.pod)
	}
}

// portsMeet reports whether a packet can be for both ports.
func portsMeet(a, b model.HostPort) bool {
	return a.Host == b.Host && a.Protocol == b.Protocol &&
		(a.HostIP == b.HostIP || !a.HostIP.IsValid() || !b.HostIP.IsValid())
}

// record writes the record. Where it fails and nobody can tell whether the record
// is there, nobody else gets its addresses, and the attachment counts as one that
// is being detached: it has to be released first.
func (b *Book) record(pod model.Pod) error {
	e := &entry{pod: pod}
	err := b.write(pod.HostLink+recordSuffix, pod)
	if err != nil {
		removeErr := b.disk.remove(b.path(pod.HostLink + recordSuffix))
		if removeErr == nil {
			return err
		}
		err = errors.Join(err, removeErr)
		e.leaving = true
	}
	b.enter(e)
	return err
}

// enter makes the book know an attachment that has a record.
func (b *Book) enter(e *entry) {
	key := KeyOf(e.pod)
	b.pods[key] = e
	b.links[e.pod.HostLink] = key
	b.containers[key.ContainerID] = append(b.containers[key.ContainerID], key)
	for _, p := range e.pod.HostPorts {
		port := hostPortKey{p.Host, p.Protocol}
		b.ports[port] = append(b.ports[port], key)
	}
	b.hold(e.pod.Addrs)
}

// hold makes addresses those of one more record.
func (b *Book) hold(addrs []netip.Addr) {
	for _, addr := range addrs {
		b.holders[addr]++
		for _, a := range b.blocks {
			a.Take(addr)
		}
	}
}

// free makes addresses those of one record less.
func (b *Book) free(addrs []netip.Addr) {
	now := b.now()
	for _, addr := range addrs {
		b.holders[addr]--
		if b.holders[addr] > 0 {
			continue
		}
		delete(b.holders, addr)
		for _, a := range b.blocks {
			a.Release(addr, now)
		}
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// released returns a channel that is closed when addresses are released after
// the call.
func (b *Book) released() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
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
// frees its addresses. It succeeds where there is none, and needs no room on the disk.
func (b *Book) Release(key Key) error { return b.release(key.HostLink()) }

func (b *Book) release(hostLink string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Noted before: what is noted and still in use is no harm.
	addrs := b.damaged[hostLink]
	if key, ok := b.links[hostLink]; ok {
		addrs = slices.Concat(addrs, b.pods[key].pod.Addrs)
	}
	if len(addrs) > 0 {
		b.noteReleased(addrs)
	}
	for _, suffix := range []string{recordSuffix, damagedSuffix} {
		if err := b.disk.remove(b.path(hostLink + suffix)); err != nil {
			return fmt.Errorf("release the addresses of %s: %w", hostLink, err)
		}
	}
	if key, ok := b.links[hostLink]; ok {
		e := b.pods[key]
		delete(b.pods, key)
		delete(b.links, hostLink)
		forget(b.containers, key.ContainerID, key)
		b.freePorts(e.pod)
		b.free(e.pod.Addrs)
	}
	if addrs, ok := b.damaged[hostLink]; ok {
		delete(b.damaged, hostLink)
		b.free(addrs)
	}
	return nil
}

// freePorts takes a pod out of those that have its ports of the node.
func (b *Book) freePorts(pod model.Pod) {
	for _, p := range pod.HostPorts {
		forget(b.ports, hostPortKey{p.Host, p.Protocol}, KeyOf(pod))
	}
}

// forget takes an attachment out of those that are found by something that it has.
func forget[T comparable](found map[T][]Key, by T, key Key) {
	found[by] = slices.DeleteFunc(found[by], func(k Key) bool { return k == key })
	if len(found[by]) == 0 {
		delete(found, by)
	}
}

// leave makes Pods no longer name an attachment, so that nobody recreates what
// is about to be removed from the kernel. Its addresses stay taken until Release.
func (b *Book) leave(key Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.pods[key]; e != nil {
		e.leaving = true
	}
}

// Get returns the pod of an attachment, also of one that is being detached, and
// whether there is one.
func (b *Book) Get(key Key) (model.Pod, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pods[key]
	if e == nil {
		return model.Pod{}, false
	}
	return clone(e.pod), true
}

// Pods returns the pods that shall hang on the node, sorted by host link: not
// those that are being detached. The link of one that was just recorded may not
// be there yet.
func (b *Book) Pods() []model.Pod {
	return b.list(func(e *entry) bool { return !e.leaving })
}

// Recorded returns all pods that have a record, sorted by host link.
func (b *Book) Recorded() []model.Pod {
	return b.list(func(*entry) bool { return true })
}

func (b *Book) list(include func(*entry) bool) []model.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	pods := make([]model.Pod, 0, len(b.pods))
	for _, e := range b.pods {
		if include(e) {
			pods = append(pods, clone(e.pod))
		}
	}
	slices.SortFunc(pods, func(a, b model.Pod) int { return cmp.Compare(a.HostLink, b.HostLink) })
	return pods
}

func (b *Book) isLeaving(key Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pods[key]
	return e != nil && e.leaving
}

// recordedSince returns when an attachment was recorded, and false where it has
// no record.
func (b *Book) recordedSince(key Key) (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pods[key]
	if e == nil {
		return time.Time{}, false
	}
	return e.pod.Since, true
}

// Damaged returns the host links of attachments whose records could not be
// read, sorted. A pod may still hang on them.
func (b *Book) Damaged() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.damaged))
}

// damagedAddrs returns the addresses that could be read from a record that was
// set aside, and whether there is one.
func (b *Book) damagedAddrs(hostLink string) ([]netip.Addr, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addrs, ok := b.damaged[hostLink]
	return slices.Clone(addrs), ok
}

// clone returns a pod that shares no memory with the book.
func clone(pod model.Pod) model.Pod {
	pod.Addrs = slices.Clone(pod.Addrs)
	pod.Blocks = slices.Clone(pod.Blocks)
	pod.HostPorts = slices.Clone(pod.HostPorts)
	return pod
}
