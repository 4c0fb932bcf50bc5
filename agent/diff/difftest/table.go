package difftest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

func (f *Fake) table(family, name string) *model.Table {
	i := slices.IndexFunc(f.state.Firewall, func(t model.Table) bool { return t.Family == family && t.Name == name })
	if i < 0 {
		return nil
	}
	return &f.state.Firewall[i]
}

// changeTable changes a table, or nothing of it where a part of the change fails.
func (f *Fake) changeTable(put bool, c diff.TableChange) error {
	if !put {
		return errors.New("a change cannot be deleted")
	}
	t := f.table(c.Family, c.Table)
	if t == nil {
		return errors.New("no such table")
	}
	before := observedTable(*t)
	err := f.changeParts(t, c)
	if err == nil {
		err = consistent(*t)
	}
	if err != nil {
		*t = before
	}
	return err
}

func (f *Fake) changeParts(t *model.Table, c diff.TableChange) error {
	made := observedTable(model.Table{Sets: c.Sets, Chains: c.Chains})
	for _, chain := range made.Chains {
		t.Chains = set(t.Chains, chain, true, func(is model.Chain) bool { return is.Name == chain.Name })
	}
	for _, s := range made.Sets {
		t.Sets = set(t.Sets, s, true, func(is model.Set) bool { return is.Name == s.Name })
	}
	for _, name := range c.Counters {
		t.Counters = set(t.Counters, name, true, func(is string) bool { return is == name })
	}
	for _, op := range c.Changes {
		e, ok := op.Object.(diff.Elements)
		if !ok {
			return errors.New("a change of something else than elements")
		}
		if err := f.elements(op.Verb == diff.Put, e); err != nil {
			return err
		}
	}
	for _, name := range c.Old.Chains {
		i := slices.IndexFunc(t.Chains, func(c model.Chain) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("no chain %s", name)
		}
		t.Chains[i].Rules = nil
	}
	for _, old := range c.Old.Sets {
		i := slices.IndexFunc(t.Sets, func(s model.Set) bool { return s.Name == old.Name })
		if i < 0 {
			return fmt.Errorf("no set %s", old.Name)
		}
		t.Sets[i].Elements = nil
	}
	return nil
}

func (f *Fake) deleteParts(put bool, p diff.TableParts) error {
	t := f.table(p.Family, p.Table)
	if put || t == nil {
		return errors.New("no such table")
	}
	before := observedTable(*t)
	t.Counters = slices.DeleteFunc(t.Counters, func(name string) bool { return slices.Contains(p.Counters, name) })
	t.Chains = slices.DeleteFunc(t.Chains, func(c model.Chain) bool { return slices.Contains(p.Chains, c.Name) })
	t.Sets = slices.DeleteFunc(t.Sets, func(s model.Set) bool {
		return slices.ContainsFunc(p.Sets, func(old model.Set) bool { return old.Name == s.Name })
	})
	if err := consistent(*t); err != nil {
		*t = before
		return err
	}
	return nil
}

// consistent returns an error unless every chain that an element of a table leads to is there,
// and every set has a key once.
func consistent(t model.Table) error {
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
			if leads && !slices.ContainsFunc(t.Chains, func(c model.Chain) bool { return c.Name == target }) {
				return fmt.Errorf("set %s leads to chain %s, which is not there", s.Name, target)
			}
		}
	}
	return nil
}
