package nft

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"

	"github.com/podnet/podnet/internal/nft"
)

// Do does a step in one transaction.
func (c *Conn) Do(ctx context.Context, step nft.Step) error {
	switch s := step.(type) {
	case nft.Put:
		return c.put(ctx, s.Table)
	case nft.Change:
		return c.change(ctx, s)
	case nft.DeleteParts:
		return c.deleteParts(ctx, s.Parts)
	case nft.DeleteTable:
		return c.deleteTable(ctx, s)
	case nft.ChangeElements:
		return c.changeElements(ctx, s)
	}
	return fmt.Errorf("no step %T is known", step)
}

// put makes a table, or replaces all of it, in one transaction: no packet
// meets a part of it. nft before 1.0.7 has no "destroy", so the table is added
// before it is deleted.
func (c *Conn) put(ctx context.Context, want nft.Table) error {
	tx := c.nft.NewTransaction()
	table := &knftables.Table{Family: knftables.Family(want.Family), Name: want.Name}
	tx.Add(table)
	tx.Delete(table)
	tx.Add(table)
	fillTable(tx, want)
	return c.nft.Run(ctx, tx)
}

// fillTable adds counters, sets and chains to a table, and then what may name any of them.
func fillTable(tx *knftables.Transaction, t nft.Table) {
	for _, name := range t.Counters {
		tx.Add(counterOf(t, name))
	}
	for _, c := range t.Chains {
		addChain(tx, t, c)
	}
	for _, s := range t.Sets {
		addSet(tx, t, s)
	}
	for _, s := range t.Sets {
		addElements(nft.ElementsOf(t, s, s.Elements), tx.Add)
	}
	for _, c := range t.Chains {
		addRules(tx, t, c)
	}
}

func addRules(tx *knftables.Transaction, table nft.Table, c nft.Chain) {
	for _, r := range c.Rules {
		rule := &knftables.Rule{Family: knftables.Family(table.Family), Table: table.Name, Chain: c.Name, Rule: r.Text}
		if r.Fingerprint != "" {
			rule.Comment = knftables.PtrTo(r.Fingerprint)
		}
		tx.Add(rule)
	}
}

// change changes parts of a table in one transaction. What is to be made may
// be there already, as an older part that could not be deleted yet.
func (c *Conn) change(ctx context.Context, change nft.Change) error {
	tx := c.nft.NewTransaction()
	table := nft.Table{Family: change.Family, Name: change.Table}
	for _, name := range change.Counters {
		tx.Add(counterOf(table, name))
	}
	for _, made := range change.Chains {
		addChain(tx, table, made)
		tx.Flush(chainOf(table, made.Name))
	}
	for _, s := range change.Sets {
		addSet(tx, table, s)
		tx.Flush(setObject(table, s))
	}
	for _, s := range change.Sets {
		addElements(nft.ElementsOf(table, s, s.Elements), tx.Add)
	}
	for _, e := range change.Delete {
		addElements(e, tx.Delete)
	}
	for _, e := range change.Add {
		addElements(e, tx.Add)
	}
	for _, made := range change.Chains {
		addRules(tx, table, made)
	}
	for _, name := range change.Old.Chains {
		tx.Flush(chainOf(table, name))
	}
	for _, s := range change.Old.Sets {
		tx.Flush(setObject(table, s))
	}
	return c.nft.Run(ctx, tx)
}

// deleteParts deletes parts of a table that a change has emptied.
func (c *Conn) deleteParts(ctx context.Context, p nft.Parts) error {
	tx := c.nft.NewTransaction()
	table := nft.Table{Family: p.Family, Name: p.Table}
	for _, name := range p.Chains {
		tx.Delete(chainOf(table, name))
	}
	for _, s := range p.Sets {
		tx.Delete(setObject(table, s))
	}
	for _, name := range p.Counters {
		tx.Delete(counterOf(table, name))
	}
	return c.nft.Run(ctx, tx)
}

func counterOf(t nft.Table, name string) *knftables.Counter {
	return &knftables.Counter{Family: knftables.Family(t.Family), Table: t.Name, Name: name}
}

func chainOf(t nft.Table, name string) *knftables.Chain {
	return &knftables.Chain{Family: knftables.Family(t.Family), Table: t.Name, Name: name}
}

// setObject names a set or a map.
func setObject(t nft.Table, s nft.Set) knftables.Object {
	if s.Value == "" {
		return &knftables.Set{Family: knftables.Family(t.Family), Table: t.Name, Name: s.Name}
	}
	return &knftables.Map{Family: knftables.Family(t.Family), Table: t.Name, Name: s.Name}
}

// maxNoted is how many elements rules can add to a set at most.
const maxNoted = 16384

func addSet(tx *knftables.Transaction, table nft.Table, s nft.Set) {
	var flags []knftables.SetFlag
	if s.Interval {
		flags = append(flags, knftables.IntervalFlag)
	}
	if s.Value == "" {
		set := &knftables.Set{Family: knftables.Family(table.Family), Table: table.Name, Name: s.Name, Type: s.Key, Flags: flags}
		if s.TypeOf != "" {
			set.Type, set.TypeOf = "", s.TypeOf
		}
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

func addChain(tx *knftables.Transaction, table nft.Table, c nft.Chain) {
	chain := &knftables.Chain{Family: knftables.Family(table.Family), Table: table.Name, Name: c.Name}
	if c.Base != (nft.Base{}) {
		chain.Type = knftables.PtrTo(knftables.BaseChainType(c.Base.Type))
		chain.Hook = knftables.PtrTo(knftables.BaseChainHook(c.Base.Hook))
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(c.Base.Priority.String()))
	}
	tx.Add(chain)
}

// addElements gives each element to a method of a transaction.
func addElements(e nft.Elements, operation func(knftables.Object)) {
	for _, element := range e.List {
		o := &knftables.Element{Family: knftables.Family(e.Family), Table: e.Table, Key: element.Key, Value: element.Value}
		if e.Map {
			o.Map = e.Set
		} else {
			o.Set = e.Set
		}
		operation(o)
	}
}

// deleteTable deletes a table, and is content where it is gone already.
func (c *Conn) deleteTable(ctx context.Context, gone nft.DeleteTable) error {
	tx := c.nft.NewTransaction()
	table := &knftables.Table{Family: knftables.Family(gone.Family), Name: gone.Name}
	tx.Add(table)
	tx.Delete(table)
	return c.nft.Run(ctx, tx)
}

// changeElements changes elements of any tables in one transaction.
func (c *Conn) changeElements(ctx context.Context, change nft.ChangeElements) error {
	err := c.nft.Run(ctx, c.elementsTransaction(change, false))
	if knftables.IsNotFound(err) {
		// An element that shall go may be gone already. Adding each before its
		// deletion, which does no harm where it is there, makes that no failure.
		return c.nft.Run(ctx, c.elementsTransaction(change, true))
	}
	return err
}

func (c *Conn) elementsTransaction(change nft.ChangeElements, addFirst bool) *knftables.Transaction {
	tx := c.nft.NewTransaction()
	for _, e := range change.Delete {
		if addFirst {
			addElements(e, tx.Add)
		}
		addElements(e, tx.Delete)
	}
	for _, e := range change.Add {
		addElements(e, tx.Add)
	}
	return tx
}
