// Package difftest holds a kernel for tests: it keeps a model.State in memory
// and refuses and forgets what a real kernel does, as far as the order of
// operations depends on it. What an operation means to netlink and nft is left
// to agent/kernel.
package difftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/nft/nfttest"
)

// Fake is a kernel in memory.
type Fake struct {
	// HostLinks are links besides lo that podnet did not make, such as eth0 and
	// pods' veths.
	HostLinks []string
	// Executed are the operations that were executed.
	Executed []diff.Op

	state model.State
	nft   *nfttest.Fake
}

// New returns a kernel with these links, in a state that is taken over as it is.
func New(state model.State, hostLinks ...string) *Fake {
	var tables []nft.Table
	for _, t := range state.Firewall {
		tables = append(tables, t.Table)
	}
	state.Firewall = nil
	return &Fake{HostLinks: hostLinks, state: state.Clone(), nft: nfttest.New(tables...)}
}

// Observe returns the state, and of parameters those that want names.
func (f *Fake) Observe(_ context.Context, want model.State) (model.State, error) {
	s := f.observed()
	s.Sysctls = nil
	for _, w := range want.Sysctls {
		for _, have := range f.state.Sysctls {
			if have.Key == w.Key {
				s.Sysctls = append(s.Sysctls, have)
			}
		}
	}
	return s, nil
}

// State returns everything that was made, sorted.
func (f *Fake) State() model.State {
	s := f.observed()
	s.Sort()
	slices.SortFunc(s.Sysctls, func(a, b model.Sysctl) int { return strings.Compare(a.Key, b.Key) })
	return s
}

// Execute performs operations in their order, all of them also after one fails.
func (f *Fake) Execute(ctx context.Context, ops []diff.Op) error {
	var errs []error
	for _, op := range ops {
		f.Executed = append(f.Executed, op)
		if err := f.execute(ctx, op); err != nil {
			errs = append(errs, fmt.Errorf("%s %+v: %w", op.Verb, op.Object, err))
		}
	}
	return errors.Join(errs...)
}

func (f *Fake) execute(ctx context.Context, op diff.Op) error {
	put := op.Verb == diff.Put
	switch o := op.Object.(type) {
	case model.Link:
		return f.link(put, o)
	case model.Address:
		return f.address(put, o)
	case model.Route:
		return f.route(put, o)
	case model.Port:
		if !put || !f.hasLink(o.Link) {
			return errNoLink
		}
	case model.Sysctl:
		return f.sysctl(put, o)
	case model.Table:
		if put {
			return f.nft.Do(ctx, nft.Put{Table: o.Table})
		}
		return f.nft.Do(ctx, nft.DeleteTable{Family: o.Family, Name: o.Name})
	case diff.Elements:
		change := nft.Change{Family: o.Family, Table: o.Table}
		if put {
			change.Add = []nft.Elements{o.Elements}
		} else {
			change.Delete = []nft.Elements{o.Elements}
		}
		return f.nft.Do(ctx, change)
	}
	if on := op.Object.On(); put && on != "" && !f.hasLink(on) {
		return errNoLink
	}
	f.set(op.Object, put)
	return nil
}

// set puts an object in place of the one of its identity, or takes that one out.
func (f *Fake) set(o model.Object, put bool) {
	for _, list := range f.state.Lists() {
		if list.Kind() != o.ObjectKind() {
			continue
		}
		list.Remove(func(have model.Object) bool { return have.Identity() == o.Identity() })
		if put {
			list.Add(o)
		}
	}
}

var errNoLink = errors.New("no such link")

// set puts an object in place of the one that is the same, or takes that one out.
func set[T any](list []T, o T, put bool, same func(T) bool) []T {
	list = slices.DeleteFunc(slices.Clone(list), same)
	if put {
		list = append(list, o)
	}
	return list
}

func (f *Fake) hasLink(name string) bool {
	return name == "lo" || slices.Contains(f.HostLinks, name) ||
		slices.ContainsFunc(f.state.Links, func(l model.Link) bool { return l.Name == name })
}

// link makes, changes or removes a link. The kind, the network identifier and the
// port cannot be changed, and with a link goes everything that is on it.
func (f *Fake) link(put bool, o model.Link) error {
	i := slices.IndexFunc(f.state.Links, func(l model.Link) bool { return l.Name == o.Name })
	if put {
		if i >= 0 {
			was := f.state.Links[i]
			was.MAC, was.MTU, was.Local, was.Underlay = o.MAC, o.MTU, o.Local, o.Underlay
			if was != o {
				return errors.New("cannot be changed in place")
			}
		}
		f.set(o, true)
		return nil
	}
	if i < 0 {
		return nil
	}
	f.set(o, false)
	for _, a := range slices.Clone(f.state.Addresses) {
		if a.Link == o.Name {
			if err := f.address(false, a); err != nil {
				return err
			}
		}
	}
	for _, list := range f.state.Lists() {
		list.Remove(func(on model.Object) bool { return on.On() == o.Name })
	}
	return nil
}

// address adds or removes an address. One link has an address once, whatever its
// prefix length, as IPv6 has it. A route whose source leaves the node goes with it.
func (f *Fake) address(put bool, o model.Address) error {
	if !put {
		f.set(o, false)
		f.state.Routes = slices.DeleteFunc(slices.Clone(f.state.Routes), func(r model.Route) bool {
			return r.Src == o.Addr.Addr()
		})
		return nil
	}
	if !f.hasLink(o.Link) {
		return errNoLink
	}
	if slices.ContainsFunc(f.state.Addresses, func(a model.Address) bool {
		return a != o && a.Link == o.Link && a.Addr.Addr() == o.Addr.Addr()
	}) {
		return errors.New("the link has the address")
	}
	f.set(o, true)
	return nil
}

func (f *Fake) route(put bool, o model.Route) error {
	if put && !o.Unreachable && !f.hasLink(o.Link) {
		return errNoLink
	}
	if put && o.Src.IsValid() && !slices.ContainsFunc(f.state.Addresses, func(a model.Address) bool { return a.Addr.Addr() == o.Src }) {
		return errors.New("the source is no address of the node")
	}
	f.set(o, put)
	return nil
}

func (f *Fake) sysctl(put bool, o model.Sysctl) error {
	if !put {
		return errors.New("parameters cannot be deleted")
	}
	if link := o.On(); link != "" && link != "all" && link != "default" && !f.hasLink(link) {
		return errNoLink
	}
	f.set(o, true)
	return nil
}

// observed copies the state as a kernel shows it.
func (f *Fake) observed() model.State {
	s := f.state.Clone()
	for _, t := range f.nft.Tables() {
		s.Firewall = append(s.Firewall, model.Table{Table: t})
	}
	return s
}
