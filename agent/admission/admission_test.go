package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// server answers writes of statuses by node, and notes for which nodes it was asked.
type server struct {
	client.SubResourceWriter
	answers map[string]error
	asked   []string
	dry     bool
}

func (s *server) Status() client.SubResourceWriter { return s }

func (s *server) Patch(_ context.Context, o client.Object, _ client.Patch, options ...client.SubResourcePatchOption) error {
	var applied client.SubResourcePatchOptions
	applied.ApplyOptions(options)
	s.dry = len(applied.DryRun) == 1
	s.asked = append(s.asked, o.GetName())
	return s.answers[o.GetName()]
}

var (
	kind      = schema.GroupResource{Group: "podnet.dev", Resource: "nodenetworks"}
	forbidden = apierrors.NewForbidden(kind, "b", errors.New("of its own node only"))
	invalid   = apierrors.NewInvalid(schema.GroupKind{Group: "podnet.dev", Kind: "NodeNetwork"}, "b", nil)
	missing   = apierrors.NewNotFound(kind, "b")
)

func TestGuardTellsWhetherAgentsAreHeldToTheirNodes(t *testing.T) {
	for name, c := range map[string]struct {
		nodes   []string
		answers map[string]error
		open    bool
		asked   int
	}{
		"the write is taken":                {nodes: []string{"a", "b", "b"}, open: true, asked: 1},
		"the write is forbidden":            {nodes: []string{"a", "b"}, answers: map[string]error{"b": forbidden}, asked: 1},
		"a policy finds the write invalid":  {nodes: []string{"a", "b"}, answers: map[string]error{"b": invalid}, asked: 1},
		"there is no other node":            {nodes: []string{"a", "a"}},
		"the other node has not joined yet": {nodes: []string{"b", "a"}, answers: map[string]error{"b": missing}, asked: 1},
		"one of two has not joined yet":     {nodes: []string{"b", "c"}, answers: map[string]error{"b": missing, "c": missing}, asked: 2},
		"none of many has": {nodes: []string{"b", "c", "d", "e", "f"}, asked: tries, answers: map[string]error{
			"b": missing, "c": missing, "d": missing, "e": missing, "f": missing,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{answers: c.answers}
			changes := 0
			g := &Guard{Client: s, Node: "a", Nodes: func(context.Context) ([]string, error) { return c.nodes, nil }, Changed: func() { changes++ }}
			for range 2 {
				s.asked = nil
				if err := g.Check(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if found := g.Findings(); (len(found) == 1) != c.open {
				t.Errorf("found %v", found)
			}
			if (changes == 1) != c.open {
				t.Errorf("%d changes were reported", changes)
			}
			if len(s.asked) != c.asked || len(s.asked) > 0 && !s.dry {
				t.Errorf("asked for %v, dry run: %t", s.asked, s.dry)
			}
		})
	}
}

func TestWhatWasFoundStaysUntilTheAnswerIsAnother(t *testing.T) {
	s := &server{}
	g := &Guard{Client: s, Node: "a", Nodes: func(context.Context) ([]string, error) { return []string{"b"}, nil }, Changed: func() {}}
	if err := g.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.answers = map[string]error{"b": errors.New("away")}
	if err := g.Check(t.Context()); err == nil || len(g.Findings()) != 1 || !strings.Contains(g.Findings()[0].Message, "(b)") {
		t.Errorf("%v, %v", err, g.Findings())
	}
	s.answers = map[string]error{"b": forbidden}
	if err := g.Check(t.Context()); err != nil || len(g.Findings()) != 0 {
		t.Errorf("%v, %v", err, g.Findings())
	}
}
