package socket

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterruptedDumpIsNeverTakenForComplete(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		answers []error
		calls   int
		want    error
	}{
		"complete at once":          {[]error{nil}, 1, nil},
		"complete after changes":    {[]error{netlink.ErrDumpInterrupted, fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted), nil}, 3, nil},
		"interrupted every time":    {[]error{netlink.ErrDumpInterrupted}, dumpAttempts, netlink.ErrDumpInterrupted},
		"refused":                   {[]error{refused}, 1, refused},
		"refused after a change":    {[]error{netlink.ErrDumpInterrupted, refused}, 2, refused},
		"interrupted with a result": {[]error{netlink.ErrDumpInterrupted, nil}, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			all, err := Complete("numbers", func() ([]int, error) {
				answer := c.answers[min(calls, len(c.answers)-1)]
				calls++
				return []int{calls}, answer
			})
			if !errors.Is(err, c.want) || calls != c.calls {
				t.Errorf("error %v after %d calls, want %v after %d", err, calls, c.want, c.calls)
			}
			if err != nil && all != nil {
				t.Errorf("an error comes with the part %v", all)
			}
			if err == nil && (len(all) != 1 || all[0] != calls) {
				t.Errorf("the result is %v, want that of the last call", all)
			}
		})
	}
}
