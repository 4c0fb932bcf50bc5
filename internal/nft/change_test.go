package nft_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/nft/nfttest"
	"github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// tableOf returns the inet table of a random cluster, whose policies may be counted.
func tableOf(seed uint64) nft.Table {
	r := policytest.NewRandom(seed)
	if seed%3 > 0 {
		r.CountAll()
	}
	return policy.NewIndex(r.Objects, r.Blocks).Build(r.Attached).Tables[0]
}

func TestChangeMakesOneTableOfAnother(t *testing.T) {
	have := tableOf(1)
	kernel := nfttest.New(have)
	var old nft.Parts
	for seed := uint64(2); seed < 200; seed++ {
		want := tableOf(seed)
		change, ok := nft.Difference(want, have)
		if !ok {
			t.Fatalf("seed %d: the table has to be replaced", seed)
		}
		steps := []nft.Step{change}
		// Some are left for later, and may be wanted again by then.
		old = old.With(change.Old).Without(want)
		if seed%3 == 0 && !old.Empty() {
			steps = append(steps, nft.DeleteParts{Parts: old})
			old = nft.Parts{}
		}
		for _, s := range steps {
			if err := kernel.Do(t.Context(), s); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if seed%3 == 0 {
			if got := normal(kernel.Tables()[0]); !reflect.DeepEqual(got, normal(want)) {
				t.Fatalf("seed %d: got %+v\nwant %+v", seed, got, want)
			}
		}
		have = want
	}
}

// normal is a table as the fake kernel shows it: without texts of rules, and without empty lists.
func normal(t nft.Table) nft.Table {
	out := nfttest.New(t).Tables()[0]
	for i := range out.Sets {
		if len(out.Sets[i].Elements) == 0 {
			out.Sets[i].Elements = nil
		}
	}
	slices.SortFunc(out.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func TestNoChangeOfATableToItself(t *testing.T) {
	for seed := uint64(1); seed < 50; seed++ {
		if change, ok := nft.Difference(tableOf(seed), tableOf(seed)); !ok || !change.Empty() {
			t.Fatalf("seed %d: %+v", seed, change)
		}
	}
}

func TestTableOfOtherDeclarationsIsReplaced(t *testing.T) {
	for name, change := range map[string]func(*nft.Table){
		"set":        func(t *nft.Table) { t.Sets[0].Key = "mark" },
		"base chain": func(t *nft.Table) { t.Chains[0].Base.Priority.Offset-- },
	} {
		other := tableOf(1)
		change(&other)
		if _, ok := nft.Difference(tableOf(1), other); ok {
			t.Errorf("%s: the table is changed", name)
		}
	}
}
