package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// passesTo reports whether a packet of an outsider to a pod of the scene passes.
func passesTo(t *testing.T, w policytest.World, from netip.Addr, to string) (Result, bool) {
	t.Helper()
	result := NewIndex(w.Objects, w.Blocks).Build(w.Attached)
	passes, _, err := policytest.Verdict(result.Tables[0], policytest.Packet{Connection: policytest.Connection{
		Client: from, Server: addrs(to)[0], Protocol: "tcp", Port: 80,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return result, passes
}

// blocks returns that many blocks of an address each, of which none touches another.
func manyBlocks(n int) []model.PolicyPeer {
	peers := make([]model.PolicyPeer, n)
	for i := range peers {
		peers[i] = model.PolicyPeer{Block: &model.IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 15), byte(i >> 7), byte(i << 1)}), 32)}}
	}
	return peers
}

// withAnotherNamespace adds a pod of a namespace whose policy allows all.
func withAnotherNamespace(w policytest.World) policytest.World {
	w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, model.NetworkPolicy{
		Namespace: "blue", Name: "all", Ingress: []model.PolicyRule{{}},
	})
	w.Objects.Pods = append(w.Objects.Pods, model.ClusterPod{Namespace: "blue", Name: "other", UID: "9", Node: "node1"})
	w.Attached = append(w.Attached, model.Pod{ContainerID: "other", IfName: "eth0", Namespace: "blue", Name: "other", UID: "9", Addrs: addrs("another")})
	return w
}

func TestNamespaceThatNamesTooManyBlocksAllowsNoMore(t *testing.T) {
	first := manyBlocks(1)[0].Block.CIDR.Addr()
	policies := func(sizes ...int) policytest.World {
		var all []model.NetworkPolicy
		for _, n := range sizes {
			all = append(all, ingressTo(model.PolicyRule{Peers: manyBlocks(n)}))
		}
		return withAnotherNamespace(scene(all...))
	}
	w := policies(MostBlocks)
	if got, passes := passesTo(t, w, first, "server"); !passes || len(got.TooLarge) > 0 {
		t.Errorf("with as many as there may be: passes %t, too large are %v", passes, got.TooLarge)
	}
	w = policies(MostBlocks-10, 20, 10)
	got, passes := passesTo(t, w, first, "server")
	if !passes || !slices.Equal(got.TooLarge, []string{"red/policy1"}) {
		t.Errorf("what is small enough is in force: passes %t, too large are %v", passes, got.TooLarge)
	}
	w = policies(MostBlocks + 1)
	if got, passes := passesTo(t, w, first, "server"); passes || !slices.Equal(got.TooLarge, []string{"red/policy0"}) {
		t.Errorf("with one too many: passes %t, too large are %v", passes, got.TooLarge)
	}
	if _, passes := passesTo(t, w, first, "another"); !passes {
		t.Error("another namespace suffers")
	}
	for _, exceptions := range []int{MostBlocks - 1, MostBlocks} {
		one := block("11.0.0.0/8")
		for _, e := range manyBlocks(exceptions) {
			one.Block.Except = append(one.Block.Except, e.Block.CIDR)
		}
		got := NewIndex(scene(ingressTo(from(one))).Objects, nil).tooLarge
		if (len(got) > 0) != (exceptions == MostBlocks) {
			t.Errorf("with %d exceptions too large are %v", exceptions, got)
		}
	}
}

// Types that follow from rules do so though the rules count for nothing.
func TestPolicyThatIsTooLargeIsolatesAsBefore(t *testing.T) {
	rules := []model.PolicyRule{{Peers: manyBlocks(MostBlocks + 1)}}
	for want, p := range map[string]model.NetworkPolicy{
		"[Ingress]":        {Ingress: rules},
		"[Ingress Egress]": {Egress: rules},
		"[Egress]":         {Egress: rules, Types: []model.PolicyType{model.PolicyEgress}},
	} {
		kept, left := withinBlocks([]model.NetworkPolicy{p})
		if got := fmt.Sprint(kept[0].Types); got != want || len(left) != 1 || len(kept[0].Ingress)+len(kept[0].Egress) > 0 {
			t.Errorf("got %s of %d, want %s", got, len(left), want)
		}
	}
}

func TestNamespaceOfTooManyCombinationsIsClosed(t *testing.T) {
	// Three pods are isolated, and each block is another combination of peers with its ports.
	const manyPorts = 297
	const most = MostElements / (3 + manyPorts)
	for n, closes := range map[int]bool{100: false, most: false, most + 1: true} {
		w := withAnotherNamespace(scene())
		ports := make([]model.PolicyPort, manyPorts)
		for i := range ports {
			ports[i] = number("TCP", int32(80+2*i))
		}
		for i, b := range manyBlocks(n) {
			w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, model.NetworkPolicy{
				Namespace: "red", Name: fmt.Sprintf("p%05d", i), Ingress: []model.PolicyRule{{Peers: []model.PolicyPeer{b}, Ports: ports}},
			})
		}
		first := manyBlocks(1)[0].Block.CIDR.Addr()
		got, passes := passesTo(t, w, first, "server")
		if passes == closes || slices.Equal(got.Closed, []string{"red"}) != closes {
			t.Errorf("with %d: passes %t, closed are %v", n, passes, got.Closed)
		}
		if _, passes := passesTo(t, w, first, "another"); !passes {
			t.Errorf("with %d: another namespace suffers", n)
		}
		if len(got.Tables[0].Chains) > 100 && closes {
			t.Errorf("with %d: there are %d chains, though it is closed", n, len(got.Tables[0].Chains))
		}
	}
}
