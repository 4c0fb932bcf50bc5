package plan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
)

func in(key string, values ...string) model.Selector {
	return model.Selector{{Key: key, Operator: model.In, Values: values}}
}

func TestModeBetweenNodes(t *testing.T) {
	own := map[string]string{"rack": "1", "zone": "a"}
	between := func(priority int32, age time.Duration, name string, mode model.Mode, selectors ...model.Selector) model.RouteMode {
		return model.RouteMode{Name: name, Between: selectors, Mode: mode, Priority: priority, Created: born.Add(-age)}
	}
	for name, c := range map[string]struct {
		rules []model.RouteMode
		other map[string]string
		want  model.Mode
	}{
		"no rule":                       {nil, own, model.ModeAuto},
		"one selector takes both":       {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "1"))}, map[string]string{"rack": "1"}, model.ModeRouted},
		"one selector takes not one":    {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "1"))}, map[string]string{"rack": "2"}, model.ModeAuto},
		"one selector takes not other":  {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "2"))}, map[string]string{"rack": "2"}, model.ModeAuto},
		"two selectors, this one first": {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "1"), in("rack", "2"))}, map[string]string{"rack": "2"}, model.ModeRouted},
		"two selectors, other first":    {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "2"), in("rack", "1"))}, map[string]string{"rack": "2"}, model.ModeRouted},
		"two selectors, both on a side": {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "1"), in("rack", "2"))}, map[string]string{"rack": "1"}, model.ModeAuto},
		"two that select this node":     {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, in("rack", "1"), in("zone", "a"))}, map[string]string{"zone": "a"}, model.ModeRouted},
		"an empty selector is everyone": {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, model.Selector{})}, nil, model.ModeRouted},
		"priority before age":           {[]model.RouteMode{between(1, 0, "x", model.ModeRouted, model.Selector{}), between(0, time.Hour, "y", model.ModeOverlay, model.Selector{})}, nil, model.ModeRouted},
		"age before name":               {[]model.RouteMode{between(0, 0, "x", model.ModeRouted, model.Selector{}), between(0, time.Hour, "y", model.ModeOverlay, model.Selector{})}, nil, model.ModeOverlay},
		"name at last":                  {[]model.RouteMode{between(0, 0, "y", model.ModeOverlay, model.Selector{}), between(0, 0, "x", model.ModeRouted, model.Selector{})}, nil, model.ModeRouted},
		"a rule can say Auto":           {[]model.RouteMode{between(1, 0, "x", model.ModeAuto, model.Selector{}), between(0, 0, "y", model.ModeRouted, model.Selector{})}, nil, model.ModeAuto},
		"no selector takes nobody":      {[]model.RouteMode{between(0, 0, "x", model.ModeRouted)}, nil, model.ModeAuto},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModes(model.ModeAuto, c.rules, own)
			for range 2 { // The second answer comes from memory.
				if got := m.between(c.other).mode; got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			}
		})
	}
}

// Both ends must come to the same mode, or one would wait for the other for ever.
func TestModeIsTheSameFromBothEnds(t *testing.T) {
	rules := []model.RouteMode{
		{Name: "a", Mode: model.ModeRouted, Priority: 3, Between: []model.Selector{in("rack", "1"), in("zone", "x", "y")}},
		{Name: "b", Mode: model.ModeOverlay, Priority: 2, Between: []model.Selector{in("zone", "x"), {{Key: "rack", Operator: model.Exists}}}},
		{Name: "c", Mode: model.ModeRouted, Priority: 1, Between: []model.Selector{{{Key: "rack", Operator: model.DoesNotExist}}}},
	}
	var nodes []map[string]string
	for _, rack := range []string{"", "1", "2"} {
		for _, zone := range []string{"", "x", "y"} {
			labels := map[string]string{}
			if rack != "" {
				labels["rack"] = rack
			}
			if zone != "" {
				labels["zone"] = zone
			}
			nodes = append(nodes, labels)
		}
	}
	for _, a := range nodes {
		for _, b := range nodes {
			one, other := newModes(model.ModeAuto, rules, a).between(b), newModes(model.ModeAuto, rules, b).between(a)
			if one != other {
				t.Errorf("%v to %v is %+v, and back %+v", a, b, one, other)
			}
		}
	}
}

func TestRouteModeDecidesPerPeer(t *testing.T) {
	c := cluster()
	c.Evidence = map[netip.Prefix]model.Evidence{prefix("10.244.1.0/24"): provenPaths}
	c.RouteModes = []model.RouteMode{{Name: "x", Mode: model.ModeRouted, Between: []model.Selector{in("node", "a", "b")}}}
	p := Build(c)
	if got := pathTo(t, p, "10.244.1.0/24"); got.Path != model.PathRouted || got.Want != model.ModeRouted {
		t.Errorf("to b: %+v", got)
	}
	if got := pathTo(t, p, "10.244.2.0/24"); got.Path != model.PathOverlay || got.Want != model.ModeAuto {
		t.Errorf("to c: %+v", got)
	}
}
