package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// saying returns a pod of a node that says it has the addresses of others.
func saying(name, node, has, app string) model.ClusterPod {
	return model.ClusterPod{Namespace: "red", Name: name, UID: name, Labels: labels("app=" + app), Node: node, Addrs: addrs(has)}
}

func terminating(p model.ClusterPod) model.ClusterPod {
	p.Terminating = true
	return p
}

func TestAddressesThatMoreThanOnePodSaysItHas(t *testing.T) {
	ports := func(p model.ClusterPod, web uint16) model.ClusterPod {
		p.Ports = []model.NamedPort{{Name: "web", Port: web}}
		return p
	}
	trusted := ingressTo(from(pods("app=trusted")))
	for name, tc := range map[string]struct {
		policies []model.NetworkPolicy
		tiers    []model.ClusterPolicy
		pods     []model.ClusterPod
		want     map[string]bool
	}{
		"one that is being deleted loses to one that is not": {
			[]model.NetworkPolicy{trusted}, nil,
			[]model.ClusterPod{saying("a", "node2", "stranger", "other"), terminating(saying("b", "node2", "stranger", "trusted"))},
			map[string]bool{"stranger > server: tcp 80": false},
		},
		"and has not the labels of the one that is": {
			[]model.NetworkPolicy{trusted}, nil,
			[]model.ClusterPod{saying("a", "node2", "stranger", "trusted"), terminating(saying("b", "node2", "stranger", "other"))},
			map[string]bool{"stranger > server: tcp 80": true},
		},
		"one that is being deleted has its address as long as nobody else has": {
			[]model.NetworkPolicy{trusted}, nil,
			[]model.ClusterPod{terminating(saying("b", "node2", "stranger", "trusted"))},
			map[string]bool{"stranger > server: tcp 80": true},
		},
		"of two that stay what both may": {
			[]model.NetworkPolicy{
				ingressTo(model.PolicyRule{Peers: []model.PolicyPeer{pods("app=trusted")}, Ports: []model.PolicyPort{number("TCP", 80, 90)}}),
				ingressTo(model.PolicyRule{Peers: []model.PolicyPeer{pods("app=other")}, Ports: []model.PolicyPort{number("TCP", 85, 95)}}),
			}, nil,
			[]model.ClusterPod{saying("a", "node2", "stranger", "other"), saying("b", "node2", "stranger", "trusted")},
			map[string]bool{"stranger > server: tcp 80": false, "stranger > server: tcp 88": true, "stranger > server: tcp 95": false},
		},
		"of two that stay no port by a name that means two": {
			[]model.NetworkPolicy{egressOf(model.PolicyRule{
				Peers: []model.PolicyPeer{pods("app=trusted")}, Ports: []model.PolicyPort{named("TCP", "web")},
			})}, nil,
			[]model.ClusterPod{ports(saying("a", "node2", "stranger", "trusted"), 80), ports(saying("b", "node2", "stranger", "trusted"), 81)},
			map[string]bool{"client > stranger: tcp 80": false, "client > stranger: tcp 81": false},
		},
		"of two that stay what policies of the cluster deny to either": {
			nil, []model.ClusterPolicy{tier(admin, 1, does(deny, pods("app=other")))},
			[]model.ClusterPod{saying("a", "node2", "stranger", "other"), saying("b", "node2", "stranger", "trusted")},
			map[string]bool{"stranger > server: tcp 80": false},
		},
		"one whose node does not hold the block has it not": {
			[]model.NetworkPolicy{trusted}, nil,
			[]model.ClusterPod{saying("a", "node2", "stranger", "other"), saying("b", "node3", "stranger", "trusted")},
			map[string]bool{"stranger > server: tcp 80": false},
		},
		"nor where nobody else says that it has": {
			[]model.NetworkPolicy{trusted}, nil, []model.ClusterPod{saying("b", "node3", "stranger", "trusted")},
			map[string]bool{"stranger > server: tcp 80": false},
		},
		"one that says it has an attached pod's has it not": {
			[]model.NetworkPolicy{trusted}, nil, []model.ClusterPod{saying("b", "node1", "client", "trusted")},
			map[string]bool{"client > server: tcp 80": false},
		},
		"a pod in its node's network has no pod's address": {
			[]model.NetworkPolicy{trusted}, nil,
			[]model.ClusterPod{saying("a", "node2", "stranger", "trusted"), {Namespace: "red", Name: "b", Labels: labels("app=other"), Node: "node2", HostNetwork: true, Addrs: addrs("stranger")}},
			map[string]bool{"stranger > server: tcp 80": true},
		},
		"an address outside the pod ranges is no pod's": {
			[]model.NetworkPolicy{trusted}, nil, []model.ClusterPod{saying("b", "node2", "outside", "trusted")},
			map[string]bool{"outside > server: tcp 80": false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := scene(tc.policies...)
			for _, p := range tc.tiers {
				p.Namespaces, p.Pods = selector("name=red"), selector("app=server")
				for i := range p.Ingress {
					p.Ingress[i].Peers[0].Namespaces = &model.Selector{}
				}
				w.Objects.ClusterPolicies = append(w.Objects.ClusterPolicies, p)
			}
			w.Objects.Pods = append(w.Objects.Pods, tc.pods...)
			expect(t, w, tc.want)
			slices.Reverse(w.Objects.Pods)
			expect(t, w, tc.want)
		})
	}
}

// A denial is reported for the pod of which it is true, and names it.
func TestDenialOfOneOfTwoPodsIsExplained(t *testing.T) {
	w := scene(ingressTo(from(pods("app=trusted"))))
	w.Objects.Pods = append(w.Objects.Pods, saying("a", "node2", "stranger", "trusted"), saying("b", "node2", "stranger", "other"))
	c := policytest.Connection{Client: addrs("stranger")[0], Server: addrs("server")[0], Protocol: "tcp", Port: 80}
	got, ok := NewIndex(w.Objects, w.Blocks).Explain(w.Attached, packetOf(c, false))
	if !ok || got.Peer == nil || got.Peer.Name != "b" || !strings.Contains(got.Reason, "No rule") {
		t.Errorf("got %q of %+v (%t)", got, got.Peer, ok)
	}
}

func TestAddressesThatNodesSayTheyHave(t *testing.T) {
	evil := func(w *policytest.World, endpoints, addresses []netip.Addr) {
		w.Blocks = append(w.Blocks, model.Block{
			Name: "10.244.1.0-evil", CIDR: netip.MustParsePrefix("10.244.66.0/24"), Node: "evil", Labels: labels("name=evil"),
			Endpoints: endpoints, Addresses: addresses, Created: time.Unix(9, 0),
		})
	}
	byLabels := func(name string) policytest.World {
		w := clusterScene(toward(tier(admin, 1, does(accept, nodes("name="+name)))), toward(tier(admin, 2, does(deny, block("0.0.0.0/0"), block("::/0")))))
		for i := range w.Blocks {
			w.Blocks[i].Labels = labels("name=" + w.Blocks[i].Node)
		}
		return w
	}
	t.Run("an endpoint in the pod ranges is no node's and takes no pod's identity", func(t *testing.T) {
		for _, as := range []string{"endpoint", "address"} {
			w := scene(ingressTo(from(namespaces("name=blue"))))
			evil(&w, addrs("remote"), nil)
			if as == "address" {
				w.Blocks[len(w.Blocks)-1].Endpoints, w.Blocks[len(w.Blocks)-1].Addresses = nil, addrs("remote")
			}
			expect(t, w, map[string]bool{"remote > server: tcp 80": true})
		}
		w := byLabels("evil")
		evil(&w, addrs("remote"), nil)
		expect(t, w, map[string]bool{"server > remote: tcp 80": false})
	})
	t.Run("a base address goes by no endpoint in the pod ranges", func(t *testing.T) {
		w := scene(egressOf(from(block("10.244.2.2/32"), block("fd44:0:0:2::2/128"))))
		for i := range w.Blocks {
			if w.Blocks[i].Node == "node2" {
				w.Blocks[i].Endpoints = addrs("remote")
			}
		}
		expect(t, w, map[string]bool{"client > node2 in its range: tcp 80": false, "client > remote: tcp 80": true})
	})
	t.Run("of two nodes that say they have an address what both may", func(t *testing.T) {
		for name, want := range map[string]bool{"evil": false, "node2": false} {
			w := byLabels(name)
			evil(&w, addrs("node2"), nil)
			expect(t, w, map[string]bool{"server > node2: tcp 80": want})
		}
	})
	t.Run("one that has gone leaves its address", func(t *testing.T) {
		for state, want := range map[model.BlockState]bool{model.BlockReleased: true, model.BlockDraining: false} {
			w := byLabels("node2")
			evil(&w, nil, addrs("node2"))
			w.Blocks[len(w.Blocks)-1].State = state
			expect(t, w, map[string]bool{"server > node2: tcp 80": want})
		}
	})
	t.Run("a block that overlaps an older one gives nobody an address", func(t *testing.T) {
		w := scene(ingressTo(from(pods("app=trusted"))))
		w.Blocks = append(w.Blocks, model.Block{Name: "10.244.2.0-25", CIDR: netip.MustParsePrefix("10.244.2.0/25"), Node: "evil", Created: time.Unix(9, 0)})
		w.Objects.Pods = append(w.Objects.Pods, saying("b", "evil", "stranger", "trusted"))
		expect(t, w, map[string]bool{"stranger > server: tcp 80": false})
	})
}
