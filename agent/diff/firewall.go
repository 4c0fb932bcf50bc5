package diff

import (
	"slices"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// elementChanges returns the operations on the elements of the tables that stay, which are
// sorted, table by table. What goes does so before what comes, and nothing lies between the
// two, so that they can be one transaction.
func elementChanges(want, have []model.Table) []Op {
	var ops []Op
	for _, w := range want {
		i, there := slices.BinarySearchFunc(have, w, model.Table.Compare)
		if !there || have[i].Structure() != w.Structure() {
			continue
		}
		c := nft.ChangedElements(w.Table, have[i].Table)
		for _, e := range c.Delete {
			ops = append(ops, Op{Delete, Elements{Elements: e}})
		}
		for _, e := range c.Add {
			ops = append(ops, Op{Put, Elements{Elements: e}})
		}
	}
	return ops
}

func elementsOp(verb Verb, t model.Table, s nft.Set, elements []nft.Element) Op {
	return Op{verb, Elements{Elements: nft.ElementsOf(t.Table, s, elements)}}
}
