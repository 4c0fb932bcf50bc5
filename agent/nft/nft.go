// Package nft changes and lists the tables of nftables that are podnet's. What they
// shall be is left to internal/plan and internal/policy.
package nft

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/knftables"

	"github.com/podnet/podnet/internal/nft"
)

// Conn is nftables in the network namespace of the calling thread. Its methods may be
// called concurrently. It does one transaction at a time: whoever is not to wait for others'
// has a Conn of its own.
type Conn struct {
	nft knftables.Interface
}

// Open returns a Conn. It fails where nft is missing or may not be run.
func Open() (*Conn, error) {
	nft, err := knftables.New("", "")
	if err != nil {
		return nil, fmt.Errorf("look for nft: %w", err)
	}
	return NewConn(nft), nil
}

// NewConn returns a Conn that works by an interface of its own.
func NewConn(nft knftables.Interface) *Conn { return &Conn{nft: nft} }

// Check asks the kernel whether it takes a table. Nothing is made.
func (c *Conn) Check(ctx context.Context, t nft.Table) error {
	tx := c.nft.NewTransaction()
	tx.Add(&knftables.Table{Family: knftables.Family(t.Family), Name: t.Name})
	fillTable(tx, t)
	return c.nft.Check(ctx, tx)
}

// Add adds tables that are not there, in one transaction.
func (c *Conn) Add(ctx context.Context, tables ...nft.Table) error {
	tx := c.nft.NewTransaction()
	for _, t := range tables {
		tx.Add(&knftables.Table{Family: knftables.Family(t.Family), Name: t.Name})
		fillTable(tx, t)
	}
	return c.nft.Run(ctx, tx)
}

// Remove removes the tables of a name, where there are any.
func (c *Conn) Remove(ctx context.Context, name string) error {
	for _, family := range families {
		_, err := list(ctx, "table", string(family), name)
		if errors.Is(err, errNoTable) {
			continue
		}
		if err == nil {
			err = c.deleteTable(ctx, nft.DeleteTable{Family: family, Name: name})
		}
		if err != nil {
			return fmt.Errorf("remove nft table %s %s: %w", family, name, err)
		}
	}
	return nil
}
