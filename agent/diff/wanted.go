package diff

import (
	"strings"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Sighting is what the kernel reported of one object: how it is now, or that it is gone.
type Sighting struct {
	// Object is one of a State's lists, or an ElementKey. A model.Table says that something
	// of its structure changed, and nil that anything may have changed. What is not podnet's: a
	// model.HostLink says that a link came, went, or changed its state or its MTU, a
	// model.HostAddress that an address came or went, and a model.UnderlayRoute, with its
	// destination alone, that a route of the main table did or was changed.
	Object Seen
	Gone   bool
}

// Seen is something that the kernel reports. Of two sightings of one identity the later counts.
type Seen interface{ Identity() any }

// Wanted is what a kernel shall be, in a form in which single objects are found.
type Wanted struct {
	// objects are by their identity. Of a table it holds the structure, and of an
	// element the value.
	objects map[any]any
	sets    map[setKey]nft.Set
	// retired are the identities of what podnet itself has ceased to want, or could not
	// take away, since the state was made: what is left of it is nobody else's doing.
	retired map[any]bool
	// uses are the links that routes lead to, and those under VXLAN devices.
	uses map[string]bool
}

type setKey struct {
	family     nft.Family
	table, set string
}

// ElementKey names one element of a set or map.
type ElementKey struct {
	Family nft.Family
	Table  string
	Set    string
	// Key is the element's key as the kernel holds it.
	Key string
}

// Identity implements Seen.
func (k ElementKey) Identity() any { return k }

// NewWanted makes a Wanted of a state.
func NewWanted(s model.State) *Wanted {
	w := &Wanted{objects: map[any]any{}, sets: map[setKey]nft.Set{}, retired: map[any]bool{}, uses: map[string]bool{}}
	for _, t := range s.Firewall {
		w.objects[t.Identity()] = t.Structure()
		for _, set := range t.Sets {
			w.sets[setKey{t.Family, t.Name, set.Name}] = nft.Set{Name: set.Name, Key: set.Key, Value: set.Value, Interval: set.Interval, Forgets: set.Forgets}
		}
	}
	for _, l := range s.Links {
		w.uses[l.Underlay] = true
	}
	for _, r := range s.Routes {
		w.uses[r.Link] = true
	}
	delete(w.uses, "")
	w.Add(s)
	return w
}

// Add adds a part, such as a pod's.
func (w *Wanted) Add(part model.State) {
	each(part, func(o model.Object) { w.objects[o.Identity()] = o })
	w.eachElement(part, func(key ElementKey, value string) { w.objects[key] = value })
}

// Remove takes a part out.
func (w *Wanted) Remove(part model.State) {
	each(part, func(o model.Object) { w.retire(o.Identity()) })
	w.eachElement(part, func(key ElementKey, _ string) { w.retire(key) })
}

func (w *Wanted) retire(key any) {
	delete(w.objects, key)
	w.retired[key] = true
}

// Forget takes out what operations were to put, or to take away: they failed.
func (w *Wanted) Forget(ops []Op) {
	for _, op := range ops {
		if e, ok := op.Object.(Elements); ok {
			for _, element := range e.List {
				w.retire(w.elementKey(setKey{e.Family, e.Table, e.Set}, element))
			}
			continue
		}
		w.retire(op.Object.Identity())
	}
}

// Has reports whether an object is wanted as it is.
func (w *Wanted) Has(o model.Object) bool { return w.objects[o.Identity()] == o }

// strange reports whether something that is there, and is not wanted, was brought by
// somebody else.
func (w *Wanted) strange(key any) bool {
	_, wanted := w.objects[key]
	return !wanted && !w.retired[key]
}

// Uses reports whether anything that is wanted leads by a link that is not podnet's.
// Where nothing leads anywhere, any link may be the one that is waited for.
func (w *Wanted) Uses(link string) bool { return w.uses[link] || len(w.uses) == 0 }

// Contradicts reports whether a sighting is not as is wanted. What is not podnet's
// must not be among them: what is there and not wanted contradicts.
func (w *Wanted) Contradicts(s Sighting) bool {
	switch o := s.Object.(type) {
	case nil:
		return true
	case model.Table:
		// What the structure is now is for a pass to find out.
		_, wanted := w.objects[o.Identity()]
		return wanted || !s.Gone
	case ElementKey:
		set, known := w.sets[setKey{o.Family, o.Table, o.Set}]
		if !known || set.Interval {
			return true
		}
		if set.Forgets > 0 {
			return false
		}
		_, wanted := w.objects[o]
		return wanted == s.Gone
	case model.Address:
		// On lo, only those are podnet's.
		if _, wanted := w.objects[o]; !wanted && o.Link == "lo" {
			return false
		}
	case model.Sysctl, model.Port:
		if _, wanted := w.objects[o.Identity()]; !wanted {
			return false
		}
	}
	want, wanted := w.objects[s.Object.Identity()]
	if s.Gone {
		return wanted
	}
	return !wanted || want != s.Object
}

// each calls f with every object of a state but its tables.
func each(s model.State, f func(model.Object)) {
	for _, l := range s.Lists() {
		if l.Kind() != model.KindFirewall {
			l.Each(f)
		}
	}
}

func (w *Wanted) eachElement(s model.State, f func(key ElementKey, value string)) {
	for _, t := range s.Firewall {
		for _, set := range t.Sets {
			for _, e := range set.Elements {
				f(w.elementKey(setKey{t.Family, t.Name, set.Name}, e), valueOf(e))
			}
		}
	}
}

// elementKey is the kernel's key of an element; of a set whose keys cannot be
// written so it is the text.
func (w *Wanted) elementKey(s setKey, e nft.Element) ElementKey {
	key, ok := w.sets[s].KernelKey(e.Key)
	if !ok {
		key = strings.Join(e.Key, " . ")
	}
	return ElementKey{s.family, s.table, s.set, key}
}

func valueOf(e nft.Element) string { return strings.Join(e.Value, " . ") }
