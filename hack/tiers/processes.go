package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// terminate asks a process and all that it started to end, and to clean up.
func terminate(process int) {
	children := childrenOf(process)
	// First whoever would go on when a child has ended.
	//nolint:errcheck // it may have ended just now
	syscall.Kill(process, syscall.SIGTERM)
	for _, child := range children {
		terminate(child)
	}
}

// childrenOf lists the processes that a process has started (proc_pid_stat(5)).
func childrenOf(process int) []int {
	var children []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // The pattern is well formed.
	for _, file := range stats {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // It has ended.
		}
		var child, parent int
		var state string
		_, after, _ := strings.Cut(string(content), ") ")
		_, fields := fmt.Sscan(after, &state, &parent)
		if _, err := fmt.Sscan(string(content), &child); err == nil && fields == nil && parent == process {
			children = append(children, child)
		}
	}
	return children
}
