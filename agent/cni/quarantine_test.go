package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/agent/attach"
)

// reserveAll reserves addresses until none is left, and returns who has them.
func reserveAll(t *testing.T, book *Book, block string) (ids []string) {
	t.Helper()
	for {
		id := fmt.Sprint(block, " ", len(ids))
		if _, err := book.Reserve(newPod(id), prefixes(block)); err != nil {
			return ids
		}
		ids = append(ids, id)
	}
}

// What the book knows of a block may be lost while addresses of it are in quarantine: these stay there all
// the same, however many they are.
func TestAddressesStayInQuarantineWhateverBecomesOfTheirBlock(t *testing.T) {
	const block, other = "10.0.0.0/24", "10.0.1.0/24"
	for name, lose := range map[string]func(t *testing.T, dir string, book *Book, now time.Time) (*Book, *time.Time){
		"restart": func(t *testing.T, dir string, _ *Book, now time.Time) (*Book, *time.Time) {
			return openedAt(t, dir, now, osDisk{})
		},
		"restart without cursors": func(t *testing.T, dir string, _ *Book, now time.Time) (*Book, *time.Time) {
			if err := os.Remove(filepath.Join(dir, cursorsName)); err != nil {
				t.Fatal(err)
			}
			return openedAt(t, dir, now, osDisk{})
		},
		"restart without notes": func(t *testing.T, dir string, _ *Book, now time.Time) (*Book, *time.Time) {
			if err := os.Remove(filepath.Join(dir, releasedName)); err != nil {
				t.Fatal(err)
			}
			// They count as released when the agent starts.
			return openedAt(t, dir, now.Add(leastQuarantine-1), osDisk{})
		},
		"a time without pods in it": func(t *testing.T, _ string, book *Book, now time.Time) (*Book, *time.Time) {
			book.now = func() time.Time { return now }
			reserve(t, book, "elsewhere", other)
			if len(book.blocks) != 1 || len(book.cursors) != 1 {
				t.Errorf("it is known: %v", book.cursors)
			}
			return book, &now
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			book, now := clocked(t, dir)
			ids := reserveAll(t, book, block)
			if len(ids) <= maxRecent {
				t.Fatalf("only %d addresses", len(ids))
			}
			release(t, book, ids...)
			book, now = lose(t, dir, book, now.Add(1))
			wantRefused(t, book, "every free address of block 10.0.0.0/24", block)
			*now = now.Add(leastQuarantine - 2)
			wantRefused(t, book, "every free address of block 10.0.0.0/24", block)
			*now = now.Add(2)
			if again := reserveAll(t, book, block); len(again) != len(ids) {
				t.Errorf("%d of %d addresses are given again", len(again), len(ids))
			}
		})
	}
}

// A note of an earlier release of an address does not stand for its last one.
func TestReleaseThatCouldNotBeNotedCountsFromTheRestart(t *testing.T) {
	const block = "10.0.0.0/30"
	dir := folder(t)
	book, now := clocked(t, dir)
	reserve(t, book, "a", block)
	release(t, book, "a")
	*now = now.Add(quarantine)
	reserve(t, book, "b", block)
	book.disk = fullDisk{}
	release(t, book, "b")
	book, now = openedAt(t, dir, now.Add(time.Second), osDisk{})
	*now = now.Add(leastQuarantine - 1)
	wantRefused(t, book, "every free address", block)
	*now = now.Add(1)
	wantReserved(t, book, "c", "10.0.0.2", block)
}

// The first pod after a restart asks for a block of which nothing was asked before.
func TestFirstPodDoesNotWaitForWhatWasReleasedLongAgo(t *testing.T) {
	const block = "fd00::/121"
	dir := folder(t)
	book, now := clocked(t, dir)
	ids := reserveAll(t, book, block)
	release(t, book, ids...)
	damaged := reserve(t, book, "damaged", "10.0.0.0/30")
	cutRecord(t, filepath.Join(dir, damaged.HostLink+recordSuffix))
	book, now = openedAt(t, dir, *now, osDisk{})
	*now = now.Add(leastQuarantine)
	wantReserved(t, book, "a", "fd00::2", block)
	// One that had a damaged record is released as any other.
	release(t, book, "damaged")
	wantRefused(t, book, "every free address", "10.0.0.0/30")
	*now = now.Add(leastQuarantine)
	wantReserved(t, book, "b", "10.0.0.2", "10.0.0.0/30")
}

// To set the clock of the node makes no quarantine longer, or shorter.
func TestQuarantineIsMeasuredByAClockThatNobodySets(t *testing.T) {
	dir := folder(t)
	book := open(t, dir)
	reserve(t, book, "a", "10.0.0.0/30")
	release(t, book, "a")
	// Times without a reading of the monotonic clock are equal to themselves without it.
	for _, r := range open(t, dir).recent {
		if r.At == r.At.Round(0) {
			t.Errorf("%s was released at %s, by the clock on the wall", r.Addr, r.At)
		}
	}
}

// An address that is released is in quarantine first, whether or not the node may get a block.
func TestAddWaitsUntilAnAddressLeavesQuarantine(t *testing.T) {
	for _, grows := range []bool{false, true} {
		t.Run(fmt.Sprint("grows ", grows), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWaiting(t, "10.0.0.0/30")
				w.net.grow(func(s *attach.Offer) { s.Growing[0] = grows })
				w.end("first")
				time.Sleep(time.Second)
				a := w.begin(t.Context(), "a")
				// It counts, and so does the address: as one that is free.
				w.wantWaiting(1, 0)
				if used := w.config.Book.Usage(netip.MustParsePrefix("10.0.0.0/30")); used != 0 {
					t.Errorf("%d addresses in use", used)
				}
				time.Sleep(leastQuarantine)
				w.wantResult(a, "10.0.0.2")
				if want := leastQuarantine - time.Second; a.took != want {
					t.Errorf("took %s, want %s", a.took, want)
				}
				w.wantWaiting(0, 0)
			})
		})
	}
}

// An ADD that waits, for whatever reason, goes on with the first address that leaves quarantine.
func TestAddWaitsForAnAddressThatIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		a, b := w.begin(t.Context(), "a"), w.begin(t.Context(), "b")
		w.wantWaiting(2, 0)
		time.Sleep(time.Second)
		w.end("first")
		time.Sleep(leastQuarantine)
		synctest.Wait()
		w.wantWaiting(1, 0)
		got, waits, of := a, b, "a"
		if b.done {
			got, waits, of = b, a, "b"
		}
		w.wantResult(got, "10.0.0.2")
		if waits.done {
			t.Errorf("both have it: %+v", waits)
		}
		w.end(of)
		time.Sleep(leastQuarantine)
		w.wantResult(waits, "10.0.0.2")
		if want := time.Second + 2*leastQuarantine; waits.took != want {
			t.Errorf("took %s, want %s", waits.took, want)
		}
	})
}

// A block that comes meanwhile has an address that nobody had.
func TestBlockComesBeforeAnAddressLeavesQuarantine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		w.end("first")
		a := w.begin(t.Context(), "a")
		w.net.grow(func(s *attach.Offer) { s.Blocks = append(s.Blocks, prefixes("10.0.1.0/30")...) })
		w.wantResult(a, "10.0.1.2")
	})
}

// Of IPv4 an address is in quarantine, and all of IPv6 are in use.
func TestAddWaitsForQuarantineOfOneFamilyAndForABlockOfTheOther(t *testing.T) {
	for name, tc := range map[string]struct {
		grows bool
		// comes is when a block of IPv6 comes, after the ADD, and took what that takes.
		comes, took time.Duration
	}{
		"the block comes first": {true, time.Second, leastQuarantine},
		"the block comes last":  {true, 3 * leastQuarantine, 3 * leastQuarantine},
		"no block may come":     {false, time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWaiting(t, "10.0.0.0/30")
				w.net.grow(func(s *attach.Offer) { s.Blocks = prefixes("fd00::/126") })
				w.wantResult(w.begin(t.Context(), "second"), "fd00::2")
				w.wantResult(w.begin(t.Context(), "third"), "fd00::3")
				w.net.grow(func(s *attach.Offer) {
					s.Blocks, s.Growing = prefixes("10.0.0.0/30", "fd00::/126"), [2]bool{false, tc.grows}
				})
				w.end("first")
				a := w.begin(t.Context(), "a")
				if tc.grows {
					w.wantWaiting(1, 1)
				}
				time.Sleep(tc.comes)
				w.net.grow(func(s *attach.Offer) { s.Blocks = append(s.Blocks, prefixes("fd00:1::/64")...) })
				time.Sleep(leastQuarantine)
				if tc.grows {
					w.wantResult(a, "10.0.0.2")
				} else {
					w.wantRefusal(a, "all 2 addresses of block fd00::/126 are in use")
				}
				if a.took != tc.took {
					t.Errorf("took %s, want %s", a.took, tc.took)
				}
				w.wantWaiting(0, 0)
			})
		})
	}
}

// The last address is released too late for the ADDs that have waited for long.
func TestAddGivesUpBeforeAnAddressLeavesQuarantine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30", "fd00::/64")
		ctx, cancel := context.WithTimeout(t.Context(), addWait-1)
		defer cancel()
		a, b := w.begin(t.Context(), "a"), w.begin(ctx, "b")
		time.Sleep(addWait - leastQuarantine + 1)
		w.end("first")
		time.Sleep(leastQuarantine - 1)
		w.wantRefusal(a, "attach pod ns/pod-a: every free address of block 10.0.0.0/30 was released less than 5s ago: "+
			"pods wait until one has been free that long; a larger nodeBlocks.reserve keeps more of them free, see `kubectl describe podnetwork default`")
		if a.took != addWait || !b.done || !errors.Is(b.err, context.DeadlineExceeded) {
			t.Errorf("%+v, and where the runtime's patience ends: %+v", a, b)
		}
		w.wantWaiting(0, 0)
	})
}

func TestDelEndsTheWaitForAnAddressInQuarantine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWaiting(t, "10.0.0.0/30")
		w.end("first")
		a := w.begin(t.Context(), "a")
		start := time.Now()
		w.end("a")
		synctest.Wait()
		var e *types.Error
		if took := time.Since(start); took != 0 || !a.done || !errors.As(a.err, &e) || e.Code != types.ErrTryAgainLater {
			t.Errorf("DEL took %s, ADD: %+v", took, a)
		}
		w.wantWaiting(0, 0)
		// It had none that would have to be in quarantine again.
		b := w.begin(t.Context(), "b")
		time.Sleep(leastQuarantine)
		w.wantResult(b, "10.0.0.2")
	})
}
