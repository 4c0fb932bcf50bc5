package loop

import "time"

// mostBackoff is the longest time between two tries.
const mostBackoff = 30 * time.Second

// Backoff is how long to wait before what failed is tried again.
type Backoff struct {
	// First is the time after the first failure. It doubles with each further one, up to
	// 30 seconds.
	First time.Duration
	last  time.Duration
}

// Next returns how long to wait after one more failure.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), mostBackoff)
	return b.last
}

// Reset forgets the failures, after a success.
func (b *Backoff) Reset() { b.last = 0 }
