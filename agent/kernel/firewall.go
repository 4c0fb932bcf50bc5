package kernel

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// putTable makes a table, or replaces all of it, in one transaction: no packet
// meets a part of it. nft before 1.0.7 has no "destroy", so the table is added
// before it is deleted.
func (k *Kernel) putTable(ctx context.Context, want model.Table) error {
	tx := k.nft.NewTransaction()
	table := &knftables.Table{Family: knftables.Family(want.Family), Name: want.Name}
	tx.Add(table)
	tx.Delete(table)
	tx.Add(table)
	for _, s := range want.Sets {
		addSet(tx, want, s)
		addElements(diff.Elements{Family: want.Family, Table: want.Name, Set: s.Name, Map: s.Value != "", Elements: s.Elements}, tx.Add)
	}
	for _, c := range want.Chains {
		addChain(tx, want, c)
	}
	for _, c := range want.Chains {
		for _, r := range c.Rules {
			tx.Add(&knftables.Rule{
				Family: table.Family, Table: want.Name, Chain: c.Name,
				Rule: r.Text, Comment: knftables.PtrTo(r.Fingerprint),
			})
		}
	}
	return k.nft.Run(ctx, tx)
}

// maxNoted is how many elements rules can add to a set at most.
const maxNoted = 16384

func addSet(tx *knftables.Transaction, table model.Table, s model.Set) {
	var flags []knftables.SetFlag
	if s.Interval {
		flags = append(flags, knftables.IntervalFlag)
	}
	if s.Value == "" {
		set := &knftables.Set{Family: knftables.Family(table.Family), Table: table.Name, Name: s.Name, Type: s.Key, Flags: flags}
		if s.Forgets > 0 {
			set.Flags = append(set.Flags, knftables.DynamicFlag, knftables.TimeoutFlag)
			set.Timeout, set.Size = knftables.PtrTo(s.Forgets), knftables.PtrTo(uint64(maxNoted))
		}
		tx.Add(set)
		return
	}
	tx.Add(&knftables.Map{
		Family: knftables.Family(table.Family), Table: table.Name, Name: s.Name,
		Type: fmt.Sprintf("%s : %s", s.Key, s.Value), Flags: flags,
	})
}

func addChain(tx *knftables.Transaction, table model.Table, c model.Chain) {
	chain := &knftables.Chain{Family: knftables.Family(table.Family), Table: table.Name, Name: c.Name}
	if c.Hook != "" {
		chain.Type = knftables.PtrTo(knftables.BaseChainType(c.Type))
		chain.Hook = knftables.PtrTo(knftables.BaseChainHook(c.Hook))
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(c.Priority))
	}
	tx.Add(chain)
}

// addElements gives each element to a method of a transaction.
func addElements(e diff.Elements, operation func(knftables.Object)) {
	for _, element := range e.Elements {
		o := &knftables.Element{Family: knftables.Family(e.Family), Table: e.Table, Key: element.Key, Value: element.Value}
		if e.Map {
			o.Map = e.Set
		} else {
			o.Set = e.Set
		}
		operation(o)
	}
}

func (k *Kernel) deleteTable(ctx context.Context, gone model.Table) error {
	tx := k.nft.NewTransaction()
	table := &knftables.Table{Family: knftables.Family(gone.Family), Name: gone.Name}
	tx.Add(table)
	tx.Delete(table)
	return k.nft.Run(ctx, tx)
}

// changeElements does several operations on elements in one transaction.
func (k *Kernel) changeElements(ctx context.Context, ops []diff.Op) error {
	err := k.nft.Run(ctx, k.elementsTransaction(ops, false))
	if knftables.IsNotFound(err) {
		// An element that shall go may be gone already. Adding each before its
		// deletion, which does no harm where it is there, makes that no failure.
		return k.nft.Run(ctx, k.elementsTransaction(ops, true))
	}
	return err
}

func (k *Kernel) elementsTransaction(ops []diff.Op, addFirst bool) *knftables.Transaction {
	tx := k.nft.NewTransaction()
	for _, op := range ops {
		e, ok := op.Object.(diff.Elements)
		if !ok {
			continue
		}
		if op.Verb == diff.Put {
			addElements(e, tx.Add)
			continue
		}
		if addFirst {
			addElements(e, tx.Add)
		}
		addElements(e, tx.Delete)
	}
	return tx
}
