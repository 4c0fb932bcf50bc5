// Command tiers runs the tiers of tests, those that mostly wait beside those that
// compute. It shows what each printed when it has ended, and after all of them which
// tests were the slowest; a test that takes more than its budget twice over fails its
// tier, which docs/testing.md explains.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tier is a target of the Makefile, and how long one of its tests may take.
type tier struct {
	name   string
	budget time.Duration
}

// lanes are worked off beside each other, the tiers of each one after the other. Only unit
// keeps the processors busy for long; the first is the longest by far.
var lanes = [][]tier{
	{{"cluster", time.Minute}},
	{{"unit", 10 * time.Second}, {"bench", 10 * time.Second}},
	{{"netns", 20 * time.Second}},
	{{"envtest", 20 * time.Second}},
}

// slowest is how many tests are listed.
const slowest = 10

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tiers:", err)
		os.Exit(1)
	}
}

func run() error {
	skip := flag.String("skip", "", "`names` of tiers to leave out, with spaces between them")
	folder := flag.String("logs", filepath.Join("bin", "tests"), "`folder` for all that the tests print")
	flag.Parse()
	skipped := strings.Fields(*skip)
	if err := checkNames(skipped); err != nil {
		return err
	}
	logs, err := filepath.Abs(*folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	ctx, stop := untilSignal()
	defer stop()
	outcomes := runLanes(ctx, logs, skipped)
	if err := summarize(os.Stdout, outcomes); err != nil {
		return err
	}
	return ctx.Err()
}

// untilSignal returns a context that ends with an interrupt, which a terminal tells all
// processes of, those of the tiers too, or when this program is asked to end, which is
// passed on to them.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if <-signals == syscall.SIGTERM {
			for _, child := range childrenOf(os.Getpid()) {
				terminate(child)
			}
		}
		stop()
	}()
	return ctx, stop
}

func checkNames(skipped []string) error {
	var names []string
	for _, lane := range lanes {
		for _, t := range lane {
			names = append(names, t.name)
		}
	}
	for _, name := range skipped {
		if !slices.Contains(names, name) {
			return fmt.Errorf("SKIP_TIERS names %q; the tiers are: %s", name, strings.Join(names, " "))
		}
	}
	return nil
}

// runLanes runs all tiers, and returns what became of each, in the order of lanes.
func runLanes(ctx context.Context, logs string, skipped []string) []*outcome {
	load := startMeter(ctx)
	var all []*outcome
	var running sync.WaitGroup
	var printing sync.Mutex
	for _, lane := range lanes {
		outcomes := make([]*outcome, len(lane))
		for i, t := range lane {
			outcomes[i] = &outcome{tier: t, skipped: slices.Contains(skipped, t.name)}
		}
		all = append(all, outcomes...)
		running.Go(func() {
			for _, o := range outcomes {
				if o.skipped || ctx.Err() != nil {
					continue
				}
				printing.Lock()
				fmt.Printf("=== test-%s runs; %s shows how far it is\n", o.name, logOf(logs, o.name))
				printing.Unlock()
				o.run(logs)
				o.checkBudgets(load)
				printing.Lock()
				fmt.Printf("=== test-%s\n%s", o.name, o.brief.String())
				printing.Unlock()
			}
		})
	}
	running.Wait()
	return all
}

// summarize prints the slowest tests and what became of each tier. It returns an error
// where one failed.
func summarize(out *os.File, outcomes []*outcome) error {
	var tests []test
	for _, o := range outcomes {
		tests = append(tests, o.tests...)
	}
	slices.SortStableFunc(tests, func(a, b test) int { return int(b.took - a.took) })
	fmt.Fprintln(out, "=== the slowest tests")
	for _, t := range tests[:min(slowest, len(tests))] {
		fmt.Fprintf(out, "%6.1f s  %-8s %s\n", t.took.Seconds(), t.tier, t.name)
	}
	fmt.Fprintln(out, "=== the tiers")
	var failed []string
	for _, o := range outcomes {
		fmt.Fprintf(out, "test-%-8s %s\n", o.name, o)
		if o.err != nil {
			failed = append(failed, o.name)
		}
	}
	if len(failed) > 0 {
		return errors.New("these tiers failed, and say why above: " + strings.Join(failed, " "))
	}
	return nil
}
