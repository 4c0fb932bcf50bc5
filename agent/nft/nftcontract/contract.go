// Package nftcontract says what a Writer of tables promises, as tests that run on every
// kernel that it may work with: the doubles of other tests, and namespaces of a real one.
package nftcontract

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/internal/nft"
)

// name is that of the tables.
const name = "podnet-contract"

// counting counts the steps that are done, and refuses them while refused is set.
type counting struct {
	writer.Kernel
	steps   int
	refused error
}

// Do implements writer.Kernel.
func (c *counting) Do(ctx context.Context, step nft.Step) error {
	c.steps++
	if c.refused != nil {
		return c.refused
	}
	return c.Kernel.Do(ctx, step)
}

// Run runs the suite. A kernel that is given has no tables. In runs something in the
// kernel's namespace.
func Run(t *testing.T, given func(t *testing.T) (kernel writer.Kernel, in func(func() error) error)) {
	for what, test := range map[string]func(*testing.T, *suite){
		"what is written is there":                          written,
		"what is written again changes nothing":             unchanged,
		"a change leads to what is written at once":         changed,
		"a table that is not wanted any more goes":          unwanted,
		"after a refusal all is written":                    refused,
		"what the kernel refuses leaves the table as it is": inconsistent,
		"what a former agent left is replaced":              inherited,
		"elements may be gone already":                      goneElements,
		"nothing is left after a removal":                   removed,
	} {
		t.Run(what, func(t *testing.T) {
			kernel, in := given(t)
			c := &counting{Kernel: kernel}
			test(t, &suite{counting: c, w: writer.NewWriter(c, name, func() {}), in: in})
		})
	}
}

type suite struct {
	*counting
	w  *writer.Writer
	in func(func() error) error
}

// table is a signed table with a set of addresses and a map of them to chains, which count and drop.
func table(family nft.Family, addrs []string, chains ...string) nft.Table {
	t := nft.Table{Family: family, Name: name, Sets: []nft.Set{
		{Name: "addrs", Key: "ipv4_addr"}, {Name: "blocks", Key: "ipv4_addr", Interval: true, Elements: []nft.Element{{Key: []string{"192.0.2.0/24"}}}},
		{Name: "verdicts", Key: "ipv4_addr", Value: "verdict"},
	}, Chains: []nft.Chain{{
		Name: "base", Base: nft.Base{Type: nft.TypeFilter, Hook: nft.Forward, Priority: nft.Priority{Offset: -7}},
		Rules: nft.Rules("ip saddr @addrs drop", "ip saddr vmap @verdicts"),
	}}}
	for i, a := range addrs {
		t.Sets[0].Elements = append(t.Sets[0].Elements, nft.Element{Key: []string{a}})
		if len(chains) > 0 {
			t.Sets[2].Elements = append(t.Sets[2].Elements, nft.Element{Key: []string{a}, Value: []string{"goto " + chains[i%len(chains)]}})
		}
	}
	for _, c := range chains {
		t.Chains = append(t.Chains, nft.Chain{Name: c, Rules: nft.Rules("ip daddr @blocks drop")})
	}
	t.Sort()
	return t
}

func signed(t nft.Table) nft.Table {
	t.Chains = slices.Clone(t.Chains)
	for i := range t.Chains {
		t.Chains[i].Rules = slices.Clone(t.Chains[i].Rules)
	}
	t.Sign()
	return t
}

func (s *suite) write(t *testing.T, tables ...nft.Table) {
	t.Helper()
	if err := s.in(func() error { return s.w.Write(t.Context(), tables) }); err != nil {
		t.Fatal(err)
	}
}

// expect checks that the kernel has tables. Texts of rules are not read.
func (s *suite) expect(t *testing.T, want ...nft.Table) {
	t.Helper()
	var got []nft.Table
	err := s.in(func() (err error) {
		got, err = s.w.Read(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, nft.Table.Compare)
	slices.SortFunc(want, nft.Table.Compare)
	if a, b := describe(got), describe(want); a != b {
		t.Errorf("the kernel has\n%s\nwant\n%s", a, b)
	}
}

// describe writes what can be read back of tables.
func describe(tables []nft.Table) string {
	var out strings.Builder
	line := func(parts ...string) { out.WriteString(strings.Join(parts, " ") + "\n") }
	for _, t := range tables {
		t.Sort()
		line(t.String())
		for _, set := range t.Sets {
			line("set", set.Name, set.Key, set.Value)
			for _, e := range set.Elements {
				line(append(append([]string{" "}, e.Key...), e.Value...)...)
			}
		}
		chains := slices.SortedFunc(slices.Values(t.Chains), func(a, b nft.Chain) int { return cmp.Compare(a.Name, b.Name) })
		for _, c := range chains {
			line("chain", c.Name, string(c.Base.Type), string(c.Base.Hook), c.Base.Priority.String())
			for _, r := range c.Rules {
				line("  rule", r.Fingerprint)
			}
		}
	}
	return out.String()
}

func written(t *testing.T, s *suite) {
	inet, bridge := signed(table(nft.Inet, []string{"10.0.0.1", "10.0.0.2"}, "one")), signed(table(nft.Bridge, nil))
	s.write(t, inet, bridge)
	s.expect(t, inet, bridge)
}

func unchanged(t *testing.T, s *suite) {
	inet := table(nft.Inet, []string{"10.0.0.1"}, "one")
	s.write(t, inet)
	before := s.steps
	s.write(t, inet)
	if s.steps != before {
		t.Errorf("%d steps", s.steps-before)
	}
	s.expect(t, inet)
}

func changed(t *testing.T, s *suite) {
	all := []nft.Table{
		table(nft.Inet, []string{"10.0.0.1", "10.0.0.2"}, "one", "two"),
		table(nft.Inet, []string{"10.0.0.2", "10.0.0.3"}, "two", "three"),
		table(nft.Inet, nil),
		table(nft.Inet, []string{"10.0.0.1"}, "three"),
	}
	for _, want := range all {
		s.write(t, want)
		s.expect(t, want)
	}
	before := s.steps
	s.write(t, all[0])
	// A change, and the deletion of what is old.
	if s.steps > before+2 {
		t.Errorf("%d steps", s.steps-before)
	}
	s.expect(t, all[0])
}

func unwanted(t *testing.T, s *suite) {
	inet := table(nft.Inet, []string{"10.0.0.1"}, "one")
	s.write(t, inet, table(nft.Bridge, nil))
	s.write(t, inet)
	s.expect(t, inet)
}

func refused(t *testing.T, s *suite) {
	first, second := table(nft.Inet, []string{"10.0.0.1"}, "one"), table(nft.Inet, []string{"10.0.0.2"}, "two")
	s.write(t, first)
	s.refused = errors.New("no memory")
	if err := s.w.Write(t.Context(), []nft.Table{second}); !errors.Is(err, s.refused) {
		t.Fatalf("error %v, want %v", err, s.refused)
	}
	s.expect(t, first)
	s.refused = nil
	// What the kernel has is unknown now: something of another kind is replaced too.
	second.Sets[0].Interval = true
	s.write(t, second)
	s.expect(t, second)
}

func inconsistent(t *testing.T, s *suite) {
	first, second := table(nft.Inet, []string{"10.0.0.1"}, "one"), table(nft.Inet, []string{"10.0.0.2"}, "two")
	s.write(t, first)
	second.Chains = second.Chains[:1]
	if err := s.in(func() error { return s.w.Write(t.Context(), []nft.Table{second}) }); err == nil {
		t.Fatal("an element leads to a chain that is not there, and nobody minds")
	}
	s.expect(t, first)
}

func inherited(t *testing.T, s *suite) {
	s.write(t, table(nft.Inet, []string{"10.0.0.1"}, "one"), table(nft.Bridge, nil))
	s.w = writer.NewWriter(s.counting, name, func() {})
	second := table(nft.Inet, []string{"10.0.0.2"}, "two")
	s.write(t, second)
	s.expect(t, second)
}

func goneElements(t *testing.T, s *suite) {
	inet := signed(table(nft.Inet, []string{"10.0.0.1"}, "one"))
	set := func(name, value string, keys ...string) nft.Elements {
		e := nft.Elements{Family: nft.Inet, Table: inet.Name, Set: name, Map: value != ""}
		for _, k := range keys {
			element := nft.Element{Key: []string{k}}
			if value != "" {
				element.Value = []string{value}
			}
			e.List = append(e.List, element)
		}
		return e
	}
	for _, step := range []nft.Step{
		nft.Put{Table: inet},
		nft.ChangeElements{
			Delete: []nft.Elements{set("addrs", "", "10.0.0.1", "10.0.0.9"), set("verdicts", "goto one", "10.0.0.1")},
			Add:    []nft.Elements{set("addrs", "", "10.0.0.3"), set("verdicts", "drop", "10.0.0.1")},
		},
	} {
		if err := s.in(func() error { return s.w.Do(t.Context(), step) }); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
	inet.Sets[0].Elements = []nft.Element{{Key: []string{"10.0.0.3"}}}
	inet.Sets[2].Elements = []nft.Element{{Key: []string{"10.0.0.1"}, Value: []string{"drop"}}}
	s.expect(t, inet)
}

func removed(t *testing.T, s *suite) {
	s.write(t, table(nft.Inet, []string{"10.0.0.1"}, "one"), table(nft.Bridge, nil))
	for range 2 {
		if err := s.in(func() error { return s.w.Remove(t.Context()) }); err != nil {
			t.Fatal(err)
		}
	}
	s.expect(t)
}
