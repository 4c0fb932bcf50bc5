package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// budgetKey is what a test states a budget of its own by: t.Attr("budget", "2m"), or
// Label("budget:2m") in Ginkgo.
const budgetKey = "budget"

// event is a line of `go test -json`; `go doc test2json` explains it.
type event struct {
	Time                          time.Time
	Action, Package, Test, Output string
	Elapsed                       float64
	Key, Value                    string
}

// collector reads what a tier prints.
type collector struct {
	*outcome
	mu  sync.Mutex
	log io.Writer
	// packages are those whose end has not been read.
	packages map[string]*running
}

// running is a package whose tests run.
type running struct {
	// order has the tests that have begun; "" stands for the package itself.
	order   []string
	output  map[string]*strings.Builder
	passed  map[string]bool
	budgets map[string]time.Duration
	tests   []test
}

func newCollector(o *outcome, log io.Writer) *collector {
	return &collector{outcome: o, log: log, packages: map[string]*running{}}
}

// line takes a line, which is an event of a test or, for example, what the linker says.
func (c *collector) line(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(c.log, line)
		c.brief.WriteString(line)
		return
	}
	fmt.Fprint(c.log, e.Output)
	if e.Package == "" {
		c.brief.WriteString(e.Output) // of the compiler
		return
	}
	c.event(e)
}

func (c *collector) event(e event) {
	p := c.packages[e.Package]
	if p == nil {
		p = &running{output: map[string]*strings.Builder{}, passed: map[string]bool{}, budgets: map[string]time.Duration{}}
		c.packages[e.Package] = p
	}
	if p.output[e.Test] == nil {
		p.order = append(p.order, e.Test)
		p.output[e.Test] = &strings.Builder{}
	}
	switch e.Action {
	case "output":
		p.output[e.Test].WriteString(e.Output)
	case "attr":
		if budget, err := time.ParseDuration(e.Value); e.Key == budgetKey {
			p.budgets[e.Test] = budget
			c.err = errors.Join(c.err, err)
		}
	case "pass", "skip", "fail":
		p.passed[e.Test] = e.Action != "fail"
		if e.Test == "" {
			c.end(e.Package)
			return
		}
		p.tests = append(p.tests, test{tier: c.name, name: path.Base(e.Package) + "." + e.Test, ended: e.Time,
			took: time.Duration(e.Elapsed * float64(time.Second)), allowed: p.budget(e.Test, c.budget)})
	}
}

// budget is what a test states, or that within which it runs, or else the tier.
func (p *running) budget(name string, otherwise time.Duration) time.Duration {
	for name != "." && name != "" {
		if own, stated := p.budgets[name]; stated {
			return own
		}
		name = path.Dir(name)
	}
	return otherwise
}

// end takes what is known of a package. Of one that failed, what was printed by tests
// that did not pass is shown; of others, the last line.
func (c *collector) end(name string) {
	p := c.packages[name]
	delete(c.packages, name)
	for _, t := range p.order {
		if output := p.output[t].String(); t != "" && !p.passed[t] {
			c.brief.WriteString(output)
		}
	}
	var output string
	if p.output[""] != nil {
		output = p.output[""].String()
	}
	if p.passed[""] {
		output = output[strings.LastIndex(strings.TrimSuffix(output, "\n"), "\n")+1:]
	}
	c.brief.WriteString(output)
	// A test with others in it took what they took.
	for _, t := range p.tests {
		if !slices.ContainsFunc(p.tests, func(other test) bool { return strings.HasPrefix(other.name, t.name+"/") }) {
			c.tests = append(c.tests, t)
		}
	}
}

// rest shows what was printed in packages that did not come to their end.
func (c *collector) rest() {
	for name := range c.packages {
		c.end(name)
	}
}

// readSpecs takes the specs of Ginkgo's report, where there is one, for the one test
// that they are to Go.
func (o *outcome) readSpecs(file string) error {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var reports []types.Report
	if err := json.Unmarshal(content, &reports); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for _, report := range reports {
		suite := path.Base(report.SuitePath) + "."
		o.tests = slices.DeleteFunc(o.tests, func(t test) bool { return strings.HasPrefix(t.name, suite) })
		for _, s := range report.SpecReports {
			t := test{tier: o.name, name: s.FullText(), ended: s.EndTime, took: s.RunTime, allowed: o.budget}
			for _, label := range s.Labels() {
				if stated, is := strings.CutPrefix(label, budgetKey+":"); is {
					if t.allowed, err = time.ParseDuration(stated); err != nil {
						return fmt.Errorf("%s: %w", t.name, err)
					}
				}
			}
			if s.LeafNodeType == types.NodeTypeIt {
				o.tests = append(o.tests, t)
			}
		}
	}
	return nil
}
