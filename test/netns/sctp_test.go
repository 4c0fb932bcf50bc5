package netns

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/test/netns/topology"
)

// sctp is hack/sctp, by which tests of policies ask on kernels without SCTP.
type sctp string

func buildSCTP(t *testing.T) sctp {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "sctp")
	if out, err := exec.Command("go", "build", "-o", tool, "github.com/podnet/podnet/hack/sctp").CombinedOutput(); err != nil {
		t.Fatalf("build hack/sctp: %v: %s", err, out)
	}
	if exec.Command(tool, "kernel").Run() == nil {
		t.Skip("this kernel has SCTP, and would answer beside hack/sctp: there it is not used")
	}
	return sctp(tool)
}

// serve runs a server until the test ends, and returns when it answers.
func (s sctp) serve(t *testing.T, in *topology.Namespace, port string) {
	t.Helper()
	var said bytes.Buffer
	ctx, stop := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, string(s), "porter")
	server.Env = append(os.Environ(), "SERVE_SCTP_PORT_"+port+"=foo")
	server.Stdout, server.Stderr = &said, &said
	in.Do(t, server.Start)
	t.Cleanup(func() {
		stop()
		if server.Wait(); said.Len() > 0 { //nolint:errcheck // It was killed.
			t.Errorf("the server of %s said: %s", port, &said)
		}
	})
	for _, address := range []string{"127.0.0.1", "::1"} {
		gomega.NewWithT(t).Eventually(func() string {
			return s.connect(t, in, net.JoinHostPort(address, port))
		}, 10*time.Second, 20*time.Millisecond).Should(gomega.BeEmpty())
	}
}

// connect returns what a client says: nothing where it has reached the server.
func (s sctp) connect(t *testing.T, in *topology.Namespace, address string) string {
	t.Helper()
	var said bytes.Buffer
	client := exec.Command(string(s), "connect", "--timeout=1500ms", "--protocol=sctp", address)
	client.Stdout, client.Stderr = &said, &said
	err := in.Try(client.Run)
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	if (err == nil) != (said.Len() == 0) {
		t.Fatalf("the client returned %v, and said: %q", err, &said)
	}
	return strings.TrimSpace(said.String())
}

// The kernel is the judge of what hack/sctp sends: conntrack knows the protocol.
func TestKernelFollowsAssociations(t *testing.T) {
	t.Parallel()
	tool := buildSCTP(t)
	underlay := topology.NewUnderlay(t, 1500)
	client, server := underlay.AddHost(t, "client", dual), underlay.AddHost(t, "server", dual)
	for _, second := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		server.Run(t, "ip", "addr", "add", second, "dev", "eth0", "nodad")
	}
	client.Run(t, "ip", "route", "add", "192.0.2.1", "via", server.IPv4.Addr().String())
	client.Run(t, "ip", "route", "add", "2001:db8::1", "via", server.IPv6.Addr().String())
	tool.serve(t, server.Namespace, "9003")
	tool.serve(t, server.Namespace, "9005")

	for _, is4 := range []bool{true, false} {
		to := func(port uint16) string { return netip.AddrPortFrom(server.Address(is4), port).String() }
		second := netip.MustParseAddr("192.0.2.1")
		service := "ip daddr 192.0.2.9 meta l4proto sctp dnat ip to " + to(9003)
		serviceAddress := "192.0.2.9:7"
		if !is4 {
			second = netip.MustParseAddr("2001:db8::1")
			service = "ip6 daddr 2001:db8::9 meta l4proto sctp dnat ip6 to " + to(9003)
			serviceAddress = "[2001:db8::9]:7"
		}
		expect := func(what, address, want string) {
			t.Helper()
			if said := tool.connect(t, client.Namespace, address); said != want {
				t.Errorf("%s (%s): the client says %q", what, address, said)
			}
		}

		// Both ends see all packets of an association in the states in which they belong.
		watch := `
			add table inet watch
			delete table inet watch
			table inet watch {
				chain in {
					type filter hook prerouting priority 0
					ip protocol sctp jump seen
					ip6 nexthdr sctp jump seen
				}
				chain out {
					type filter hook postrouting priority 0
					ip protocol sctp jump seen
					ip6 nexthdr sctp jump seen
				}
				chain seen {
					ct state invalid counter comment "invalid"
					ct state new counter comment "new"
					ct status assured counter comment "assured"
				}
			}`
		client.Run(t, "nft", watch)
		server.Run(t, "nft", watch)
		expect("open", to(9003), "")
		expect("the other server", to(9005), "")
		expect("an address beside the first", netip.AddrPortFrom(second, 9003).String(), "")
		for _, host := range []*topology.Host{client, server} {
			gomega.NewWithT(t).Eventually(func() string {
				return host.Run(t, "nft", "list", "chain", "inet", "watch", "seen")
			}, 3*time.Second, 20*time.Millisecond).Should(gomega.And(
				gomega.MatchRegexp(`packets 0 bytes 0 comment "invalid"`),
				gomega.MatchRegexp(`packets 3 bytes \d+ comment "new"`),
				// COOKIE ACK and ABORT of each.
				gomega.MatchRegexp(`packets 6 bytes \d+ comment "assured"`),
			), host.Name)
		}

		// The kernel changes addresses and ports as those of a Service.
		client.Run(t, "nft", `
			table inet nat {
				chain out {
					type nat hook output priority -100
					`+service+`
				}
			}`)
		expect("Service", serviceAddress, "")

		// What does not come through is waited for, at any step.
		expect("no server", to(9004), "TIMEOUT")
		for lost, receiver := range map[string]*topology.Host{"init": server, "init-ack": client, "cookie-echo": server, "cookie-ack": client} {
			receiver.Run(t, "nft", `
				table inet lossy {
					chain in {
						type filter hook prerouting priority 0
						sctp chunk `+lost+` exists drop
					}
				}`)
			expect(lost+" dropped", to(9003), "TIMEOUT")
			receiver.Run(t, "nft", "delete", "table", "inet", "lossy")
		}

		// A lost packet is sent again.
		server.Run(t, "nft", `
			table inet lossy {
				chain in {
					type filter hook prerouting priority -400
					sctp chunk cookie-echo exists numgen inc mod 2 0 drop
				}
			}`)
		expect("the first COOKIE ECHO lost", to(9003), "")
		server.Run(t, "nft", "delete", "table", "inet", "lossy")
		client.Run(t, "nft", "delete", "table", "inet", "nat")
	}
	// A rule of the client's own host, of which the kernel tells who sends.
	client.Run(t, "nft", `table inet lossy { chain out { type filter hook output priority 0; meta l4proto sctp drop; }; }`)
	if said := tool.connect(t, client.Namespace, netip.AddrPortFrom(server.IPv4.Addr(), 9003).String()); said != "TIMEOUT" {
		t.Errorf("dropped on the client's host: %q", said)
	}
	// A host without a socket of SCTP says so.
	if said := tool.connect(t, server.Namespace, netip.AddrPortFrom(client.IPv4.Addr(), 9003).String()); !strings.HasPrefix(said, "OTHER: ") {
		t.Errorf("a host without SCTP: %q", said)
	}
	if said := tool.connect(t, client.Namespace, "192.0.2.1"); !strings.HasPrefix(said, "DNS: ") {
		t.Errorf("an address without a port: %q", said)
	}
}
