package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// Each packet is counted once by the counter of each rule that matches it, as a plain
// reading of the specification says, and decided on as without counters.
func TestCountersCountWhatRulesMatch(t *testing.T) {
	first, last := seeds(t)
	counted := 0
	// A table has many more rules then: it takes the time of four.
	for seed := first; seed <= last; seed += 4 {
		r := policytest.NewRandom(seed)
		r.CountAll()
		result := NewIndex(r.Objects, r.Blocks).Build(r.Attached)
		table := result.Tables[0]
		checkTable(t, table)
		rules := map[string]string{}
		for _, rule := range result.Counted {
			rules[rule.Counter] = rule.Namespace + "/" + rule.Policy + "/" + rule.Rule
		}
		for range 100 {
			c := r.Connection()
			want, allowed := r.Matched(c), r.Allowed(c)
			for _, reply := range []bool{false, true} {
				p := policytest.Packet{Connection: c, Reply: reply}
				counters, err := policytest.Counted(table, p)
				if err != nil {
					t.Fatalf("seed %d: %+v: %v", seed, c, err)
				}
				var got []string
				for _, counter := range counters {
					if counter != DeniedCounter {
						got = append(got, rules[counter])
					}
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: %+v (reply: %t) is counted by %q, want %q", seed, c, reply, got, want)
				}
				if passes, _, err := policytest.Verdict(table, p); err != nil || passes != allowed {
					t.Fatalf("seed %d: %+v (reply: %t) passes: %t (%v), want %t", seed, c, reply, passes, err, allowed)
				}
			}
			counted += len(want)
		}
	}
	t.Logf("seeds %d to %d: %d times a rule matches", first, last, counted)
	if counted == 0 {
		t.Error("nothing is counted")
	}
}

// Nobody pays for what nobody asked for.
func TestWithoutCountersTheTableIsAsItWas(t *testing.T) {
	for seed := uint64(1); seed <= 100; seed++ {
		r := policytest.NewRandom(seed)
		plain := NewIndex(r.Objects, r.Blocks).Build(r.Attached)
		if len(plain.Counted) > 0 || !slices.Equal(plain.Tables[0].Counters, []string{DeniedCounter}) {
			t.Fatalf("seed %d: counted are %+v", seed, plain.Counted)
		}
		r.CountAll()
		counted := NewIndex(r.Objects, r.Blocks).Build(r.Attached)
		for _, c := range plain.Tables[0].Chains {
			if c.Base.Hook != "" && !slices.ContainsFunc(counted.Tables[0].Chains, func(is nft.Chain) bool { return reflect.DeepEqual(is, c) }) {
				t.Fatalf("seed %d: chain %s differs with counters", seed, c.Name)
			}
		}
	}
}

func TestPoliciesThatAreTooManyAreNotCounted(t *testing.T) {
	o := model.PolicyObjects{Namespaces: []model.Namespace{{Name: "red"}}, Pods: []model.ClusterPod{{Namespace: "red", Name: "p", UID: "1"}}}
	for i := range MostCounted {
		o.NetworkPolicies = append(o.NetworkPolicies, model.NetworkPolicy{
			Namespace: "red", Name: fmt.Sprintf("p%02d", i), Count: true, Ingress: make([]model.PolicyRule, 2), Egress: make([]model.PolicyRule, 1),
		})
	}
	o.NetworkPolicies = append(o.NetworkPolicies,
		model.NetworkPolicy{Namespace: "red", Name: "a-of-no-pod", Count: true, Ingress: make([]model.PolicyRule, 1), Pods: model.Selector{{Key: "a", Operator: model.Exists}}},
		model.NetworkPolicy{Namespace: "red", Name: "a-without-rules", Count: true},
		model.NetworkPolicy{Namespace: "red", Name: "z", Count: true, Ingress: make([]model.PolicyRule, 1)})
	o.ClusterPolicies = []model.ClusterPolicy{{Name: "c", Count: true, Egress: []model.TierRule{{Field: "egress[0]", Action: model.PolicyDeny, Peers: everybody}}}}
	attached := []model.Pod{{ContainerID: "c", Namespace: "red", Name: "p", UID: "1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}}
	got := NewIndex(o, nil).Build(attached)
	if want := []string{"NetworkPolicy red/p31", "NetworkPolicy red/z"}; !slices.Equal(got.NotCounted, want) {
		t.Errorf("not counted are %q, want %q", got.NotCounted, want)
	}
	if want := 1 + 3*(MostCounted-1); len(got.Counted) != want {
		t.Errorf("%d rules are counted, want %d", len(got.Counted), want)
	}
	if want := (CountedRule{Counter: "rule/red/p00/ingress-1", Namespace: "red", Policy: "p00", Rule: "ingress[1]"}); !slices.Contains(got.Counted, want) {
		t.Errorf("counted are %+v, want %+v among them", got.Counted, want)
	}
}

// Nobody can make the table so large that enforcement suffers, or take all there is.
func TestPoliciesThatAreTooLargeAreNotCounted(t *testing.T) {
	w := large(9000, 1, 0, false)
	everyPod := []model.PolicyPeer{namespaces("")}
	rules := func(n int, peers []model.PolicyPeer) []model.PolicyRule {
		out := make([]model.PolicyRule, n)
		for i := range out {
			out[i].Peers = peers
		}
		return out
	}
	for name, ingress := range map[string][]model.PolicyRule{
		"a-many": rules(mostCountedRules+1, nil), "b-wide": rules(3, everyPod), "c-two": rules(2, everyPod), "d-one-more": rules(1, everyPod),
		"e-small": rules(mostCountedRules, nil),
	} {
		w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, model.NetworkPolicy{Namespace: "ns0", Name: name, Count: true, Ingress: ingress})
	}
	got := NewIndex(w.Objects, w.Blocks).Build(w.Attached)
	if want := []string{"NetworkPolicy ns0/a-many", "NetworkPolicy ns0/b-wide", "NetworkPolicy ns0/d-one-more"}; !slices.Equal(got.NotCounted, want) {
		t.Errorf("not counted are %q, want %q", got.NotCounted, want)
	}
}

func TestNamespacesHaveTheirTurnToBeCounted(t *testing.T) {
	var o model.PolicyObjects
	var attached []model.Pod
	for _, namespace := range []string{"greedy", "modest"} {
		o.Pods = append(o.Pods, model.ClusterPod{Namespace: namespace, Name: "p", UID: namespace})
		attached = append(attached, model.Pod{ContainerID: namespace, Namespace: namespace, Name: "p", UID: namespace})
		for i := range MostCounted {
			o.NetworkPolicies = append(o.NetworkPolicies, model.NetworkPolicy{
				Namespace: namespace, Name: fmt.Sprintf("p%02d", i), Count: true, Ingress: make([]model.PolicyRule, 1),
			})
		}
	}
	got := map[string]int{}
	for _, r := range NewIndex(o, nil).Build(attached).Counted {
		got[r.Namespace]++
	}
	if got["greedy"] != MostCounted/2 || got["modest"] != MostCounted/2 {
		t.Errorf("counted are %v", got)
	}
}

// nft takes no names that are longer than the kernel's.
func TestCountersOfLongNames(t *testing.T) {
	c := countedPolicy{id: "rule/red/" + strings.Repeat("a", 253)}
	c.add("red", strings.Repeat("a", 253), "ingress[0]", &peers{}, portSpec{})
	c.add("red", strings.Repeat("a", 253), "ingress[1]", &peers{}, portSpec{})
	if a, b := c.rules[0].Counter, c.rules[1].Counter; a == b || len(a) > nameBytes || len(b) > nameBytes {
		t.Errorf("the names are %s and %s", a, b)
	}
}
