package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// read has a tier print lines.
func read(t *testing.T, lines ...string) *outcome {
	t.Helper()
	o := &outcome{tier: tier{name: "unit", budget: time.Second}}
	c := newCollector(o, io.Discard)
	for _, line := range lines {
		c.line(line + "\n")
	}
	c.rest()
	return o
}

// event is a line of `go test -json`.
func eventLine(t *testing.T, e event) string {
	t.Helper()
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestShowsWhatFailedAndALineOfWhatPassed(t *testing.T) {
	out := func(pkg, name, text string) string {
		return eventLine(t, event{Action: "output", Package: pkg, Test: name, Output: text + "\n"})
	}
	o := read(t, "+ go test",
		out("x/good", "TestA", "chatter of A"), eventLine(t, event{Action: "pass", Package: "x/good", Test: "TestA"}),
		out("x/good", "", "PASS"), out("x/good", "", "ok x/good 1s"), eventLine(t, event{Action: "pass", Package: "x/good"}),
		out("x/bad", "TestB", "chatter of B"), eventLine(t, event{Action: "pass", Package: "x/bad", Test: "TestB"}),
		out("x/bad", "TestC", "why C failed"), eventLine(t, event{Action: "fail", Package: "x/bad", Test: "TestC"}),
		out("x/bad", "TestD", "D hangs"), out("x/bad", "", "FAIL x/bad"), eventLine(t, event{Action: "fail", Package: "x/bad"}),
		out("x/killed", "TestE", "E was killed"))
	want := "+ go test\nok x/good 1s\nwhy C failed\nD hangs\nFAIL x/bad\nE was killed\n"
	if got := o.brief.String(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestBudgetIsTheTestsOwnOrThatOfItsTier(t *testing.T) {
	o := read(t,
		eventLine(t, event{Action: "attr", Package: "x", Test: "TestLong", Key: "budget", Value: "1m"}),
		eventLine(t, event{Action: "pass", Package: "x", Test: "TestLong/part", Elapsed: 50}),
		eventLine(t, event{Action: "pass", Package: "x", Test: "TestLong", Elapsed: 50}),
		eventLine(t, event{Action: "pass", Package: "x", Test: "TestShort", Elapsed: 1.9}),
		eventLine(t, event{Action: "pass", Package: "x"}))
	o.checkBudgets(&meter{})
	if o.err != nil || len(o.tests) != 2 {
		t.Errorf("%d tests, %v", len(o.tests), o.err)
	}
	o.tests[1].took = 2100 * time.Millisecond
	o.checkBudgets(&meter{})
	if o.err == nil || !strings.Contains(o.err.Error(), "x.TestShort took 2.1 s") {
		t.Error(o.err)
	}
}

func TestBusyMachineIsTakenOffWhatATestTook(t *testing.T) {
	m := &meter{}
	began := time.Unix(100, 0)
	for i := range 10 {
		m.add(sample{began.Add(time.Duration(i) * time.Second), 2 + 4*(i/5)})
	}
	for _, c := range []struct {
		from, to int
		want     float64
	}{{0, 4, 1}, {5, 9, 3}, {0, 9, 2}, {20, 30, 1}} {
		at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
		if got := m.stretchOn(2, at(c.from), at(c.to)); got != c.want {
			t.Errorf("from %d to %d: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if tasks, err := runnable(); err != nil || tasks < 1 {
		t.Errorf("%d tasks run, this one among them: %v", tasks, err)
	}
}

func TestAllThatATierStartedIsAskedToEnd(t *testing.T) {
	tier := exec.Command("sh", "-c", "sh -c 'sleep 3600; true'; true")
	out, err := tier.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tier.Start(); err != nil {
		t.Fatal(err)
	}
	for len(childrenOf(tier.Process.Pid)) == 0 || len(childrenOf(childrenOf(tier.Process.Pid)[0])) == 0 {
		time.Sleep(time.Millisecond)
	}
	terminate(tier.Process.Pid)
	// It ends when the last of them has.
	if _, err := io.ReadAll(out); err != nil {
		t.Fatal(err)
	}
	if err := tier.Wait(); err == nil {
		t.Error("it ended by itself")
	}
}

func TestSpecsStandForTheTestThatRunsThem(t *testing.T) {
	spec := func(name string, labels ...string) types.SpecReport {
		return types.SpecReport{LeafNodeType: types.NodeTypeIt, LeafNodeText: name, RunTime: time.Minute, LeafNodeLabels: labels}
	}
	content, err := json.Marshal([]types.Report{{SuitePath: "/somewhere/cluster", SpecReports: types.SpecReports{
		{LeafNodeType: types.NodeTypeBeforeSuite, RunTime: time.Hour}, spec("quick"), spec("lengthy", "budget:40s"),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "specs.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	o := read(t, eventLine(t, event{Action: "pass", Package: "x/test/cluster", Test: "TestCluster", Elapsed: 100}),
		eventLine(t, event{Action: "pass", Package: "x/test/cluster"}))
	if err := o.readSpecs(file); err != nil {
		t.Fatal(err)
	}
	o.checkBudgets(&meter{})
	if len(o.tests) != 2 || o.tests[0].name != "quick" || o.tests[1].allowed != 40*time.Second {
		t.Errorf("%+v", o.tests)
	}
	if o.err == nil || strings.Contains(o.err.Error(), "lengthy") {
		t.Errorf("a minute is more than a second twice over, and not more than 40 s: %v", o.err)
	}
}
