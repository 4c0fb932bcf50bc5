package host

import (
	"strings"
	"testing"
)

func TestNeighbourTableTooSmall(t *testing.T) {
	for _, c := range []struct {
		needed, limit int
		found         bool
	}{{0, 1024, false}, {700, 1024, false}, {768, 1024, false}, {769, 1024, true}, {5000, 1024, true}, {5000, 16384, false}} {
		found := neighbourFinding("net/ipv4/neigh/default/gc_thresh3", c.needed, c.limit)
		if got := len(found) > 0; got != c.found {
			t.Errorf("%d nodes in a table of %d: found %t, want %t", c.needed, c.limit, got, c.found)
		}
		if c.found && !strings.Contains(found[0].Message, "net.ipv4.neigh.default.gc_thresh3") {
			t.Errorf("the message does not name the sysctl: %s", found[0].Message)
		}
	}
}
