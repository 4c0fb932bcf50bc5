package nft

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// Put makes a table, or replaces all of it, in one transaction: no packet
// meets a part of it. nft before 1.0.7 has no "destroy", so the table is added
// before it is deleted.
func (c *Conn) Put(ctx context.Context, want model.Table) error {
	tx := c.nft.NewTransaction()
	table := &knftables.Table{Family: knftables.Family(want.Family), Name: want.Name}
	tx.Add(table)
	tx.Delete(table)
	tx.Add(table)
	fillTable(tx, want)
	return c.nft.Run(ctx, tx)
}

// fillTable adds counters, sets and chains to a table, and then what may name any of them.
func fillTable(tx *knftables.Transaction, t model.Table) {
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
		addElements(diff.Elements{Family: t.Family, Table: t.Name, Set: s.Name, Map: s.Value != "", Elements: s.Elements}, tx.Add)
	}
	for _, c := range t.Chains {
		addRules(tx, t, c)
	}
}

func addRules(tx *knftables.Transaction, table model.Table, c model.Chain) {
	for _, r := range c.Rules {
		rule := &knftables.Rule{Family: knftables.Family(table.Family), Table: table.Name, Chain: c.Name, Rule: r.Text}
		if r.Fingerprint != "" {
			rule.Comment = knftables.PtrTo(r.Fingerprint)
		}
		tx.Add(rule)
	}
}

// Change changes parts of a table in one transaction. What is to be made may
// be there already, as an older part that could not be deleted yet.
func (c *Conn) Change(ctx context.Context, change diff.TableChange) error {
	tx := c.nft.NewTransaction()
	table := model.Table{Family: change.Family, Name: change.Table}
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
		addElements(diff.Elements{Family: change.Family, Table: change.Table, Set: s.Name, Map: s.Value != "", Elements: s.Elements}, tx.Add)
	}
	for _, op := range change.Changes {
		if e, ok := op.Object.(diff.Elements); ok && op.Verb == diff.Delete {
			addElements(e, tx.Delete)
		} else if ok {
			addElements(e, tx.Add)
		}
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

// DeleteParts deletes parts of a table that a change has emptied.
func (c *Conn) DeleteParts(ctx context.Context, p diff.TableParts) error {
	tx := c.nft.NewTransaction()
	table := model.Table{Family: p.Family, Name: p.Table}
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

func counterOf(t model.Table, name string) *knftables.Counter {
	return &knftables.Counter{Family: knftables.Family(t.Family), Table: t.Name, Name: name}
}

func chainOf(t model.Table, name string) *knftables.Chain {
	return &knftables.Chain{Family: knftables.Family(t.Family), Table: t.Name, Name: name}
}

// setObject names a set or a map.
func setObject(t model.Table, s model.Set) knftables.Object {
	if s.Value == "" {
		return &knftables.Set{Family: knftables.Family(t.Family), Table: t.Name, Name: s.Name}
	}
	return &knftables.Map{Family: knftables.Family(t.Family), Table: t.Name, Name: s.Name}
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

// Delete deletes a table, and is content where it is gone already.
func (c *Conn) Delete(ctx context.Context, gone model.Table) error {
	tx := c.nft.NewTransaction()
	table := &knftables.Table{Family: knftables.Family(gone.Family), Name: gone.Name}
	tx.Add(table)
	tx.Delete(table)
	return c.nft.Run(ctx, tx)
}

// ChangeElements does several operations on elements in one transaction.
func (c *Conn) ChangeElements(ctx context.Context, ops []diff.Op) error {
	err := c.nft.Run(ctx, c.elementsTransaction(ops, false))
	if knftables.IsNotFound(err) {
		// An element that shall go may be gone already. Adding each before its
		// deletion, which does no harm where it is there, makes that no failure.
		return c.nft.Run(ctx, c.elementsTransaction(ops, true))
	}
	return err
}

func (c *Conn) elementsTransaction(ops []diff.Op, addFirst bool) *knftables.Transaction {
	tx := c.nft.NewTransaction()
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
