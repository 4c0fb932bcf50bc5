// Package loop runs passes: work that makes everything as it shall be, however much of it
// has changed. What changed only asks for a pass, and changes that come together lead to
// one. What a pass does is left to who has the loop.
package loop

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Config is what a Loop works with.
type Config struct {
	// Asked, unless it is nil, is a Signal by which others ask for passes too.
	Asked Signal
	// Pass is the work. It returns an error when another try may help.
	Pass func(ctx context.Context) error
	// Failure is what the log says of a pass that failed.
	Failure string
	// Expected, unless it is nil, reports whether it is as it should be that a pass fails
	// so: then the log says that it is waited for, and no error.
	Expected func(error) bool
	// Settle is how long a pass that was asked for waits for further changes: they
	// come in bursts.
	Settle time.Duration
	// PauseFactor is how many times as long as a pass takes the next one that is asked
	// for waits after it, up to MostPause unless that is 0: where changes do not end,
	// passes shall not take all the time there is.
	PauseFactor int
	MostPause   time.Duration
	// FirstRetry is the time to the next try after a failure, which doubles with each.
	FirstRetry time.Duration
	// FullInterval is the time between passes when nobody asks for one.
	FullInterval time.Duration
	// Answered, unless it is nil, is called for each pass that was asked for and succeeded
	// how long ago it was first asked for.
	Answered func(after time.Duration)
}

// Loop makes passes. Its methods may be called concurrently.
type Loop struct {
	cfg Config
	// asked is raised when a pass is asked for.
	asked Signal
}

// New returns a Loop that makes no pass before Run.
func New(cfg Config) *Loop {
	l := &Loop{cfg: cfg, asked: cfg.Asked}
	if l.asked == nil {
		l.asked = NewSignal()
	}
	return l
}

// Trigger asks for a pass. Any number of calls before the pass begins lead to one.
func (l *Loop) Trigger() { l.asked.Raise() }

// Run makes passes until ctx ends: one at once, and then when asked for, when the last
// one failed, and at least every FullInterval.
func (l *Loop) Run(ctx context.Context) error {
	retry := Backoff{First: l.cfg.FirstRetry}
	var wait time.Duration
	// earliest is when the last pass is long enough ago for one that is asked for.
	var earliest time.Time
	// since is when what has not been done was first asked for; zero where nobody did.
	var since time.Time
	for {
		asked, ok := l.wait(ctx, wait, earliest)
		if !ok {
			return nil
		}
		if since.IsZero() {
			since = asked
		}
		begun := time.Now()
		err := l.cfg.Pass(ctx)
		earliest = time.Now().Add(l.pause(time.Since(begun)))
		if err != nil {
			wait = retry.Next()
			if l.cfg.Expected != nil && l.cfg.Expected(err) {
				log.FromContext(ctx).Info("waiting", "for", err.Error(), "after", wait.String())
			} else {
				log.FromContext(ctx).Error(err, l.cfg.Failure, "after", wait.String())
			}
			continue
		}
		if !since.IsZero() && l.cfg.Answered != nil {
			l.cfg.Answered(time.Since(since))
		}
		retry.Reset()
		wait, since = l.cfg.FullInterval, time.Time{}
	}
}

// wait returns when there is to be a pass: when asked for, or after a time anyway. It
// returns when it was first asked for, and false when ctx has ended.
func (l *Loop) wait(ctx context.Context, most time.Duration, earliest time.Time) (time.Time, bool) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	var asked time.Time
	select {
	case <-ctx.Done():
		return asked, false
	case asked = <-l.asked:
		select {
		case <-ctx.Done():
			return asked, false
		case <-time.After(max(l.cfg.Settle, time.Until(earliest))):
		}
	case <-timer.C:
	}
	// The pass does what was asked for meanwhile, too.
	select {
	case again := <-l.asked:
		if asked.IsZero() {
			asked = again
		}
	default:
	}
	return asked, true
}

// pause is how long passes pause after one that took so long.
func (l *Loop) pause(took time.Duration) time.Duration {
	pause := time.Duration(l.cfg.PauseFactor) * took
	if l.cfg.MostPause > 0 {
		pause = min(pause, l.cfg.MostPause)
	}
	return pause
}
