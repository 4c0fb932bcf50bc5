package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

func TestEndpointsThatAreNoNodesAreNotUsed(t *testing.T) {
	for name, tc := range map[string]struct {
		endpoint, words string
	}{
		"an address of a pod":              {"10.244.1.7", "pods'"},
		"an IPv6 address of a pod":         {"fd00:10::7", "pods'"},
		"the loopback":                     {"127.0.0.1", "loopback"},
		"multicast":                        {"224.0.0.1", "multicast"},
		"all hosts":                        {"255.255.255.255", "broadcast"},
		"nobody":                           {"0.0.0.0", "reserved"},
		"link-local":                       {"fe80::1", "link-local"},
		"a broadcast address of a network": {"198.51.100.255", "broadcast"},
		"a network":                        {"198.51.100.0", "broadcast"},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster()
			c.Host.Routes = append(c.Host.Routes, model.UnderlayRoute{Dst: prefix("198.51.100.0/24"), Link: "eth0"})
			before := Build(c)
			evil := addr(tc.endpoint)
			for i := range c.Blocks {
				if c.Blocks[i].Node == "b" {
					c.Blocks[i].Endpoints = append([]netip.Addr{evil}, c.Blocks[i].Endpoints...)
				}
			}
			c.Former = append(c.Former, model.FormerEndpoint{Node: "c", Addr: evil})
			after := Build(c)
			expectProblem(t, after.Problems, model.ReasonDegraded, tc.endpoint, "node b", tc.words)
			for _, set := range tableOf(t, after.State, "inet").Sets {
				if strings.Contains(set.Name, "endpoints") && slices.ContainsFunc(set.Elements, func(e nft.Element) bool { return e.Key[0] == evil.String() }) {
					t.Errorf("%s is in %s", evil, set.Name)
				}
			}
			if a, b := fmt.Sprint(before.State.Routes, before.State.FDB), fmt.Sprint(after.State.Routes, after.State.FDB); a != b {
				t.Errorf("with it the routes and entries are\n%s\nand without\n%s", b, a)
			}
		})
	}
}

func TestManyRefusedEndpointsAreNotAllNamed(t *testing.T) {
	c := large(50)
	for i := range c.Blocks {
		c.Blocks[i].Endpoints = append(c.Blocks[i].Endpoints, netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}))
	}
	if p := Build(c).Problems; len(p) > 2*namedConflicts {
		t.Errorf("%d problems", len(p))
	}
}

// A range that comes over the addresses of nodes does not cut them off, as long as no block has them.
func TestPublishedEndpointsInARangeButInNoBlockAreUsed(t *testing.T) {
	c := cluster()
	c.Network.Ranges = append(slices.Clone(c.Network.Ranges), prefix("192.0.0.0/16"), prefix("2001:db8::/32"))
	c.Former = append(c.Former, model.FormerEndpoint{Node: "c", Addr: addr("192.0.2.33")})
	p := Build(c)
	for _, problem := range p.Problems {
		if strings.Contains(problem.Message, "is not used") {
			t.Error(problem.Message)
		}
	}
	expectElements(t, p.State, "inet", "endpoints4", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.33")
	expectElements(t, p.State, "inet", "ownendpoints4", "192.0.2.1")

	covers := model.Block{Node: "d", CIDR: prefix("192.0.2.2/31")}
	c.Blocks = append(c.Blocks, covers)
	p = Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "192.0.2.2", "node b", "pods'")
	expectElements(t, p.State, "inet", "endpoints4", "192.0.2.1", "192.0.2.33")
}

// What the manager has not published stays out: the node is new, or lies.
func TestOwnEndpointInARangeThatIsNotPublishedIsNotUsed(t *testing.T) {
	c := cluster()
	c.Network.Ranges = append(slices.Clone(c.Network.Ranges), prefix("192.0.0.0/16"))
	c.Host.Endpoints = slices.Clone(c.Host.Endpoints)
	c.Host.Endpoints[0].Addr = addr("192.0.9.9")
	p := Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "192.0.9.9", "node a", "pods'")
}

// Whoever has the address of a block's pod would be believed as this node.
func TestOwnEndpointThatIsAPodsIsNotUsed(t *testing.T) {
	c := cluster()
	c.Host.Endpoints[0].Addr = addr("10.244.2.7")
	p := Build(c)
	expectProblem(t, p.Problems, model.ReasonDegraded, "10.244.2.7", "node a", "pods'")
	expectElements(t, p.State, "inet", "endpoints4", "192.0.2.1", "192.0.2.2", "192.0.2.3")
	expectElements(t, p.State, "inet", "ownendpoints4", "192.0.2.1")
}

func TestNodeWhoseOnlyEndpointIsRefusedHasNone(t *testing.T) {
	c := cluster()
	c.Host.Endpoints = []model.Endpoint{{Addr: addr("10.244.2.7"), Link: "tunnel9", MTU: 1000}}
	c.Host.Addresses = slices.Clone(c.Host.Endpoints)
	x := pod("x", 2)
	c.Pods = []model.Pod{x}
	p := Build(c)
	if found := expectProblem(t, p.Problems, model.ReasonNoEndpoint, "no address"); !found.Fatal {
		t.Error("pods come all the same")
	}
	// A pod's address is none that the node's ports are at.
	expectElements(t, p.State, "inet", "nodeaddresses4", "10.244.0.0")
	if p.MTU != defaultMTU {
		t.Errorf("pods have an MTU of %d", p.MTU)
	}
	for _, s := range p.State.Sysctls {
		if strings.Contains(s.Key, "tunnel9") {
			t.Errorf("%s is set", s.Key)
		}
	}
	c.Pods = nil
	if part := PodParts(c, x); len(part.Routes) != 2 {
		t.Errorf("one pod's parts have the routes %v", part.Routes)
	}
}
