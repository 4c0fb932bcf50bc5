package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func newPod(id string) model.Pod {
	key := Key{ContainerID: id, IfName: "eth0"}
	return model.Pod{
		ContainerID: id, IfName: "eth0", Namespace: "ns", Name: "pod-" + id, Netns: "/run/netns/" + id,
		Attachment: model.PointToPoint, MTU: 1500, HostLink: key.HostLink(), PodMAC: model.DeriveMAC(id),
	}
}

func open(t *testing.T, dir string) *Book {
	t.Helper()
	book, err := OpenBook(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return book
}

func reserve(t *testing.T, book *Book, id string, blocks ...string) model.Pod {
	t.Helper()
	pod, err := book.Reserve(newPod(id), prefixes(blocks...))
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func addrs(pod model.Pod) string {
	var texts []string
	for _, a := range pod.Addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " ")
}

func TestPodGetsAnAddressOfEachFamilyInTheOrderOfBlocks(t *testing.T) {
	book := open(t, folder(t))
	for _, tc := range []struct {
		id     string
		blocks []string
		want   string
	}{
		{"a", []string{"10.0.0.0/30", "10.0.1.0/30", "fd00::/64"}, "10.0.0.2 fd00::2"},
		{"b", []string{"10.0.0.0/30", "10.0.1.0/30", "fd00::/64"}, "10.0.1.2 fd00::3"},
		{"c", []string{"fd00::/64", "10.0.2.0/30"}, "fd00::4 10.0.2.2"},
		{"d", []string{"fd00::/64"}, "fd00::5"},
	} {
		if got := addrs(reserve(t, book, tc.id, tc.blocks...)); got != tc.want {
			t.Errorf("%s got %s, want %s", tc.id, got, tc.want)
		}
	}
	if used := book.Usage(netip.MustParsePrefix("fd00::/64")); used != 4 {
		t.Errorf("%d used, want 4", used)
	}
}

func TestRefusalsAreSentences(t *testing.T) {
	book := open(t, folder(t))
	reserve(t, book, "a", "10.0.0.0/30", "10.0.1.0/30")
	reserve(t, book, "b", "10.0.0.0/30", "10.0.1.0/30")
	for _, tc := range []struct {
		name   string
		blocks []netip.Prefix
		want   string
	}{
		{"no block", nil, "this node has no block of addresses yet: see `kubectl describe podnetwork default`"},
		{"one block", prefixes("10.0.0.0/30"), "all 1 addresses of block 10.0.0.0/30 are in use"},
		{"two blocks", prefixes("10.0.0.0/30", "10.0.1.0/30"), "all 2 addresses of blocks 10.0.0.0/30, 10.0.1.0/30 are in use"},
		{"one family of two", prefixes("fd00::/64", "10.0.0.0/30"), "all 1 addresses of block 10.0.0.0/30 are in use"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := book.Reserve(newPod("c"), tc.blocks)
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if used := book.Usage(netip.MustParsePrefix("fd00::/64")); used != 0 {
		t.Errorf("refused pods have %d addresses", used)
	}
}

func TestHostPortsThatMeetAreRefused(t *testing.T) {
	any4 := netip.Addr{}
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tc := range []struct {
		name   string
		a, b   model.HostPort
		refuse bool
	}{
		{"same", model.HostPort{HostIP: one, Host: 80, Protocol: "tcp"}, model.HostPort{HostIP: one, Host: 80, Pod: 9, Protocol: "tcp"}, true},
		{"all and one", model.HostPort{HostIP: any4, Host: 80, Protocol: "tcp"}, model.HostPort{HostIP: one, Host: 80, Protocol: "tcp"}, true},
		{"other address", model.HostPort{HostIP: one, Host: 80, Protocol: "tcp"}, model.HostPort{HostIP: two, Host: 80, Protocol: "tcp"}, false},
		{"other port", model.HostPort{Host: 80, Protocol: "tcp"}, model.HostPort{Host: 81, Protocol: "tcp"}, false},
		{"other protocol", model.HostPort{Host: 80, Protocol: "tcp"}, model.HostPort{Host: 80, Protocol: "udp"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			book := open(t, folder(t))
			a, b := newPod("a"), newPod("b")
			a.HostPorts, b.HostPorts = []model.HostPort{tc.a}, []model.HostPort{tc.b}
			if _, err := book.Reserve(a, prefixes("10.0.0.0/24")); err != nil {
				t.Fatal(err)
			}
			_, err := book.Reserve(b, prefixes("10.0.0.0/24"))
			if (err != nil) != tc.refuse {
				t.Fatalf("got %v", err)
			}
			if want := "host port 80/tcp of this node is in use by pod ns/pod-a"; tc.refuse && err.Error() != want {
				t.Errorf("got %q, want %q", err, want)
			}
			if err := book.Release(KeyOf(a)); err != nil {
				t.Fatal(err)
			}
			if tc.refuse {
				if _, err := book.Reserve(b, prefixes("10.0.0.0/24")); err != nil {
					t.Errorf("after the release: %v", err)
				}
			}
		})
	}
}

func TestQuarantineOutlastsARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const block = "10.0.0.0/29"
		dir := folder(t)
		book := open(t, dir)
		all := []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}
		for i, want := range slices.Concat(all, all, all) {
			id := fmt.Sprint(i)
			wantReserved(t, book, id, want, block)
			release(t, book, id)
			time.Sleep(leastQuarantine / 4)
			book = open(t, dir)
		}
		wantReserved(t, book, "x", all[0], block)
		wantRefused(t, book, "every free address of block 10.0.0.0/29", block)
	})
}

func TestRecordsOutlastARestart(t *testing.T) {
	dir := folder(t)
	book := open(t, dir)
	pod := newPod("a")
	pod.HostPorts = []model.HostPort{{Host: 80, Pod: 8080, Protocol: "tcp"}}
	if _, err := book.Reserve(pod, prefixes("10.0.0.0/24", "fd00::/64")); err != nil {
		t.Fatal(err)
	}
	reserve(t, book, "b", "10.0.0.0/24")
	if got := open(t, dir).Pods(); !reflect.DeepEqual(got, book.Pods()) {
		t.Errorf("got %+v, want %+v", got, book.Pods())
	}
}

// Versions that kept no address for probes gave it to pods, and wrote it down as
// the one given last.
func TestPodKeepsTheAddressOfProbesThatItHasFromBefore(t *testing.T) {
	for _, tc := range []struct {
		block, probe string
		others       int
	}{
		{"10.0.0.0/29", "10.0.0.6", 4},
		{"fd00::/125", "fd00::7", 5},
	} {
		for _, damaged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s damaged %t", tc.block, damaged), func(t *testing.T) {
				dir, block, probe := folder(t), netip.MustParsePrefix(tc.block), netip.MustParseAddr(tc.probe)
				before := open(t, dir)
				old := newPod("old")
				old.Addrs, old.Blocks = []netip.Addr{probe}, []netip.Prefix{block}
				if err := errors.Join(before.record(old), before.write(cursorsName, map[netip.Prefix]netip.Addr{block: probe})); err != nil {
					t.Fatal(err)
				}
				if damaged {
					cutRecord(t, filepath.Join(dir, old.HostLink+recordSuffix))
				}

				// The addresses that the cursor has passed are in quarantine first.
				book, now := clocked(t, dir)
				*now = now.Add(leastQuarantine)
				wantUsed := func(want int) {
					t.Helper()
					used, reported := book.Usage(block), book.UsageByBlock([]netip.Prefix{block})[block]
					if used != int64(want) || reported != used {
						t.Errorf("%d used and %d reported, want %d", used, reported, want)
					}
				}
				wantUsed(1)
				got, ok := book.Get(KeyOf(old))
				// That version did not record it.
				got.Since = old.Since
				if ok == damaged || ok && !reflect.DeepEqual(got, old) {
					t.Errorf("loaded %+v, want %+v", got, old)
				}
				for i := range tc.others {
					if got := addrs(reserve(t, book, fmt.Sprint(i), tc.block)); got == tc.probe {
						t.Errorf("%s was given again", got)
					}
				}
				wantUsed(tc.others + 1)

				release(t, book, "old")
				for range 2 {
					wantUsed(tc.others)
					wantRefused(t, book, fmt.Sprintf("all %d addresses of block", tc.others), tc.block)
					book, now = openedAt(t, dir, *now, osDisk{})
				}
				release(t, book, "0")
				*now = now.Add(leastQuarantine)
				if got := addrs(reserve(t, book, "more", tc.block)); got == tc.probe {
					t.Errorf("%s was given again", got)
				}
			})
		}
	}
}

// cutRecord makes a record one that cannot be read, after its addresses.
func cutRecord(t *testing.T, file string) {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, whole[:strings.Index(string(whole), `"blocks"`)], recordMode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestReleaseIsIdempotent(t *testing.T) {
	book := open(t, folder(t))
	reserve(t, book, "a", "10.0.0.0/24")
	for range 2 {
		if err := book.Release(Key{"a", "eth0"}); err != nil {
			t.Fatal(err)
		}
	}
	if used := book.Usage(netip.MustParsePrefix("10.0.0.0/24")); used != 0 || len(book.Pods()) != 0 {
		t.Errorf("%d addresses used", used)
	}
}

func TestDamagedRecordsKeepTheirAddresses(t *testing.T) {
	const block = "10.0.0.0/29"
	for _, tc := range []struct {
		name   string
		damage func(whole []byte) []byte
		keeps  bool
	}{
		{"empty", func([]byte) []byte { return nil }, false},
		{"zeros", func(w []byte) []byte { return make([]byte, len(w)) }, false},
		{"cut after the addresses", func(w []byte) []byte { return w[:strings.Index(string(w), `"blocks"`)] }, true},
		{"cut after the first quote", func(w []byte) []byte { return w[:strings.Index(string(w), `"10.0.0.2"`)+10] }, true},
		{"doubled", func(w []byte) []byte { return append(append([]byte{}, w...), w...) }, true},
		{"of another container", func(w []byte) []byte { return []byte(strings.Replace(string(w), `"a"`, `"x"`, 1)) }, true},
		{"address outside its block", func(w []byte) []byte { return []byte(strings.Replace(string(w), "10.0.0.0/29", "10.9.0.0/29", 1)) }, true},
		{"no address", func(w []byte) []byte { return []byte(strings.Replace(string(w), "10.0.0.2", "", 1)) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := folder(t)
			book := open(t, dir)
			pod := reserve(t, book, "a", block)
			reserve(t, book, "b", block)
			file := filepath.Join(dir, pod.HostLink+recordSuffix)
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, tc.damage(whole), 0o600); err != nil {
				t.Fatal(err)
			}
			want := int64(1)
			if tc.keeps {
				want++
			}
			// It is found the same after another restart.
			for range 2 {
				book = open(t, dir)
				if got := book.Damaged(); len(got) != 1 || got[0] != pod.HostLink {
					t.Errorf("damaged: %v", got)
				}
				if used := book.Usage(netip.MustParsePrefix(block)); used != want {
					t.Errorf("%d used, want %d", used, want)
				}
				if pods := book.Pods(); len(pods) != 1 || pods[0].ContainerID != "b" {
					t.Errorf("pods: %v", pods)
				}
			}
			if err := book.Release(KeyOf(pod)); err != nil {
				t.Fatal(err)
			}
			book = open(t, dir)
			if used := book.Usage(netip.MustParsePrefix(block)); used != 1 || len(book.Damaged()) != 0 {
				t.Errorf("after the release %d used, damaged %v", used, book.Damaged())
			}
		})
	}
}

func TestForeignAndHalfWrittenFilesDoNoHarm(t *testing.T) {
	dir := folder(t)
	half, foreign := filepath.Join(dir, temporaryPrefix+"1"), filepath.Join(dir, "notes.txt")
	for _, file := range []string{half, foreign, filepath.Join(dir, cursorsName), filepath.Join(dir, releasedName)} {
		if err := os.WriteFile(file, []byte(`{"containerID": "a", "addrs": ["10.0.`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	book := open(t, dir)
	if len(book.Pods())+len(book.Damaged()) != 0 {
		t.Errorf("pods %v, damaged %v", book.Pods(), book.Damaged())
	}
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("half-written file: %v", err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("foreign file: %v", err)
	}
	reserve(t, book, "a", "10.0.0.0/24")
}

func TestReserveThatFailsTakesNothingUnlessTheRecordMayBeThere(t *testing.T) {
	for failAt := 1; failAt <= 2; failAt++ {
		for f := range faults {
			dir := folder(t)
			book, err := openBook(t.Context(), dir, time.Now, &faultyDisk{failAt: failAt, fault: f})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := book.Reserve(newPod("a"), prefixes("10.0.0.0/24")); !errors.Is(err, errFault) {
				t.Fatalf("got %v", err)
			}
			if pods, after := book.Pods(), open(t, dir).Pods(); len(pods) != 0 || len(after) != 0 {
				t.Errorf("step %d, fault %d: %v, after a restart %v", failAt, f, pods, after)
			}
		}
	}
	// The record cannot be removed either: its addresses stay taken.
	dir := folder(t)
	book, err := openBook(t.Context(), dir, time.Now, &faultyDisk{failAt: 2, fault: allDone, crash: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Reserve(newPod("a"), prefixes("10.0.0.0/24")); !errors.Is(err, errFault) {
		t.Fatalf("got %v", err)
	}
	if pods, after := book.Recorded(), open(t, dir).Pods(); len(pods) != 1 || len(book.Pods()) != 0 || !reflect.DeepEqual(pods, after) {
		t.Errorf("%v, after a restart %v", pods, after)
	}
}

func TestConcurrentReservationsGetDistinctAddresses(t *testing.T) {
	book := open(t, folder(t))
	blocks := prefixes("10.0.0.0/26", "fd00::/64")
	var wait sync.WaitGroup
	for i := range 80 {
		wait.Go(func() {
			id := fmt.Sprint(i)
			pod, err := book.Reserve(newPod(id), blocks)
			var refused *RefusedError
			if err != nil && !errors.As(err, &refused) {
				t.Error(err)
			}
			book.Usage(blocks[0])
			if err == nil && i%2 == 0 {
				if err := book.Release(KeyOf(pod)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	seen := map[netip.Addr]bool{}
	for _, pod := range book.Pods() {
		for _, addr := range pod.Addrs {
			if seen[addr] {
				t.Errorf("%s was given twice", addr)
			}
			seen[addr] = true
		}
	}
}

func TestHostLinkFitsTheKernel(t *testing.T) {
	name := Key{strings.Repeat("f", 64), "eth0"}.HostLink()
	if len(name) != 15 || !strings.HasPrefix(name, model.PodLinkPrefix) {
		t.Errorf("%q has %d characters", name, len(name))
	}
}
