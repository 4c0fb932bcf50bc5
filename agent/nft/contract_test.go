package nft_test

import (
	"context"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"

	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/agent/nft/nftcontract"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/nft/nfttest"
)

// here runs something where the test runs.
func here(f func() error) error { return f() }

func TestWriterOnTheDouble(t *testing.T) {
	nftcontract.Run(t, func(*testing.T) (writer.Kernel, func(func() error) error) { return nfttest.New(), here })
}

func TestWriterOnTheFakeOfKnftables(t *testing.T) {
	nftcontract.Run(t, func(*testing.T) (writer.Kernel, func(func() error) error) {
		fake := knftables.NewFake("", "")
		return &transactions{Conn: writer.NewConn(fake), fake: fake}, here
	})
}

// transactions is a Conn whose transactions go to a fake, from which it lists tables too.
type transactions struct {
	*writer.Conn
	fake *knftables.Fake
}

func (c *transactions) List(_ context.Context, name string) ([]nft.Table, error) {
	c.fake.RLock()
	defer c.fake.RUnlock()
	var found []nft.Table
	for family, tables := range c.fake.Tables {
		if t, ok := tables[name]; ok {
			found = append(found, tableOf(nft.Family(family), name, t))
		}
	}
	return found, nil
}

func tableOf(family nft.Family, name string, t *knftables.FakeTable) nft.Table {
	table := nft.Table{Family: family, Name: name}
	for _, c := range t.Chains {
		chain := nft.Chain{Name: c.Name}
		if c.Hook != nil {
			priority, _ := knftables.ParsePriority(knftables.Family(family), string(*c.Priority))
			chain.Base = nft.Base{Type: nft.ChainType(*c.Type), Hook: nft.Hook(*c.Hook), Priority: nft.Priority{Offset: priority}}
		}
		for _, r := range c.Rules {
			rule := nft.Rule{}
			if r.Comment != nil {
				rule.Fingerprint = *r.Comment
			}
			chain.Rules = append(chain.Rules, rule)
		}
		table.Chains = append(table.Chains, chain)
	}
	for _, s := range t.Sets {
		table.Sets = append(table.Sets, nft.Set{Name: s.Name, Key: s.Type, Elements: elementsOf(s.Elements)})
	}
	for _, m := range t.Maps {
		set := nft.Set{Name: m.Name, Elements: elementsOf(m.Elements)}
		set.Key, set.Value, _ = strings.Cut(m.Type, " : ")
		table.Sets = append(table.Sets, set)
	}
	return table
}

func elementsOf(list []*knftables.Element) []nft.Element {
	var out []nft.Element
	for _, e := range list {
		out = append(out, nft.Element{Key: e.Key, Value: e.Value})
	}
	return out
}
