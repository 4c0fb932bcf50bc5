// Package envtest holds the tests of the CRDs, of the admission policies and of
// the manager that need a real API server and etcd, and nothing else: no node
// runs, and what an agent would report is written by the tests.
package envtest
