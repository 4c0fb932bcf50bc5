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
			if err := k.nft.ChangeElements(ctx, ops[:n]); err != nil {
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
		if name := linkOf(op.Object); f.links[name] && op.Verb == diff.Put {
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
	put := op.Verb == diff.Put
	switch o := op.Object.(type) {
	case model.Link:
		if put {
			return p.putLink(o)
		}
		return p.deleteLink(o.Name)
	case model.Address:
		return either(put, o, p.putAddress, p.deleteAddress)
	case model.Route:
		return either(put, o, p.putRoute, p.deleteRoute)
	case model.Rule:
		return either(put, o, p.putRule, p.deleteRule)
	case model.Neighbour:
		return either(put, o, p.putNeighbour, p.deleteNeighbour)
	case model.FDBEntry:
		return either(put, o, p.putFDB, p.deleteFDB)
	case model.Port:
		if put {
			return p.putPort(o)
		}
		return errors.New("a port goes with its link")
	case model.Sysctl:
		if put {
			return k.putSysctl(p, o)
		}
		return errors.New("a sysctl cannot be deleted")
	case model.Table:
		if put {
			return k.nft.Put(ctx, o)
		}
		return k.nft.Delete(ctx, o)
	case diff.TableChange:
		if put {
			return k.nft.Change(ctx, o)
		}
		return errors.New("a change cannot be deleted")
	case diff.TableParts:
		if put {
			return errors.New("parts are put by a change")
		}
		return k.nft.DeleteParts(ctx, o)
	}
	return fmt.Errorf("no operation on a %T is known", op.Object)
}

func either[T any](put bool, object T, doPut, doDelete func(T) error) error {
	if put {
		return doPut(object)
	}
	return doDelete(object)
}

// linkOf returns the name of the link that an object is on; empty for none.
func linkOf(object any) string {
	switch o := object.(type) {
	case model.Address:
		return o.Link
	case model.Route:
		return o.Link
	case model.Neighbour:
		return o.Link
	case model.FDBEntry:
		return o.Link
	case model.Port:
		return o.Bridge
	}
	return ""
}

// describeAll names the first of several operations that were done as one.
func describeAll(ops []diff.Op) string {
	if len(ops) == 1 {
		return ops[0].String()
	}
	return fmt.Sprintf("%s, and %d more in one transaction", ops[0], len(ops)-1)
}
