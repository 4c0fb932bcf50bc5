// Package agent holds the benchmarks of one node's agent beside few and many peers:
// the agent's own loop, plan and prober, a real kernel in a network namespace (as
// root), and a cluster whose objects and nodes are made up. `make bench` runs them, and
// docs/benchmarks.md says what they show.
package agent
