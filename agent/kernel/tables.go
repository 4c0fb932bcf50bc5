package kernel

import (
	"context"
	"fmt"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// firewallKind are podnet's own tables, which agent/nft reads and writes. Elements come several
// at once (Execute).
var firewallKind = kind{
	of: model.KindFirewall,
	find: func(ctx context.Context, k *Kernel, _ *pass, _ model.State, have *model.State) error {
		tables, err := k.tables.Read(ctx)
		if err != nil {
			return err
		}
		for _, t := range tables {
			have.Firewall = append(have.Firewall, model.Table{Table: t})
		}
		return nil
	},
	put:  doStep(func(t model.Table) nft.Step { return nft.Put{Table: t.Table} }),
	take: doStep(func(t model.Table) nft.Step { return nft.DeleteTable{Family: t.Family, Name: t.Name} }),
}

func doStep(of func(model.Table) nft.Step) change {
	return func(ctx context.Context, k *Kernel, _ *pass, o model.Object) error {
		t, ok := o.(model.Table)
		if !ok {
			return fmt.Errorf("no operation on a %T is known", o)
		}
		return k.tables.Do(ctx, of(t))
	}
}

// changeElements does several operations on elements in one transaction.
func (k *Kernel) changeElements(ctx context.Context, ops []diff.Op) error {
	var change nft.ChangeElements
	for _, op := range ops {
		if e, ok := op.Object.(diff.Elements); ok && op.Verb == diff.Delete {
			change.Delete = append(change.Delete, e.Elements)
		} else if ok {
			change.Add = append(change.Add, e.Elements)
		}
	}
	return k.tables.Do(ctx, change)
}

// tableSighting makes a sighting of what the kernel said of podnet's own tables.
func tableSighting(n nft.Notice) diff.Sighting {
	if n.Set == "" {
		return diff.Sighting{Object: model.Table{Table: nft.Table{Family: n.Family, Name: model.FirewallTable}}, Gone: n.Gone}
	}
	return diff.Sighting{Object: diff.ElementKey{Family: n.Family, Table: model.FirewallTable, Set: n.Set, Key: n.Key}, Gone: n.Gone}
}
