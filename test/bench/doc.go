// Package bench holds the benchmarks that need an API server and etcd: `make bench`
// runs them, and docs/benchmarks.md says what they show. They run the manager as
// users do, as a program of its own with the rights of its role.
package bench
