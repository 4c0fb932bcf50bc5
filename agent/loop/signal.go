package loop

import "time"

// Signal wakes one goroutine. Any number of calls of Raise before that goroutine receives
// lead to one element, which says when it was first raised.
type Signal chan time.Time

// NewSignal returns a Signal that nobody has raised.
func NewSignal() Signal { return make(Signal, 1) }

// Raise wakes who receives. It does not block.
func (s Signal) Raise() {
	select {
	case s <- time.Now():
	default:
	}
}
