package loop

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// work is what a loop does: it remembers when passes began, and what was answered.
type work struct {
	mu       sync.Mutex
	began    time.Time
	passes   []time.Duration
	answered []time.Duration
	takes    time.Duration
	err      error
}

func (w *work) pass(context.Context) error {
	w.mu.Lock()
	w.passes = append(w.passes, time.Since(w.began))
	takes, err := w.takes, w.err
	w.mu.Unlock()
	time.Sleep(takes)
	return err
}

func (w *work) answer(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = append(w.answered, after)
}

// afresh forgets the passes up to now. Those from now on take so long and end so.
func (w *work) afresh(takes time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began, w.passes, w.answered, w.takes, w.err = time.Now(), nil, nil, takes, err
}

// expect checks when passes began, after a time in which they may.
func (w *work) expect(t *testing.T, in time.Duration, want ...time.Duration) {
	t.Helper()
	later(in)
	w.mu.Lock()
	defer w.mu.Unlock()
	expect(t, "passes at", w.passes, want...)
}

// expectAnswered checks what was answered.
func (w *work) expectAnswered(t *testing.T, want ...time.Duration) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	expect(t, "answered", w.answered, want...)
}

func expect(t *testing.T, what string, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s %v, want %v", what, got, want)
	}
}

// later returns when what is to happen within a time has happened.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// run runs a loop, in time that is played, until the test's part of it ends.
func run(t *testing.T, cfg Config, test func(*work, *Loop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &work{began: time.Now()}
		cfg.Pass, cfg.Answered = w.pass, w.answer
		l := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		test(w, l)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

const ms = time.Millisecond

func TestPassIsMadeAtOnceAndAtLeastEveryInterval(t *testing.T) {
	run(t, Config{Settle: 50 * ms, FullInterval: time.Minute}, func(w *work, _ *Loop) {
		w.expect(t, 3*time.Minute-ms, 0, time.Minute, 2*time.Minute)
		w.expectAnswered(t)
	})
}

func TestChangesThatComeTogetherLeadToOnePass(t *testing.T) {
	run(t, Config{Settle: 50 * ms, FullInterval: time.Minute}, func(w *work, l *Loop) {
		later(time.Second)
		for range 4 {
			for range 100 {
				l.Trigger()
			}
			time.Sleep(10 * ms)
		}
		w.expect(t, time.Second, 0, 1050*ms)
		w.expectAnswered(t, 50*ms)
	})
}

func TestChangeDuringAPassLeadsToAnother(t *testing.T) {
	run(t, Config{Settle: 50 * ms, FullInterval: time.Minute}, func(w *work, l *Loop) {
		w.afresh(200*ms, nil)
		l.Trigger()
		time.Sleep(150 * ms)
		l.Trigger()
		w.expect(t, time.Second, 50*ms, 300*ms)
		// The second one was asked for when the first was half done.
		w.expectAnswered(t, 250*ms, 350*ms)
	})
}

func TestPassesPauseWhereChangesDoNotEnd(t *testing.T) {
	for name, c := range map[string]struct {
		most, apart time.Duration
	}{
		"for so many times as long as they take": {0, 500 * ms},
		"for no longer than they may":            {300 * ms, 400 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Config{Settle: 50 * ms, PauseFactor: 4, MostPause: c.most, FullInterval: time.Hour}, func(w *work, l *Loop) {
				w.afresh(100*ms, nil)
				want := []time.Duration{}
				for at := 50 * ms; at < time.Minute; at += c.apart {
					want = append(want, at)
				}
				for range 60 * 40 {
					l.Trigger()
					time.Sleep(25 * ms)
				}
				w.expect(t, 0, want...)
				later(time.Minute)
				w.afresh(100*ms, nil)
				l.Trigger()
				// One change alone does not wait.
				w.expect(t, time.Second, 50*ms)
			})
		})
	}
}

func TestFailureIsTriedAgainEverMoreSeldom(t *testing.T) {
	run(t, Config{Settle: 50 * ms, FirstRetry: 10 * time.Second, FullInterval: time.Hour}, func(w *work, l *Loop) {
		w.afresh(0, errors.New("not now"))
		l.Trigger()
		w.expect(t, 99*time.Second, 50*ms, 10050*ms, 30050*ms, 60050*ms, 90050*ms)
		w.expectAnswered(t)
		w.afresh(0, nil)
		l.Trigger()
		w.expect(t, time.Second, 50*ms)
		// What was first asked for is done only now.
		w.expectAnswered(t, 99050*ms)
		w.afresh(0, errors.New("once more"))
		l.Trigger()
		w.expect(t, 11*time.Second, 50*ms, 10050*ms)
	})
}

func TestLoopEndsWhileChangesSettle(t *testing.T) {
	run(t, Config{Settle: time.Hour, FullInterval: time.Hour}, func(w *work, l *Loop) {
		l.Trigger()
		w.expect(t, time.Minute, 0)
	})
}

func TestBackoffDoublesUpToABound(t *testing.T) {
	b := Backoff{First: 8 * time.Second}
	for _, want := range []time.Duration{8, 16, 30, 30} {
		if got := b.Next(); got != want*time.Second {
			t.Errorf("waits %s, want %s", got, want*time.Second)
		}
	}
	b.Reset()
	if got := b.Next(); got != b.First {
		t.Errorf("waits %s after a success, want %s", got, b.First)
	}
}
