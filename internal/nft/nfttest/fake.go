// Package nfttest holds nftables for tests: tables in memory, with what a real kernel
// refuses as far as the order of changes depends on it. What a step means to nft is
// left to agent/nft.
package nfttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/nft"
)

// Fake is nftables in memory. Its zero value has no tables.
type Fake struct {
	// Done are the steps that were done.
	Done []nft.Step
	// Refuse, unless it is nil, returns why a step is refused; nil where it is not.
	Refuse func(nft.Step) error
	// Counted are the packets that counters have counted. They begin again with a new inet table.
	Counted map[string]uint64

	tables []nft.Table
}

// New returns a Fake with tables.
func New(tables ...nft.Table) *Fake {
	f := &Fake{}
	for _, t := range tables {
		f.tables = append(f.tables, observed(t))
	}
	return f
}

// Tables returns all tables, sorted, with the fingerprints of rules alone.
func (f *Fake) Tables() []nft.Table {
	var all []nft.Table
	for _, t := range f.tables {
		t = observed(t)
		t.Sort()
		all = append(all, t)
	}
	slices.SortFunc(all, nft.Table.Compare)
	return all
}

// List returns the tables of a name, as they were made.
func (f *Fake) List(_ context.Context, name string) ([]nft.Table, error) {
	var found []nft.Table
	for _, t := range f.tables {
		if t.Name == name {
			found = append(found, observed(t))
		}
	}
	return found, nil
}

// Counters returns what counters have counted.
func (f *Fake) Counters(context.Context, string) (map[string]uint64, error) {
	return maps.Clone(f.Counted), nil
}

// Watch sees no changes of others.
func (*Fake) Watch(ctx context.Context, _ string, _ func()) error {
	<-ctx.Done()
	return nil
}

// Do does a step, or nothing of it.
func (f *Fake) Do(_ context.Context, step nft.Step) error {
	if f.Refuse != nil {
		if err := f.Refuse(step); err != nil {
			return err
		}
	}
	f.Done = append(f.Done, step)
	switch s := step.(type) {
	case nft.Put:
		if err := consistent(s.Table); err != nil {
			return err
		}
		f.remove(s.Family, s.Name)
		f.tables = append(f.tables, observed(s.Table))
		if s.Family == nft.Inet {
			f.Counted = nil
		}
		return nil
	case nft.DeleteTable:
		f.remove(s.Family, s.Name)
		return nil
	case nft.Change:
		return f.change(s.Family, s.Table, func(t *nft.Table) error { return changeParts(t, s) })
	case nft.ChangeElements:
		return f.changeElements(s)
	case nft.DeleteParts:
		return f.change(s.Family, s.Table, func(t *nft.Table) error { return deleteParts(t, s.Parts) })
	}
	return fmt.Errorf("no step %T is known", step)
}

// changeElements deletes and adds elements. Those that are gone already do not matter.
func (f *Fake) changeElements(c nft.ChangeElements) error {
	for _, e := range c.Delete {
		if err := f.change(e.Family, e.Table, func(t *nft.Table) error { return elements(t, e, false) }); err != nil {
			return err
		}
	}
	for _, e := range c.Add {
		if err := f.change(e.Family, e.Table, func(t *nft.Table) error { return elements(t, e, true) }); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fake) remove(family nft.Family, name string) {
	f.tables = slices.DeleteFunc(slices.Clone(f.tables), func(t nft.Table) bool { return t.Family == family && t.Name == name })
}

// change changes a table, or nothing of it where a part of the change fails.
func (f *Fake) change(family nft.Family, name string, change func(*nft.Table) error) error {
	i := slices.IndexFunc(f.tables, func(t nft.Table) bool { return t.Family == family && t.Name == name })
	if i < 0 {
		return errors.New("no such table")
	}
	t := observed(f.tables[i])
	err := change(&t)
	if err == nil {
		err = consistent(t)
	}
	if err == nil {
		f.tables[i] = t
	}
	return err
}

func changeParts(t *nft.Table, c nft.Change) error {
	made := observed(nft.Table{Sets: c.Sets, Chains: c.Chains})
	for _, chain := range made.Chains {
		t.Chains = put(t.Chains, chain, func(is nft.Chain) bool { return is.Name == chain.Name })
	}
	for _, s := range made.Sets {
		t.Sets = put(t.Sets, s, func(is nft.Set) bool { return is.Name == s.Name })
	}
	for _, name := range c.Counters {
		t.Counters = put(t.Counters, name, func(is string) bool { return is == name })
	}
	for _, e := range c.Delete {
		if err := elements(t, e, false); err != nil {
			return err
		}
	}
	for _, e := range c.Add {
		if err := elements(t, e, true); err != nil {
			return err
		}
	}
	for _, name := range c.Old.Chains {
		i := slices.IndexFunc(t.Chains, func(c nft.Chain) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("no chain %s", name)
		}
		t.Chains[i].Rules = nil
	}
	for _, old := range c.Old.Sets {
		i := slices.IndexFunc(t.Sets, func(s nft.Set) bool { return s.Name == old.Name })
		if i < 0 {
			return fmt.Errorf("no set %s", old.Name)
		}
		t.Sets[i].Elements = nil
	}
	return nil
}

func deleteParts(t *nft.Table, p nft.Parts) error {
	t.Counters = slices.DeleteFunc(t.Counters, func(name string) bool { return slices.Contains(p.Counters, name) })
	t.Chains = slices.DeleteFunc(t.Chains, func(c nft.Chain) bool { return slices.Contains(p.Chains, c.Name) })
	t.Sets = slices.DeleteFunc(t.Sets, func(s nft.Set) bool {
		return slices.ContainsFunc(p.Sets, func(old nft.Set) bool { return old.Name == s.Name })
	})
	return nil
}

// elements changes the elements of a set. A key of a map that has another value
// is refused, and so are prefixes that overlap.
func elements(t *nft.Table, o nft.Elements, add bool) error {
	j := slices.IndexFunc(t.Sets, func(s nft.Set) bool { return s.Name == o.Set && (s.Value != "") == o.Map })
	if j < 0 {
		return errors.New("no such set")
	}
	set := &t.Sets[j]
	for _, e := range o.List {
		same := func(h nft.Element) bool { return slices.Equal(h.Key, e.Key) }
		if !add {
			set.Elements = slices.DeleteFunc(set.Elements, same)
			continue
		}
		for _, h := range set.Elements {
			if same(h) && !slices.Equal(h.Value, e.Value) || !same(h) && set.Interval && overlap(h, e) {
				return fmt.Errorf("element %v exists as %v", e, h)
			}
		}
		set.Elements = put(set.Elements, e, same)
	}
	return nil
}

func overlap(a, b nft.Element) bool {
	p, q := prefix(a.Key[0]), prefix(b.Key[0])
	return p.Overlaps(q)
}

// prefix reads a prefix or an address, and is invalid for anything else.
func prefix(text string) netip.Prefix {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// put puts an object in place of the one that is the same.
func put[T any](list []T, o T, same func(T) bool) []T {
	return append(slices.DeleteFunc(list, same), o)
}

// observed copies a table without the texts of its rules, which a kernel
// does not show as they were written.
func observed(t nft.Table) nft.Table {
	t = t.Clone()
	t.Chains = slices.Clone(t.Chains)
	for i := range t.Chains {
		t.Chains[i].Rules = slices.Clone(t.Chains[i].Rules)
		for j := range t.Chains[i].Rules {
			t.Chains[i].Rules[j].Text = ""
		}
	}
	return t
}

// consistent reports whether every chain that an element of a table leads to is there,
// and every set has a key once.
func consistent(t nft.Table) error {
	chains := map[string]bool{}
	for _, c := range t.Chains {
		chains[c.Name] = true
	}
	for _, s := range t.Sets {
		keys := map[string]bool{}
		for _, e := range s.Elements {
			key := strings.Join(e.Key, " . ")
			if keys[key] {
				return fmt.Errorf("set %s has %s twice", s.Name, key)
			}
			keys[key] = true
			if s.Value != "verdict" {
				continue
			}
			_, target, leads := strings.Cut(e.Value[0], " ")
			if leads && !chains[target] {
				return fmt.Errorf("set %s leads to chain %s, which is not there", s.Name, target)
			}
		}
	}
	return nil
}
