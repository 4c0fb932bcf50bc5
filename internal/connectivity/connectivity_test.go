package connectivity

import (
	"context"
	"net/netip"
	"strings"
	"testing"
)

// start runs a server on an address of the loopback interface until the test ends.
func start(t *testing.T, address string, port uint16) *Server {
	t.Helper()
	s, err := Listen(t.Context(), address, port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx); err != nil {
			t.Errorf("serving: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestEveryPeerReachesEveryOther(t *testing.T) {
	port := start(t, "127.0.0.1", 0).Port()
	start(t, "127.0.0.2", port)
	m := Measure(t.Context(), []Peer{
		{Name: "a", Addrs: addrs("127.0.0.1")},
		{Name: "b", Addrs: addrs("127.0.0.2")},
	}, port)
	if failures := m.Failures(); len(failures) > 0 {
		t.Fatalf("failures: %q", failures)
	}
	var out strings.Builder
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "IPv4, ms") || strings.Contains(out.String(), "FAILS") {
		t.Errorf("table:\n%s", out.String())
	}
	for _, line := range lines[1:] {
		if fields := strings.Fields(line); len(fields) != 3 || strings.Count(line, ".") != 1 || strings.Count(line, "-") != 1 {
			t.Errorf("row %q", line)
		}
	}
}

func TestPeerWithoutServerFailsInBothDirections(t *testing.T) {
	port := start(t, "127.0.0.1", 0).Port()
	m := Measure(t.Context(), []Peer{
		{Name: "a", Addrs: addrs("127.0.0.1")},
		{Name: "b", Addrs: addrs("127.0.0.3")},
	}, port)
	failures := strings.Join(m.Failures(), "\n")
	for _, want := range []string{
		"a does not reach b (127.0.0.3): UDP: connection refused",
		"b does not reach a (127.0.0.1): the server on b could not be asked: connection refused",
	} {
		if !strings.Contains(failures, want) {
			t.Errorf("no %q in:\n%s", want, failures)
		}
	}
}

func TestFamilyThatAPeerLacksIsNotTried(t *testing.T) {
	port := start(t, "127.0.0.1", 0).Port()
	m := Measure(t.Context(), []Peer{
		{Name: "a", Addrs: addrs("127.0.0.1")},
		{Name: "b", Addrs: addrs("127.0.0.1", "::1")},
	}, port)
	if failures := m.Failures(); len(failures) > 0 {
		t.Errorf("failures: %q", failures)
	}
	if got := m.text(cell{from: 0, to: 1, family: IPv6}); got != "-" {
		t.Errorf("a has no IPv6 address, but the cell says %q", got)
	}
}
