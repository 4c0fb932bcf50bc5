package kernel

import (
	"context"
	"fmt"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// firewallKind are tables, which agent/nft holds, and changes of their parts. Elements come several
// at once (Execute).
var firewallKind = kind{
	of: model.KindFirewall,
	find: func(ctx context.Context, k *Kernel, _ *pass, _ model.State, have *model.State) (err error) {
		have.Firewall, err = k.nft.List(ctx, model.FirewallTable)
		return err
	},
	put: func(ctx context.Context, k *Kernel, _ *pass, o model.Object) error {
		switch o := o.(type) {
		case model.Table:
			return k.nft.Put(ctx, o)
		case diff.TableChange:
			return k.nft.Change(ctx, o)
		default:
			return fmt.Errorf("a %T cannot be put", o)
		}
	},
	take: func(ctx context.Context, k *Kernel, _ *pass, o model.Object) error {
		switch o := o.(type) {
		case model.Table:
			return k.nft.Delete(ctx, o)
		case diff.TableParts:
			return k.nft.DeleteParts(ctx, o)
		default:
			return fmt.Errorf("a %T cannot be deleted", o)
		}
	},
}
