package apply

import (
	"context"
	"net/netip"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
)

// reportChanges reports, in the log and to those who want to know, how the plan differs from
// the one before: blocks that the node got or gave back, and paths.
func (s *Applier) reportChanges(ctx context.Context, before, wanted model.Plan) {
	logger := log.FromContext(ctx)
	for _, b := range blocksNotIn(wanted.Blocks, before.Blocks) {
		logger.Info("this node holds a block", "block", b, "mtu", wanted.MTU)
	}
	for _, b := range blocksNotIn(before.Blocks, wanted.Blocks) {
		logger.Info("this node gave back a block", "block", b)
	}
	changes := status.PathChanges(before.Paths, wanted.Paths)
	for _, c := range changes[:min(len(changes), maxLogged)] {
		logger.Info("the path to a block has changed", "block", c.Block, "node", c.Node, "was", c.Was, "is", c.Is, "reason", c.Why)
	}
	if more := len(changes) - maxLogged; more > 0 {
		logger.Info("the paths to more blocks have changed", "blocks", more)
	}
	if s.cfg.PathsChanged != nil {
		s.cfg.PathsChanged(changes)
	}
}

// blocksNotIn returns the prefixes of blocks that are not among others.
func blocksNotIn(blocks, others []model.Block) []netip.Prefix {
	var out []netip.Prefix
	for _, b := range blocks {
		if !slices.ContainsFunc(others, func(o model.Block) bool { return o.CIDR == b.CIDR }) {
			out = append(out, b.CIDR)
		}
	}
	return out
}
