package policy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// mostRules is the number of rules that a packet meets at most: those of the hook,
// and for each end those of the direction, of the identity and of the ports.
const mostRules = 5 + 2*(3+1+3)

// deniedRules are those that a packet which does not pass meets then, with a sample of
// them: whether it is an ICMP error is asked last.
const deniedRules = 7

// seeds are those of the random clusters. PODNET_POLICY_SEEDS=1-100000 takes more.
func seeds(t *testing.T) (first, last uint64) {
	first, last = 1, 400
	if text := os.Getenv("PODNET_POLICY_SEEDS"); text != "" {
		if _, err := fmt.Sscanf(text, "%d-%d", &first, &last); err != nil {
			t.Fatalf("PODNET_POLICY_SEEDS=%q: want a range such as 1-1000", text)
		}
	}
	return first, last
}

// Random policies, pods and packets are decided on by a plain reading of the
// specification and by the rules, and there is no difference.
func TestRulesJudgeAsTheSpecificationDoes(t *testing.T) {
	t.Attr("budget", "30s")
	first, last := seeds(t)
	cases, passed := 0, 0
	for seed := first; seed <= last; seed++ {
		r := policytest.NewRandom(seed)
		r.Objects.Sample = seed%2 == 0
		table := NewIndex(r.Objects, r.Blocks).Build(r.Attached).Tables[0]
		checkTable(t, table)
		for range 100 {
			c := r.Connection()
			want := r.Allowed(c)
			for _, reply := range []bool{false, true} {
				got, rules, err := policytest.Verdict(table, policytest.Packet{Connection: c, Reply: reply})
				if err != nil {
					t.Fatalf("seed %d: %+v: %v", seed, c, err)
				}
				if got != want {
					t.Fatalf("seed %d: %+v (reply: %t) passes: %t, want %t", seed, c, reply, got, want)
				}
				if rules > mostRules+deniedRules || got && rules > mostRules {
					t.Fatalf("seed %d: %+v meets %d rules", seed, c, rules)
				}
			}
			cases++
			if want {
				passed++
			}
		}
	}
	t.Logf("seeds %d to %d: %d connections, of which %d pass", first, last, cases, passed)
	if passed < cases/5 || passed > cases*4/5 {
		t.Errorf("%d of %d connections pass: the worlds are not worth much", passed, cases)
	}
}

// checkTable checks what nft asks of a table.
func checkTable(t *testing.T, table nft.Table) {
	t.Helper()
	names := map[string]bool{}
	for _, s := range table.Sets {
		if names["set "+s.Name] {
			t.Fatalf("two sets are called %s", s.Name)
		}
		names["set "+s.Name] = true
		keys := map[string]bool{}
		for _, e := range s.Elements {
			key := fmt.Sprint(e.Key)
			if keys[key] {
				t.Fatalf("set %s has %s twice", s.Name, key)
			}
			keys[key] = true
			checkRange(t, s.Name, e.Key[len(e.Key)-1])
		}
	}
	for _, c := range table.Chains {
		if names[c.Name] {
			t.Fatalf("two chains are called %s", c.Name)
		}
		names[c.Name] = true
	}
}

// checkRange checks that a range of ports, if this is one, ends after it begins.
func checkRange(t *testing.T, set, part string) {
	t.Helper()
	var first, last int
	if n, _ := fmt.Sscanf(part, "%d-%d", &first, &last); n == 2 && first >= last {
		t.Fatalf("set %s has the range %s", set, part)
	}
}

// The order in which objects come makes no difference.
func TestOrderOfObjectsMakesNoDifference(t *testing.T) {
	for seed := uint64(1); seed <= 100; seed++ {
		r := policytest.NewRandom(seed)
		want := NewIndex(r.Objects, r.Blocks).Build(r.Attached)
		for range 3 {
			shuffle(r.Rand, r.Objects.NetworkPolicies)
			shuffle(r.Rand, r.Objects.Namespaces)
			shuffle(r.Rand, r.Objects.Pods)
			shuffle(r.Rand, r.Blocks)
			shuffle(r.Rand, r.Attached)
			for i := range r.Objects.NetworkPolicies {
				p := &r.Objects.NetworkPolicies[i]
				for _, rules := range [][]model.PolicyRule{p.Ingress, p.Egress} {
					shuffle(r.Rand, rules)
					for j := range rules {
						shuffle(r.Rand, rules[j].Peers)
						shuffle(r.Rand, rules[j].Ports)
					}
				}
			}
			if got := NewIndex(r.Objects, r.Blocks).Build(r.Attached); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: the tables differ", seed)
			}
		}
	}
}

func shuffle[T any](r *rand.Rand, list []T) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}
