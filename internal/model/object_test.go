package model_test

import (
	"reflect"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Whoever adds a kind of objects adds a field to State and a line to Lists, and no more there.
func TestEveryKindOfAStateIsListed(t *testing.T) {
	var s model.State
	fields := reflect.ValueOf(&s).Elem()
	if lists := s.Lists(); len(lists) != fields.NumField() {
		t.Fatalf("a State has %d fields and %d lists", fields.NumField(), len(lists))
	}
	for i := range fields.NumField() {
		one := reflect.New(fields.Field(i).Type().Elem()).Elem().Interface()
		o, ok := one.(model.Object)
		if !ok {
			t.Errorf("%T is no Object", one)
			continue
		}
		for _, l := range s.Lists() {
			if l.Kind() == o.ObjectKind() {
				l.Add(o)
			}
		}
		if fields.Field(i).Len() != 1 {
			t.Errorf("no list of kind %q leads to the %Ts of a State", o.ObjectKind(), one)
		}
	}
	kinds, identities := map[model.ObjectKind]bool{}, map[any]bool{}
	for _, l := range s.Lists() {
		if l.Kind() == "" || kinds[l.Kind()] {
			t.Errorf("kind %q is none, or there twice", l.Kind())
		}
		kinds[l.Kind()] = true
		l.Each(func(o model.Object) {
			if o.Describe() == "" || identities[o.Identity()] {
				t.Errorf("a %s has no name, or the identity of another kind's", o.ObjectKind())
			}
			identities[o.Identity()] = true
		})
	}
	if put, del := s.Lists()[0].Changes(s.Lists()[0]); len(put)+len(del) > 0 {
		t.Errorf("a list differs from itself: %v, %v", put, del)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	s := model.State{
		Routes:   []model.Route{{Table: 2}, {Table: 1}},
		Firewall: []model.Table{{Table: nft.Table{Sets: []nft.Set{{Elements: []nft.Element{{Key: []string{"b"}}, {Key: []string{"a"}}}}}}}},
	}
	c := s.Clone()
	c.Sort()
	if s.Routes[0].Table != 2 || s.Firewall[0].Sets[0].Elements[0].Key[0] != "b" || c.Routes[0].Table != 1 {
		t.Errorf("sorting a copy changes what it is of: %+v", s)
	}
}
