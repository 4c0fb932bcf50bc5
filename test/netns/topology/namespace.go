// Package topology builds networks of namespaces for tests: an underlay that
// joins nodes and a host outside the cluster, and namespaces for pods. It gives
// tests real packets to send through them. What runs on the nodes is left to the
// tests.
//
// A namespace lives as long as the test's process holds it open, so that nothing
// is left behind, not even by a test that was killed; and nothing is made in the
// namespace in which the test was started.
package topology

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
)

// Require fails the test where namespaces cannot be made, with a sentence that
// says what is missing.
func Require(t testing.TB) {
	t.Helper()
	if err := Check(); err != nil {
		t.Fatal(err)
	}
}

// Check returns an error where namespaces cannot be made.
func Check() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("these tests make network namespaces and have to run as root: run them as root, or leave them out with SKIP_TIERS=netns")
	}
	for _, command := range []string{"nft", "ip", "sysctl"} {
		if _, err := exec.LookPath(command); err != nil {
			return fmt.Errorf("these tests run %s, which is missing: %w", command, err)
		}
	}
	n, err := ns.TempNetNS()
	if err != nil {
		return fmt.Errorf("these tests cannot make network namespaces here: %w", err)
	}
	return n.Close()
}

// Namespace is a network namespace of a test.
type Namespace struct {
	// Name says what it stands for, in messages.
	Name string
	ns   ns.NetNS
}

// NewNamespace makes a namespace, with its loopback up, that goes with the test.
func NewNamespace(t testing.TB, name string) *Namespace {
	t.Helper()
	made, err := ns.TempNetNS()
	if err != nil {
		t.Fatalf("make namespace %s: %v", name, err)
	}
	t.Cleanup(func() { made.Close() })
	n := &Namespace{Name: name, ns: made}
	n.Run(t, "ip", "link", "set", "lo", "up")
	return n
}

// Path is the path by which other code opens the namespace.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd()) }

// Close gives the namespace up before the test ends, as when a pod is gone.
func (n *Namespace) Close(t testing.TB) {
	t.Helper()
	if err := n.ns.Close(); err != nil {
		t.Fatalf("close namespace %s: %v", n.Name, err)
	}
}

// Try runs f on a thread that is in the namespace. Sockets that f opens stay in
// it when f has returned.
func (n *Namespace) Try(f func() error) error {
	if err := n.ns.Do(func(ns.NetNS) error { return f() }); err != nil {
		return fmt.Errorf("in namespace %s: %w", n.Name, err)
	}
	return nil
}

// Do is Try, and fails the test on an error.
func (n *Namespace) Do(t testing.TB, f func() error) {
	t.Helper()
	if err := n.Try(f); err != nil {
		t.Fatal(err)
	}
}

// Run runs a command in the namespace, and returns what it prints.
func (n *Namespace) Run(t testing.TB, command ...string) string {
	t.Helper()
	var out []byte
	n.Do(t, func() error {
		var err error
		// A process begins in the namespace of the thread that starts it.
		out, err = exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
		}
		return nil
	})
	return string(out)
}

// Script runs several lines of commands, such as "ip link add …", one after the other.
func (n *Namespace) Script(t testing.TB, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if fields := strings.Fields(line); len(fields) > 0 {
			n.Run(t, fields...)
		}
	}
}

// Sysctl sets a parameter of the namespace, by its path below /proc/sys.
func (n *Namespace) Sysctl(t testing.TB, key, value string) {
	t.Helper()
	n.Do(t, func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

// ReadSysctl returns a parameter of the namespace.
func (n *Namespace) ReadSysctl(t testing.TB, key string) string {
	t.Helper()
	var text []byte
	n.Do(t, func() error {
		var err error
		text, err = os.ReadFile("/proc/sys/" + key)
		return err
	})
	return strings.TrimSpace(string(text))
}

// Fd is the namespace's file, for the netlink library.
func (n *Namespace) Fd() int { return int(n.ns.Fd()) }

// isTimeout says whether a socket's error is that nothing came in time.
func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}
