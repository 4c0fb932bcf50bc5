package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// outcome is what became of a tier.
type outcome struct {
	tier
	skipped bool
	err     error
	took    time.Duration
	tests   []test
	// brief is what somebody wants to read who does not look for anything: what
	// failed, and a line for each package.
	brief strings.Builder
}

// test is one that came to its end.
type test struct {
	tier, name    string
	ended         time.Time
	took, allowed time.Duration
}

func (o *outcome) String() string {
	switch {
	case o.skipped:
		return "SKIPPED, as SKIP_TIERS asks: nothing of it was tested"
	case o.took == 0:
		return "NOT RUN: it was interrupted"
	case o.err != nil:
		return fmt.Sprintf("FAILED (%.0f s): %v", o.took.Seconds(), o.err)
	}
	return fmt.Sprintf("passed (%.0f s)", o.took.Seconds())
}

func logOf(folder, tier string) string { return filepath.Join(folder, tier+".log") }

// run makes the tier's target, and writes all that it prints to a file.
func (o *outcome) run(folder string) {
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	log, err := os.Create(logOf(folder, o.name))
	if err != nil {
		o.err = err
		return
	}
	defer log.Close()
	specs := filepath.Join(folder, o.name+"-specs.json")
	if err := os.RemoveAll(specs); err != nil {
		o.err = err
		return
	}
	c := newCollector(o, log)
	err = c.follow(exec.Command("make", "--no-print-directory", "test-"+o.name, "SPECS="+specs,
		"TESTFLAGS="+strings.TrimSpace(os.Getenv("TESTFLAGS")+" -json")))
	c.rest()
	o.err = errors.Join(o.err, err, o.readSpecs(specs))
}

// follow runs a command and reads its lines.
func (c *collector) follow(cmd *exec.Cmd) error {
	cmd.Env = append(os.Environ(), "GINKGO_NO_COLOR=true")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var reading sync.WaitGroup
	for _, pipe := range []io.Reader{stdout, stderr} {
		reading.Go(func() {
			for lines := bufio.NewReader(pipe); ; {
				line, err := lines.ReadString('\n')
				c.line(line)
				if err != nil {
					return
				}
			}
		})
	}
	reading.Wait()
	return cmd.Wait()
}

// checkBudgets fails the tier for tests that took more than what they are allowed twice over.
// A busy machine takes longer for what it computes: that is taken off.
func (o *outcome) checkBudgets(load *meter) {
	for _, t := range o.tests {
		stretch := load.stretch(t.ended.Add(-t.took), t.ended)
		if alone := time.Duration(float64(t.took) / stretch); t.allowed > 0 && alone > 2*t.allowed {
			o.err = errors.Join(o.err, fmt.Errorf("%s took %.1f s on a machine that was %.1f times as slow as when idle, and its budget is %s",
				t.name, t.took.Seconds(), stretch, t.allowed))
		}
	}
}
