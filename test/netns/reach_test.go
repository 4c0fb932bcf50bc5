package netns

import (
	"testing"
)

func TestPodsReachEachOther(t *testing.T) {
	each(t, func(t *testing.T, o options) {
		o.nodes = 2
		c := newCluster(t, o)
		a, b := c.nodes[0].addPod(t), c.nodes[0].addPod(t)
		remote := c.nodes[1].addPod(t)
		for _, to := range []*pod{b, remote} {
			for _, addr := range to.Addrs {
				if err := a.Reaches(addr, port); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
