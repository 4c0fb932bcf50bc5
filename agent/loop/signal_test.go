package loop

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSignalsThatComeTogetherAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := NewSignal(), time.Now()
		for range 3 {
			s.Raise()
			time.Sleep(time.Second)
		}
		if raised := <-s; !raised.Equal(first) {
			t.Errorf("raised at %v, want %v", raised, first)
		}
		select {
		case <-s:
			t.Error("raised a second time")
		default:
		}
	})
}
