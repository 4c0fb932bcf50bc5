// Package agent holds the benchmarks of one node's agent beside few and many peers, and
// with few and many policies: the agent's own loops, plan and prober, a real kernel in a
// network namespace (as root), and a cluster whose nodes are made up; of its objects
// an API server tells where there are thousands of pods. `make bench` runs them, and
// docs/benchmarks.md says what they show.
package agent
