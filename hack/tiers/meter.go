package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// interval is how often the meter looks.
const interval = 500 * time.Millisecond

// meter knows how busy the machine was.
type meter struct {
	mu      sync.Mutex
	samples []sample
}

// sample is how many tasks ran or were ready to at a time.
type sample struct {
	at    time.Time
	tasks int
}

func startMeter(ctx context.Context) *meter {
	m := &meter{}
	go func() {
		for ticker := time.NewTicker(interval); ; {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				if tasks, err := runnable(); err == nil {
					m.add(sample{now, tasks})
				}
			}
		}
	}()
	return m
}

func (m *meter) add(s sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, s)
}

// stretch is by how much a busy machine made computations longer, between two times: by
// nothing (1) where no more tasks wanted to run than it has processors.
func (m *meter) stretch(from, to time.Time) float64 { return m.stretchOn(runtime.NumCPU(), from, to) }

func (m *meter) stretchOn(processors int, from, to time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum float64
	count := 0
	for _, s := range m.samples {
		if s.at.Before(from) || s.at.After(to) {
			continue
		}
		sum += max(1, float64(s.tasks)/float64(processors))
		count++
	}
	if count == 0 {
		return 1
	}
	return sum / float64(count)
}

// runnable reads from the kernel how many tasks run or are ready to (proc_stat(5)).
func runnable() (int, error) {
	content, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var tasks int
	_, after, _ := bytes.Cut(content, []byte("\nprocs_running "))
	if _, err := fmt.Sscan(string(after), &tasks); err != nil {
		return 0, fmt.Errorf("/proc/stat names no procs_running: %w", err)
	}
	return tasks, nil
}
