package policy

import (
	"context"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Watch puts the tables back when others have changed them, until ctx ends.
func (e *Enforcer) Watch(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := e.tables.Watch(ctx, e.Trigger); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "cannot watch the policy tables, trying again")
		}
	}, firstRetry)
	return nil
}
