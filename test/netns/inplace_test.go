package netns

import (
	"context"
	"fmt"

	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// inPlace is nftables that makes each table once: after that it is changed.
type inPlace struct {
	*writer.Conn
	made map[nft.Family]bool
}

// newInPlace returns what writes the policy tables of a node so.
func newInPlace(n *node) *writer.Writer {
	return writer.NewWriter(inPlace{Conn: n.nft, made: map[nft.Family]bool{}}, model.PolicyTable, func() {})
}

// Do does a step, unless it replaces a table.
func (k inPlace) Do(ctx context.Context, step nft.Step) error {
	switch s := step.(type) {
	case nft.Put:
		if k.made[s.Family] {
			return fmt.Errorf("%s is there already", s.Table)
		}
		k.made[s.Family] = true
	case nft.DeleteTable:
		delete(k.made, s.Family)
	}
	return k.Conn.Do(ctx, step)
}
