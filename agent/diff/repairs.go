package diff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// Repair is something that was not as podnet had left it, and was put right.
type Repair struct {
	// Kind is link, port, address, route, rule, neighbour, fdb, sysctl or firewall.
	Kind string
	// Found is a clause that says what was found, without a full stop.
	Found string
}

// Repairs tells which operations, which turn have into something, undo what
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
	// lost are the links that are missing, down or made anew, and lostAddrs the
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
		r.object("address", op, o.Link, "")
	case model.Route:
		if r.moved[o.Link] || r.withoutSource(o) {
			return
		}
		r.object("route", op, o.Link, r.was(o))
	case model.Rule:
		r.object("rule", op, "", "")
	case model.Neighbour:
		was, _ := r.found.objects[identity(o)].(model.Neighbour)
		r.object("neighbour", op, o.Link, was.MAC.String())
	case model.FDBEntry:
		was, _ := r.found.objects[identity(o)].(model.FDBEntry)
		r.object("fdb", op, o.Link, was.Endpoint.String())
	case model.Port:
		was, _ := r.found.objects[identity(o)].(model.Port)
		r.object("port", op, o.Bridge, Describe(was))
	case model.Sysctl:
		link := sysctlLink(o.Key)
		if r.moved[link] || r.sysctls[switchOf(o.Key)] {
			return
		}
		if o.Key == "net/ipv6/conf/"+link+"/disable_ipv6" {
			r.lost6[link] = true
		}
		was, _ := r.found.objects[identity(o)].(model.Sysctl)
		r.object("sysctl", op, link, was.Value)
	}
}

// object tells of one operation. The object is on a link, if that is not empty,
// and was found as the last argument says, if it was found.
func (r *repairs) object(kind string, op Op, link, was string) {
	want, wanted := r.before.objects[identity(op.Object)]
	_, there := r.found.objects[identity(op.Object)]
	switch {
	case link != "" && r.lost[link] || r.lost6[link] && isIPv6(op.Object):
	case op.Verb == Delete && r.before.strange(identity(op.Object)):
		r.tell(kind, "%s had been added", Describe(op.Object))
	case op.Verb == Delete || !wanted || want != op.Object:
		// The objects ask for something else than before.
	case there:
		r.tell(kind, "%s had been changed to %s", Describe(op.Object), was)
	default:
		r.tell(kind, "%s was missing", Describe(op.Object))
	}
}

// switchOf is the parameter that sets a link's forwarding with those of all others; empty
// where there is none, as for itself.
func switchOf(key string) string {
	link, name := sysctlLink(key), key[strings.LastIndexByte(key, '/')+1:]
	switch {
	case link == "" || link == "all" || name != "forwarding":
		return ""
	case strings.HasPrefix(key, "net/ipv4/"):
		return "net/ipv4/ip_forward"
	default:
		return "net/ipv6/conf/all/forwarding"
	}
}

// isIPv6 reports whether an object is something of IPv6 on a link.
func isIPv6(object any) bool {
	switch o := object.(type) {
	case model.Address:
		return o.Addr.Addr().Is6()
	case model.Route:
		return o.Dst.Addr().Is6()
	case model.Neighbour:
		return o.Addr.Is6()
	}
	return false
}

func (r *repairs) tell(kind, format string, args ...any) {
	r.out = append(r.out, Repair{Kind: kind, Found: fmt.Sprintf(format, args...)})
}

// withoutSource reports whether a route had to be put because its source was.
func (r *repairs) withoutSource(o model.Route) bool {
	return slices.ContainsFunc(r.lostAddrs, func(a model.Address) bool { return a.Addr.Addr() == o.Src })
}

// was tells how a route was found.
func (r *repairs) was(o model.Route) string {
	was, ok := r.found.objects[identity(o)].(model.Route)
	if !ok {
		return ""
	}
	text := Describe(was)
	if text == Describe(o) {
		return fmt.Sprintf("source %s, MTU %d", was.Src, was.MTU)
	}
	return text
}

// link tells of a link. One that is removed only to be made anew is told of when
// it is put.
func (r *repairs) link(verb Verb, o model.Link) {
	want, wanted := r.before.objects[identity(o)]
	was, there := r.found.objects[identity(o)].(model.Link)
	if verb == Delete {
		r.lost[o.Name] = true
		if r.before.strange(identity(o)) {
			r.tell("link", "%s had been added", Describe(o))
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
		r.tell("link", "%s was missing", Describe(o))
	case !inPlace:
		r.tell("link", "%s had been replaced by another", Describe(o))
	case was.MTU == 0:
		r.tell("link", "%s was down", Describe(o))
	case was.MAC != o.MAC:
		r.tell("link", "%s had the MAC %s in place of %s", Describe(o), was.MAC, o.MAC)
	case was.Local != o.Local || was.Underlay != o.Underlay:
		r.tell("link", "%s sent from %s on %s in place of %s on %s", Describe(o), was.Local, was.Underlay, o.Local, o.Underlay)
	default:
		r.tell("link", "%s had an MTU of %d in place of %d", Describe(o), was.MTU, o.MTU)
	}
}

func (r *repairs) table(verb Verb, o model.Table) {
	key := identity(o)
	was, wanted := r.before.objects[key]
	_, there := r.found.objects[key]
	switch {
	case verb == Delete && r.before.strange(key):
		r.tell("firewall", "%s had been added", Describe(o))
	case verb == Delete || !wanted || was != structure(o):
	case there:
		r.tell("firewall", "%s had other chains, rules or sets", Describe(o))
	default:
		r.tell("firewall", "%s was missing", Describe(o))
	}
}

func (r *repairs) elements(verb Verb, o Elements) {
	var keys []string
	for _, e := range o.Elements {
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
	r.tell("firewall", "%s in set %s of nft table %s %s %s", what, o.Set, o.Family, o.Table, how)
}
