package kernel

import (
	"context"
	"fmt"
	"syscall"

	"github.com/podnet/podnet/internal/model"
)

// kind is what one kind of objects means to the kernel.
type kind struct {
	of model.ObjectKind
	// find adds to have what podnet made of the kind, in the terms of want. Links were met before.
	find func(ctx context.Context, k *Kernel, p *pass, want model.State, have *model.State) error
	// put makes an object or changes the one of its identity, and take takes it away; take is nil
	// for what goes with its link alone, or never.
	put, take change
	// news is how the kernel reports objects of the kind. It does not report parameters, and of tables
	// by another family of messages.
	news news
}

type change func(ctx context.Context, k *Kernel, p *pass, o model.Object) error

// news are messages by which the routing family reports objects, of several kinds perhaps.
type news struct {
	groups []uint
	// added is the message's type where something is there, after which follows that for what
	// is gone (linux/rtnetlink.h).
	added uint16
	read  func(w *watcher, m syscall.NetlinkMessage, gone bool) error
}

// kinds are all kinds, in the order in which they are found: addresses after routes, which tell
// the node's own.
var kinds = []kind{
	linkKind, portKind, routeKind, addressKind, ruleKind, neighbourKind, fdbKind, sysctlKind, firewallKind,
}

// kindOf returns the kind of an object.
func kindOf(o model.Object) (kind, error) {
	for _, k := range kinds {
		if k.of == o.ObjectKind() {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("no operation on a %T is known", o)
}

// by makes a change of a function for objects of one type.
func by[T model.Object](do func(p *pass, o T) error) change {
	return func(_ context.Context, _ *Kernel, p *pass, o model.Object) error {
		object, ok := o.(T)
		if !ok {
			return fmt.Errorf("no operation on a %T is known", o)
		}
		return do(p, object)
	}
}

// finding makes a find of a function that lists the objects of a kind.
func finding[T model.Object](list func(s *model.State) *[]T, find func(p *pass) ([]T, error)) func(context.Context, *Kernel, *pass, model.State, *model.State) error {
	return func(_ context.Context, _ *Kernel, p *pass, _ model.State, have *model.State) (err error) {
		*list(have), err = find(p)
		return err
	}
}
