package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
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

// What the book knows of a block may be lost while addresses of it rest: these rest all
// the same, however many they are.
func TestAddressesRestWhateverBecomesOfTheirBlock(t *testing.T) {
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
			return openedAt(t, dir, now.Add(leastRest-1), osDisk{})
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
			*now = now.Add(leastRest - 2)
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
	*now = now.Add(rest)
	reserve(t, book, "b", block)
	book.disk = fullDisk{}
	release(t, book, "b")
	book, now = openedAt(t, dir, now.Add(time.Second), osDisk{})
	*now = now.Add(leastRest - 1)
	wantRefused(t, book, "every free address", block)
	*now = now.Add(1)
	wantReserved(t, book, "c", "10.0.0.2", block)
}

// The first pod after a restart asks for a block of which nothing was asked before.
func TestFirstPodDoesNotWaitForWhatHasLongRested(t *testing.T) {
	const block = "fd00::/121"
	dir := folder(t)
	book, now := clocked(t, dir)
	ids := reserveAll(t, book, block)
	release(t, book, ids...)
	damaged := reserve(t, book, "damaged", "10.0.0.0/30")
	cutRecord(t, filepath.Join(dir, damaged.HostLink+recordSuffix))
	book, now = openedAt(t, dir, *now, osDisk{})
	*now = now.Add(leastRest)
	wantReserved(t, book, "a", "fd00::2", block)
	// One that had a damaged record is released as any other.
	release(t, book, "damaged")
	wantRefused(t, book, "every free address", "10.0.0.0/30")
	*now = now.Add(leastRest)
	wantReserved(t, book, "b", "10.0.0.2", "10.0.0.0/30")
}

// To set the clock of the node makes no address rest for longer, or shorter.
func TestRestIsMeasuredByAClockThatNobodySets(t *testing.T) {
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
