package diff_test

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// tableOf returns the inet table of a random cluster, whose policies may be counted.
func tableOf(seed uint64) model.Table {
	r := policytest.NewRandom(seed)
	if seed%3 > 0 {
		r.CountAll()
	}
	return policy.NewIndex(r.Objects, r.Blocks).Build(r.Attached).Tables[0]
}

func TestChangeMakesOneTableOfAnother(t *testing.T) {
	have := tableOf(1)
	kernel := difftest.New(model.State{Firewall: []model.Table{have}})
	var old diff.TableParts
	for seed := uint64(2); seed < 200; seed++ {
		want := tableOf(seed)
		change, ok := diff.ChangeTable(want, have)
		if !ok {
			t.Fatalf("seed %d: the table has to be replaced", seed)
		}
		ops := []diff.Op{{Verb: diff.Put, Object: change}}
		// Some are left for later, and may be wanted again by then.
		old = old.With(change.Old).Without(want)
		if seed%3 == 0 && !old.Empty() {
			ops = append(ops, diff.Op{Verb: diff.Delete, Object: old})
			old = diff.TableParts{}
		}
		if err := kernel.Execute(context.Background(), ops); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if seed%3 == 0 {
			got := kernel.State().Firewall[0]
			slices.SortFunc(got.Chains, func(a, b model.Chain) int { return compare(a.Name, b.Name) })
			if !reflect.DeepEqual(normal(got), normal(want)) {
				t.Fatalf("seed %d: got %+v\nwant %+v", seed, got, want)
			}
		}
		have = want
	}
}

// normal is a table as the fake kernel shows it: without texts of rules, and without empty lists.
func normal(t model.Table) model.Table {
	k := difftest.New(model.State{Firewall: []model.Table{t}})
	out := k.State().Firewall[0]
	for i := range out.Sets {
		if len(out.Sets[i].Elements) == 0 {
			out.Sets[i].Elements = nil
		}
	}
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestNoChangeOfATableToItself(t *testing.T) {
	for seed := uint64(1); seed < 50; seed++ {
		if change, ok := diff.ChangeTable(tableOf(seed), tableOf(seed)); !ok || !change.Empty() {
			t.Fatalf("seed %d: %+v", seed, change)
		}
	}
}

func TestTableOfOtherDeclarationsIsReplaced(t *testing.T) {
	for name, change := range map[string]func(*model.Table){
		"set":        func(t *model.Table) { t.Sets[0].Key = "mark" },
		"base chain": func(t *model.Table) { t.Chains[0].Priority = "-1" },
	} {
		other := tableOf(1)
		change(&other)
		if _, ok := diff.ChangeTable(tableOf(1), other); ok {
			t.Errorf("%s: the table is changed", name)
		}
	}
}
