package diff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// Repair is something that was not as podnet had left it, and was put right.
type Repair struct {
	// Kind is the ObjectKind.
	Kind string
	// Found is a clause that says what was found, without a full stop.
	Found string
}

// Repairs returns which operations, which turn have into something, undo what
// somebody else did: those on objects of which w, which was wanted before and was
// in force, wants the same. What goes with another object is not named for itself:
// what is on a link with the link, and a route with the address that is its source.
// Of moved, the names of links that are not podnet's and went down, away or came
// up meanwhile, the kernel itself removes what leads there: that is nobody's doing.
func (w *Wanted) Repairs(ops []Op, have model.State, moved map[string]bool) []Repair {
	r := repairs{
		before: w, found: NewWanted(have), have: have, moved: moved, lost: map[string]bool{}, lost6: map[string]bool{},
		sysctls: map[string]bool{},
	}
	for _, op := range ops {
		if s, ok := op.Object.(model.Sysctl); ok {
			r.sysctls[s.Key] = true
		}
	}
	for _, op := range ops {
		r.add(op)
	}
	return r.out
}

type repairs struct {
	before, found *Wanted
	have          model.State
	moved         map[string]bool
	// lost are the links that are missing, down or recreated, and lostAddrs the
	// addresses that are: what is on them, or has them as source, is no news.
	lost      map[string]bool
	lostAddrs []model.Address
	// lost6 are the links on which IPv6 was turned off, which takes along what they have of it.
	lost6 map[string]bool
	// sysctls are the keys of all parameters that are set.
	sysctls map[string]bool
	out     []Repair
}

func (r *repairs) add(op Op) {
	switch o := op.Object.(type) {
	case model.Link:
		r.link(op.Verb, o)
	case model.Table:
		r.table(op.Verb, o)
	case Elements:
		r.elements(op.Verb, o)
	case model.Address:
		if op.Verb == Put {
			r.lostAddrs = append(r.lostAddrs, o)
		}
		r.object(op)
	case model.Route:
		if !r.moved[o.Link] && !r.withoutSource(o) {
			r.object(op)
		}
	case model.Sysctl:
		if r.moved[o.On()] || r.sysctls[switchOf(o)] {
			return
		}
		if o.Key == "net/ipv6/conf/"+o.On()+"/disable_ipv6" {
			r.lost6[o.On()] = true
		}
		r.object(op)
	default:
		r.object(op)
	}
}

// object reports what one operation undid.
func (r *repairs) object(op Op) {
	o, key := op.Object, op.Object.Identity()
	want, wanted := r.before.objects[key]
	was, there := r.found.objects[key].(model.Object)
	switch {
	case r.lost[o.On()] || r.lost6[o.On()] && o.IP().Is6():
	case op.Verb == Delete && r.before.strange(key):
		r.report(o, "%s had been added", o.Describe())
	case op.Verb == Delete || !wanted || want != o:
		// The objects ask for something else than before.
	case there:
		r.report(o, "%s had been changed to %s", o.Describe(), was.Detail(o))
	default:
		r.report(o, "%s was missing", o.Describe())
	}
}

// switchOf is the parameter that sets a link's forwarding with those of all others; empty
// where there is none, as for itself.
func switchOf(s model.Sysctl) string {
	link, name := s.On(), s.Key[strings.LastIndexByte(s.Key, '/')+1:]
	switch {
	case link == "" || link == "all" || name != "forwarding":
		return ""
	case strings.HasPrefix(s.Key, "net/ipv4/"):
		return "net/ipv4/ip_forward"
	default:
		return "net/ipv6/conf/all/forwarding"
	}
}

func (r *repairs) report(o model.Object, format string, args ...any) {
	r.out = append(r.out, Repair{Kind: string(o.ObjectKind()), Found: fmt.Sprintf(format, args...)})
}

// withoutSource reports whether a route had to be put because its source was.
func (r *repairs) withoutSource(o model.Route) bool {
	return slices.ContainsFunc(r.lostAddrs, func(a model.Address) bool { return a.Addr.Addr() == o.Src })
}

// link reports what was found of a link. One that is removed only to be recreated is reported when
// it is put.
func (r *repairs) link(verb Verb, o model.Link) {
	want, wanted := r.before.objects[o.Identity()]
	was, there := r.found.objects[o.Identity()].(model.Link)
	if verb == Delete {
		r.lost[o.Name] = true
		if r.before.strange(o.Identity()) {
			r.report(o, "%s had been added", o.Describe())
		}
		return
	}
	inPlace := there && !r.lost[o.Name]
	if !inPlace || was.MTU == 0 {
		r.lost[o.Name] = true
	}
	if !wanted || want != o || r.moved[o.Underlay] {
		return
	}
	switch {
	case !there:
		r.report(o, "%s was missing", o.Describe())
	case !inPlace:
		r.report(o, "%s had been replaced by another", o.Describe())
	case was.MTU == 0:
		r.report(o, "%s was down", o.Describe())
	case was.MAC != o.MAC:
		r.report(o, "%s had the MAC %s in place of %s", o.Describe(), was.MAC, o.MAC)
	case was.Local != o.Local || was.Underlay != o.Underlay:
		r.report(o, "%s sent from %s on %s in place of %s on %s", o.Describe(), was.Local, was.Underlay, o.Local, o.Underlay)
	default:
		r.report(o, "%s had an MTU of %d in place of %d", o.Describe(), was.MTU, o.MTU)
	}
}

func (r *repairs) table(verb Verb, o model.Table) {
	key := o.Identity()
	was, wanted := r.before.objects[key]
	_, there := r.found.objects[key]
	switch {
	case verb == Delete && r.before.strange(key):
		r.report(o, "%s had been added", o.Describe())
	case verb == Delete || !wanted || was != o.Structure():
	case there:
		r.report(o, "%s had other chains, rules or sets", o.Describe())
	default:
		r.report(o, "%s was missing", o.Describe())
	}
}

func (r *repairs) elements(verb Verb, o Elements) {
	var keys []string
	for _, e := range o.List {
		key := r.before.elementKey(setKey{o.Family, o.Table, o.Set}, e)
		value, wanted := r.before.objects[key]
		if verb == Put && wanted && value == valueOf(e) || verb == Delete && r.before.strange(key) {
			keys = append(keys, strings.Join(e.Key, " . "))
		}
	}
	if len(keys) == 0 {
		return
	}
	what := keys[0]
	if len(keys) > 1 {
		what += fmt.Sprintf(" and %d more", len(keys)-1)
	}
	how := "was missing"
	if verb == Delete {
		how = "had been added"
	}
	r.report(o, "%s in set %s of nft table %s %s %s", what, o.Set, o.Family, o.Table, how)
}
