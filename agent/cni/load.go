package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/ipam"
	"github.com/podnet/podnet/internal/model"
)

// OpenBook reads the records in a folder, which it makes if need be. A record
// that makes no sense is logged and set aside: the addresses that can be read
// from it stay taken until its attachment is released. The clock now, such as
// time.Now, says how long addresses are in quarantine.
func OpenBook(ctx context.Context, dir string, now func() time.Time) (*Book, error) {
	return openBook(ctx, dir, now, osDisk{})
}

func openBook(ctx context.Context, dir string, now func() time.Time, d disk) (*Book, error) {
	b := &Book{
		dir:        dir,
		disk:       d,
		now:        now,
		opened:     now(),
		info:       log.FromContext(ctx).Info,
		pods:       map[Key]*entry{},
		links:      map[string]Key{},
		ports:      map[hostPortKey][]Key{},
		containers: map[string][]Key{},
		damaged:    map[string][]netip.Addr{},
		holders:    map[netip.Addr]int{},
		blocks:     map[netip.Prefix]*ipam.Addresses{},
		cursors:    map[netip.Prefix]netip.Addr{},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of attachments: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of attachments: %w", err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			log.FromContext(ctx).Info("something among the attachments is no file and not podnet's, leaving it alone", "path", b.path(entry.Name()))
			continue
		}
		if err := b.load(ctx, entry.Name()); err != nil {
			return nil, fmt.Errorf("load attachments: %w", err)
		}
	}
	return b, nil
}

// load takes one file of the folder into the book.
func (b *Book) load(ctx context.Context, name string) error {
	if strings.HasPrefix(name, temporaryPrefix) {
		// It was never renamed, so nobody heard of what it records.
		return b.disk.remove(b.path(name))
	}
	content, err := readStart(b.path(name))
	if err != nil {
		return err
	}
	logger := log.FromContext(ctx).WithValues("file", b.path(name))
	switch name {
	case cursorsName, releasedName:
		if err := b.loadOrder(name, content); err != nil {
			logger.Error(err, "cannot read in which order addresses were used, setting the file aside: they may be given again sooner than they need to")
			return b.rename(name, name+damagedSuffix)
		}
		return nil
	case cursorsName + damagedSuffix, releasedName + damagedSuffix:
		return nil
	}
	if hostLink, found := strings.CutSuffix(name, damagedSuffix); found {
		b.setAside(hostLink, salvage(content))
		return nil
	}
	hostLink, found := strings.CutSuffix(name, recordSuffix)
	if !found {
		logger.Info("a file among the attachments is not podnet's, leaving it alone")
		return nil
	}
	pod, err := parseRecord(content, hostLink)
	if err == nil {
		info, err := os.Stat(b.path(name))
		if err != nil {
			return err
		}
		if pod.Since.IsZero() {
			// A version that did not record it wrote it.
			pod.Since = info.ModTime()
		}
		b.enter(&entry{pod: pod})
		return nil
	}
	addrs := salvage(content)
	logger.Error(err, "cannot read the record of an attachment, setting it aside: its addresses stay taken until the pod is deleted",
		"addresses", addrs)
	b.setAside(hostLink, addrs)
	return b.rename(name, hostLink+damagedSuffix)
}

// rename sets a file aside.
func (b *Book) rename(name, to string) error {
	if err := os.Rename(b.path(name), b.path(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// readStart reads a file, of one that is larger than podnet writes any only so much that
// it makes no sense.
func readStart(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRequest))
}

// loadOrder takes what is known of the order in which addresses were used into the book,
// where it makes sense.
func (b *Book) loadOrder(name string, content []byte) error {
	if name == cursorsName {
		cursors, err := decode[map[netip.Prefix]netip.Addr](content)
		if err != nil {
			return err
		}
		if cursors == nil {
			return errors.New("it holds null")
		}
		for block, addr := range cursors {
			if !block.Contains(addr) {
				return fmt.Errorf("address %s is not of block %s", addr, block)
			}
		}
		b.cursors = cursors
		return nil
	}
	recent, err := decode[[]released](content)
	if err != nil {
		return err
	}
	for i, r := range recent {
		if !r.Addr.IsValid() {
			return errors.New("an address is missing")
		}
		recent[i].At = since(r.At, b.opened)
	}
	b.recent = recent
	return nil
}

// decode decodes all of a file.
func decode[T any](content []byte) (value T, err error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&value); err != nil {
		return value, fmt.Errorf("decode: %w", err)
	}
	if decoder.More() {
		return value, errors.New("something follows what was written")
	}
	return value, nil
}

// setAside notes the addresses of a record that could not be read.
func (b *Book) setAside(hostLink string, addrs []netip.Addr) {
	b.damaged[hostLink] = append(b.damaged[hostLink], addrs...)
	b.hold(addrs)
}

// parseRecord reads a record and checks that it is whole.
func parseRecord(content []byte, hostLink string) (model.Pod, error) {
	pod, err := decode[model.Pod](content)
	if err != nil {
		return model.Pod{}, err
	}
	if KeyOf(pod).HostLink() != hostLink || pod.HostLink != hostLink {
		return model.Pod{}, fmt.Errorf("it is the record of container %q, link %q", pod.ContainerID, pod.HostLink)
	}
	if len(pod.Addrs) == 0 || len(pod.Addrs) != len(pod.Blocks) {
		return model.Pod{}, fmt.Errorf("it has %d addresses of %d blocks", len(pod.Addrs), len(pod.Blocks))
	}
	for i, addr := range pod.Addrs {
		if !pod.Blocks[i].Contains(addr) {
			return model.Pod{}, fmt.Errorf("address %s is not of block %s", addr, pod.Blocks[i])
		}
	}
	return pod, nil
}

var (
	addrsOfRecord = regexp.MustCompile(`"addrs"\s*:\s*\[([^\]]*)`)
	quoted        = regexp.MustCompile(`"([^"]*)"`)
)

// salvage returns what addresses can be read from a damaged record.
func salvage(content []byte) []netip.Addr {
	var addrs []netip.Addr
	for _, list := range addrsOfRecord.FindAllSubmatch(content, -1) {
		for _, text := range quoted.FindAllSubmatch(list[1], -1) {
			if addr, err := netip.ParseAddr(string(text[1])); err == nil {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}
