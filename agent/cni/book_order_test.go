package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

// clocked returns a book and the time that it goes by.
func clocked(t *testing.T, dir string) (*Book, *time.Time) {
	t.Helper()
	return openedAt(t, dir, time.Unix(1000, 0), osDisk{})
}

func openedAt(t *testing.T, dir string, now time.Time, d disk) (*Book, *time.Time) {
	t.Helper()
	book, err := openBook(t.Context(), dir, func() time.Time { return now }, d)
	if err != nil {
		t.Fatal(err)
	}
	return book, &now
}

func release(t *testing.T, book *Book, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := book.Release(Key{id, "eth0"}); err != nil {
			t.Fatal(err)
		}
	}
}

func wantReserved(t *testing.T, book *Book, id, want string, blocks ...string) {
	t.Helper()
	if got := addrs(reserve(t, book, id, blocks...)); got != want {
		t.Errorf("%s got %s, want %s", id, got, want)
	}
}

func wantRefused(t *testing.T, book *Book, sentence string, blocks ...string) {
	t.Helper()
	var refused *RefusedError
	if pod, err := book.Reserve(newPod("refused"), prefixes(blocks...)); !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), sentence) {
		t.Errorf("got %v, error %v, want %q", pod.Addrs, err, sentence)
	}
}

func TestAddressStaysInQuarantineWhileAnotherBlockHasOneThatLeftIt(t *testing.T) {
	book, now := clocked(t, folder(t))
	blocks := []string{"10.0.0.0/30", "10.0.1.0/29", "10.0.2.0/30"}
	wantReserved(t, book, "a", "10.0.0.2", blocks...)
	release(t, book, "a")
	*now = now.Add(quarantine - 1)
	wantReserved(t, book, "b", "10.0.1.2", blocks...)
	*now = now.Add(1)
	wantReserved(t, book, "c", "10.0.0.2", blocks...)
	for _, id := range []string{"d", "e"} {
		reserve(t, book, id, blocks[:2]...)
	}
	wantReserved(t, book, "f", "10.0.1.5", blocks[:2]...)
	wantReserved(t, book, "g", "10.0.2.2", blocks...)
	// None has left quarantine: the one that was free longest is given, of whichever block, and
	// not before leastQuarantine.
	release(t, book, "g")
	*now = now.Add(time.Second)
	release(t, book, "c")
	*now = now.Add(time.Second)
	release(t, book, "b")
	*now = now.Add(leastQuarantine - 2*time.Second - 1)
	wantRefused(t, book, "every free address of blocks 10.0.0.0/30, 10.0.1.0/29, 10.0.2.0/30 was released less than 5s ago: "+
		"pods wait until one has been free that long; a larger nodeBlocks.reserve keeps more of them free, see `kubectl", blocks...)
	*now = now.Add(1)
	wantReserved(t, book, "h", "10.0.2.2", blocks...)
	wantRefused(t, book, "every free address", blocks...)
	*now = now.Add(time.Second)
	wantReserved(t, book, "i", "10.0.0.2", blocks...)
	*now = now.Add(time.Second)
	wantReserved(t, book, "j", "10.0.1.2", blocks...)
	wantRefused(t, book, "all 6 addresses of blocks", blocks...)
}

func TestAddressesAreGivenInTheOrderOfTheirRelease(t *testing.T) {
	book, now := clocked(t, folder(t))
	for i := range 5 {
		reserve(t, book, fmt.Sprint(i), "fd00::/125", "10.0.0.0/24")
	}
	release(t, book, "3", "1", "4", "0")
	*now = now.Add(leastQuarantine)
	for i, want := range []string{"fd00::5 10.0.0.7", "fd00::3 10.0.0.8", "fd00::6 10.0.0.9", "fd00::2 10.0.0.10"} {
		wantReserved(t, book, fmt.Sprint("again", i), want, "fd00::/125", "10.0.0.0/24")
	}
}

// The order and the times of the last releases outlast the agent.
func TestOrderOfReleasesOutlastsARestart(t *testing.T) {
	dir := folder(t)
	book, now := clocked(t, dir)
	blocks := []string{"fd00::/125", "fd00:1::/126"}
	for i := range 7 {
		reserve(t, book, fmt.Sprint(i), blocks...)
	}
	release(t, book, "4", "5", "1")
	*now = now.Add(time.Second)
	release(t, book, "3")
	// One that was noted and is in use: as after a crash before its record went.
	book.noteReleased(addressesOf(book, "0"))
	book, now = openedAt(t, dir, now.Add(quarantine-time.Second), osDisk{})
	for i, want := range []string{"fd00::6", "fd00::3", "fd00:1::2", "fd00::5"} {
		wantReserved(t, book, fmt.Sprint("again", i), want, blocks...)
	}
	if _, err := book.Reserve(newPod("more"), prefixes(blocks...)); err == nil {
		t.Error("another got one")
	}
	release(t, book, "0")
	for i := range maxRecent {
		id := fmt.Sprint("x", i)
		reserve(t, book, id, "10.0.0.0/16")
		release(t, book, id)
		*now = now.Add(leastQuarantine)
	}
	if len(book.recent) != maxRecent || len(open(t, dir).recent) != maxRecent {
		t.Errorf("%d are noted", len(book.recent))
	}
}

// fullDisk has no room left. It still removes files.
type fullDisk struct{ osDisk }

func (fullDisk) write(path string, _ []byte, _ fs.FileMode) error {
	return &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
}

func TestFullDiskKeepsNoAddressFromBeingReleased(t *testing.T) {
	dir := folder(t)
	book, now := clocked(t, dir)
	const block = "fd00::/125"
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		reserve(t, book, id, block)
	}
	book.disk = fullDisk{}
	release(t, book, "c", "a")
	if used := book.Usage(netip.MustParsePrefix(block)); used != 3 || len(open(t, dir).Pods()) != 3 {
		t.Errorf("%d addresses in use, and %d after a restart", used, len(open(t, dir).Pods()))
	}
	*now = now.Add(leastQuarantine)
	if _, err := book.Reserve(newPod("x"), prefixes(block)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("reserved without a record: %v", err)
	}
	// With room, the next note has all.
	book.disk = osDisk{}
	release(t, book, "b")
	book, now = clocked(t, dir)
	*now = now.Add(quarantine)
	for i, want := range []string{"fd00::4", "fd00::2", "fd00::3"} {
		wantReserved(t, book, fmt.Sprint("again", i), want, block)
	}
}

// A clock that was set back does not make a quarantine long.
func TestReleaseInTheFutureCountsAsNow(t *testing.T) {
	dir := folder(t)
	book, now := clocked(t, dir)
	*now = now.Add(time.Hour)
	wantReserved(t, book, "a", "10.0.0.2", "10.0.0.0/30")
	release(t, book, "a")
	book, now = clocked(t, dir)
	*now = now.Add(leastQuarantine - 1)
	wantRefused(t, book, "every free address of block 10.0.0.0/30", "10.0.0.0/30")
	*now = now.Add(quarantine - leastQuarantine + 1)
	wantReserved(t, book, "b", "10.0.0.2", "10.0.0.0/30", "10.0.1.0/30")
}

func addressesOf(book *Book, id string) []netip.Addr {
	pod, _ := book.Get(Key{id, "eth0"})
	return pod.Addrs
}

func TestTakenAddressesAreTakenOfEveryBlockThatHasThem(t *testing.T) {
	book := open(t, folder(t))
	book.Usage(netip.MustParsePrefix("10.0.0.0/28"))
	wantReserved(t, book, "a", "10.0.0.2", "10.0.0.0/29")
	wantReserved(t, book, "b", "10.0.0.3", "10.0.0.0/28")
	wantReserved(t, book, "c", "10.0.0.4", "10.0.0.0/29")
	wantReserved(t, book, "d", "10.0.0.5", "10.0.0.0/27")
	for _, block := range prefixes("10.0.0.0/27", "10.0.0.0/28", "10.0.0.0/29") {
		if used := book.Usage(block); used != 4 {
			t.Errorf("%d addresses of %s in use", used, block)
		}
	}
	release(t, book, "a")
	if used := book.Usage(netip.MustParsePrefix("10.0.0.0/28")); used != 3 {
		t.Errorf("%d addresses in use", used)
	}
}

// countingDisk counts the writes to each file.
type countingDisk struct {
	osDisk
	writes map[string]int
}

func (d *countingDisk) write(path string, content []byte, mode fs.FileMode) error {
	d.writes[filepath.Base(path)]++
	return d.osDisk.write(path, content, mode)
}

func TestCursorsAreWrittenOnlyWhenOneMoves(t *testing.T) {
	disk := &countingDisk{writes: map[string]int{}}
	book, now := openedAt(t, folder(t), time.Unix(1000, 0), disk)
	for i := range 12 {
		id := fmt.Sprint(i)
		reserve(t, book, id, "10.0.0.0/29")
		release(t, book, id)
		*now = now.Add(leastQuarantine)
	}
	if got := disk.writes[cursorsName]; got != 4 {
		t.Errorf("the cursors were written %d times, for 4 addresses", got)
	}
	// Those of blocks that are not the node's any more go.
	reserve(t, book, "x", "10.0.1.0/29")
	if len(book.cursors) != 1 || len(book.blocks) != 1 {
		t.Errorf("cursors %v, %d blocks", book.cursors, len(book.blocks))
	}
}

// Whatever cannot be written, an address is not lost, and is not given twice.
func TestAddressOfARecordThatCannotBeWrittenIsGivenNext(t *testing.T) {
	dir := folder(t)
	book, _ := openedAt(t, dir, time.Unix(1000, 0), &faultyDisk{failAt: 2, fault: nothingDone})
	if _, err := book.Reserve(newPod("a"), prefixes("10.0.0.0/29")); !errors.Is(err, errFault) {
		t.Fatalf("got %v", err)
	}
	wantReserved(t, book, "b", "10.0.0.2", "10.0.0.0/29")
	wantReserved(t, open(t, dir), "c", "10.0.0.3", "10.0.0.0/29")
}

// noDisk writes nothing.
type noDisk struct{}

func (noDisk) write(string, []byte, fs.FileMode) error { return nil }
func (noDisk) remove(string) error                     { return nil }

// The cost of an ADD and a DEL does not depend on how many pods there are.
func BenchmarkBook(b *testing.B) {
	for _, pods := range []int{10, 1_000, 60_000} {
		b.Run(fmt.Sprint(pods, " pods"), func(b *testing.B) {
			now := time.Unix(1000, 0)
			book, err := openBook(b.Context(), b.TempDir(), func() time.Time { return now }, noDisk{})
			if err != nil {
				b.Fatal(err)
			}
			blocks := prefixes("10.0.0.0/16", "fd00::/64")
			churn := func(i int) model.Pod {
				pod := newPod(fmt.Sprint(i))
				pod.HostPorts = []model.HostPort{{Host: uint16(i), Protocol: "tcp", Pod: 80}}
				pod, err := book.Reserve(pod, blocks)
				if err != nil {
					b.Fatal(err)
				}
				return pod
			}
			for i := range pods {
				churn(i)
			}
			b.ResetTimer()
			for i := 0; i < b.N; i++ {
				pod := churn(pods + i%1000)
				book.Usage(blocks[0])
				if err := book.Release(KeyOf(pod)); err != nil {
					b.Fatal(err)
				}
				now = now.Add(leastQuarantine)
			}
		})
	}
}
