package kernel

import (
	"context"
	"errors"
	"fmt"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// maxErrors is the number of failed operations that Execute's error names: where
// a link is missing, thousands of routes may fail alike.
const maxErrors = 20

// Execute performs operations in their order. After one fails it goes on with
// those that do not need its object, and returns an error that joins, and names,
// the first 20 failed ones.
func (k *Kernel) Execute(ctx context.Context, ops []diff.Op) error {
	p, err := newPass()
	if err != nil {
		return err
	}
	defer p.close()
	f := failures{links: map[string]bool{}}
	for len(ops) > 0 {
		n := elementsAhead(ops)
		if n > 0 {
			if err := k.changeElements(ctx, ops[:n]); err != nil {
				f.add(fmt.Errorf("%s: %w", describeAll(ops[:n]), err))
			}
			ops = ops[n:]
			continue
		}
		op := ops[0]
		ops = ops[1:]
		if err := ctx.Err(); err != nil {
			f.add(fmt.Errorf("%s: %w", op, err))
			break
		}
		// Nothing can be put on a link that could not be made.
		if f.links[op.Object.On()] && op.Verb == diff.Put {
			f.skipped++
			continue
		}
		if err := k.execute(ctx, p, op); err != nil {
			f.add(fmt.Errorf("%s: %w", op, err))
			if l, ok := op.Object.(model.Link); ok {
				f.links[l.Name] = true
			}
		}
	}
	return f.err()
}

// failures are what went wrong in an execution.
type failures struct {
	errs []error
	// more counts the failures after the first ones.
	more int
	// links are those that could not be made, and skipped counts the operations
	// that need one of them.
	links   map[string]bool
	skipped int
}

func (f *failures) add(err error) {
	if len(f.errs) == maxErrors {
		f.more++
		return
	}
	f.errs = append(f.errs, err)
}

func (f *failures) err() error {
	errs := f.errs
	if f.more > 0 {
		errs = append(errs, fmt.Errorf("%d more operations failed", f.more))
	}
	if f.skipped > 0 {
		errs = append(errs, fmt.Errorf("%d operations on links that could not be made were left out", f.skipped))
	}
	return errors.Join(errs...)
}

// elementsAhead counts the operations on elements at the beginning of ops.
func elementsAhead(ops []diff.Op) int {
	for i, op := range ops {
		if _, ok := op.Object.(diff.Elements); !ok {
			return i
		}
	}
	return len(ops)
}

func (k *Kernel) execute(ctx context.Context, p *pass, op diff.Op) error {
	of, err := kindOf(op.Object)
	if err != nil {
		return err
	}
	do := of.put
	if op.Verb == diff.Delete {
		do = of.take
	}
	if do == nil {
		return fmt.Errorf("a %s cannot be deleted", of.of)
	}
	return do(ctx, k, p, op.Object)
}

// describeAll names the first of several operations that were done as one.
func describeAll(ops []diff.Op) string {
	if len(ops) == 1 {
		return ops[0].String()
	}
	return fmt.Sprintf("%s, and %d more in one transaction", ops[0], len(ops)-1)
}
