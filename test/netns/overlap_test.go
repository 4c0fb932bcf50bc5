package netns

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
)

// findings returns what the node's agent finds, for the network's ranges and the
// node's own blocks.
func (n *node) findings(t *testing.T) []model.Finding {
	t.Helper()
	search := host.Search{Ranges: n.cluster.network.Ranges}
	for _, b := range n.cluster.blocks {
		if b.Node == n.Name {
			search.Blocks = append(search.Blocks, b.CIDR)
		}
	}
	var found []model.Finding
	n.Do(t, func() error {
		var err error
		found, err = n.host.Findings(context.Background(), search)
		return err
	})
	return found
}

func TestOverlapFindings(t *testing.T) {
	const other = "ip link add other0 type veth peer name other1\nip link set other0 up\nip link set other1 up\n"
	cases := []struct {
		name string
		// with puts the thing on the node.
		with string
		// want are the types of the findings, word is in the message of the first,
		// and cidrs are what RangeOverlap names.
		want  []string
		word  string
		cidrs []string
	}{
		{
			name: "a network in a range", with: other + "ip addr add 10.244.77.1/24 dev other0",
			want: []string{host.FindingRangeOverlap}, word: "10.244.77.0/24 on other0 (range 10.244.0.0/16)", cidrs: []string{"10.244.77.0/24"},
		},
		{
			name: "an IPv6 network in a range", with: other + "ip addr add fd44:0:0:77::1/64 dev other0 nodad",
			want: []string{host.FindingRangeOverlap}, word: "fd44:0:0:77::/64 on other0 (range fd44::/48)", cidrs: []string{"fd44:0:0:77::/64"},
		},
		{
			name: "a network around a range", with: other + "ip route add 10.0.0.0/8 dev other0",
			want: []string{host.FindingRangeOverlap}, word: "10.0.0.0/8 on other0 (range 10.244.0.0/16)", cidrs: []string{"10.0.0.0/8"},
		},
		{
			name: "an address without a network", with: "ip addr add 10.244.77.1/32 dev lo",
			want: []string{host.FindingRangeOverlap}, word: "10.244.77.1/32 on lo", cidrs: []string{"10.244.77.1/32"},
		},
		{
			name: "a network in the node's own block", with: other + "ip route add 10.244.1.128/25 dev other0",
			want: []string{host.FindingForeignRoute, host.FindingRangeOverlap}, word: "10.244.1.128/25 on other0", cidrs: []string{"10.244.1.128/25"},
		},
		{
			name: "the very route of the node's own block", with: other + "ip route add 10.244.1.0/24 dev other0",
			want: []string{host.FindingForeignRoute, host.FindingRangeOverlap}, word: "10.244.1.0/24 on other0", cidrs: []string{"10.244.1.0/24"},
		},
		{
			name: "the very route of another node's block", with: other + "ip route add 10.244.2.0/24 dev other0",
			want: []string{host.FindingRangeOverlap}, word: "10.244.2.0/24 on other0", cidrs: []string{"10.244.2.0/24"},
		},
		{
			name: "a route to a pod", with: "ip route add 10.244.1.2/32 via 192.168.77.200",
			want: []string{host.FindingForeignRoute}, word: "10.244.1.2/32 on eth0",
		},
		{name: "a network beside the ranges", with: other + "ip addr add 10.245.0.1/16 dev other0"},
		{name: "a default route on a link", with: other + "ip route add default dev other0 metric 5\nip -6 route add default dev other0 metric 5"},
		{name: "halves of a default route", with: other + "ip route add 0.0.0.0/1 dev other0\nip route add 128.0.0.0/1 dev other0"},
		{name: "a range behind a gateway", with: "ip route add 10.244.0.0/16 via 192.168.77.200"},
		{name: "a range behind a gateway of the other family", with: "ip route add 10.244.0.0/16 via inet6 fd77::200 dev eth0"},
		{name: "a range in another table", with: other + "ip route add 10.244.0.0/16 dev other0 table 100"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{nodes: 2, mode: model.ModeRouted, families: dual})
			n := c.nodes[0]
			p := n.addPod(t)
			remote := c.nodes[1].addPod(t)
			n.Script(t, tc.with)
			found := n.findings(t)
			var types []string
			var cidrs []string
			for _, f := range found {
				types = append(types, f.Type)
				for _, cidr := range f.CIDRs {
					cidrs = append(cidrs, cidr.String())
				}
			}
			if !slices.Equal(types, tc.want) || !slices.Equal(cidrs, tc.cidrs) || len(found) > 0 && !strings.Contains(found[0].Message, tc.word) {
				t.Errorf("found %+v, want %v with %v that name %q", found, tc.want, tc.cidrs, tc.word)
			}
			// As the finding says, podnet's routes are followed, not these.
			reaches(t, p, remote)
			for _, to := range slices.Concat(p.Addrs, remote.Addrs) {
				if err := n.Reaches(to, port); err != nil {
					t.Errorf("the node does not reach the pod %s: %v", to, err)
				}
			}
			n.sync(t)
		})
	}
}

func TestOwnLinksOverlapNothing(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
			for _, noVXLAN := range []bool{false, mode == model.ModeRouted} {
				t.Run(fmt.Sprintf("%s/%s/without VXLAN %t", attachment, mode, noVXLAN), func(t *testing.T) {
					t.Parallel()
					c := newCluster(t, options{nodes: 2, attachment: attachment, mode: mode, families: dual, noVXLAN: noVXLAN})
					for _, n := range c.nodes {
						n.addPod(t)
						if found := n.findings(t); len(found) > 0 {
							t.Errorf("found %+v", found)
						}
					}
				})
			}
		}
	}
}
