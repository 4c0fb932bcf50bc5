package netns

import (
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/onsi/gomega"

	"github.com/podnet/podnet/internal/model"
)

// The page of concepts names all that podnet makes in a node's kernel, and nothing else.
func TestPageNamesWhatIsMadeOnANode(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{attachment: model.Bridge, mode: model.ModeAuto, families: dual})
	c.objects.NetworkPolicies = []model.NetworkPolicy{{Namespace: "red", Name: "deny", Types: []model.PolicyType{model.PolicyIngress}}}
	n := c.addNode(t)
	// What podnet sets is seen where it is otherwise.
	for key, value := range map[string]string{
		"net/ipv6/conf/default/accept_dad": "1", "net/ipv6/conf/default/disable_ipv6": "1",
		"net/bridge/bridge-nf-call-iptables": "0", "net/bridge/bridge-nf-call-ip6tables": "0",
	} {
		n.Sysctl(t, key, value)
	}
	before := n.parameters(t)
	c.sync(t)
	c.addPod(t, n, "red", nil)
	// A pod of an earlier network, which was of the other attachment.
	other := n.newPod(t, model.HostPort{Host: 80, Pod: port, Protocol: "tcp"})
	other.Attachment = model.PointToPoint
	n.attach(t, other)
	c.enforce(t)
	agent := startLoop(t, n, true, n.pods...)
	g := gomega.NewWithT(t)
	g.Eventually(func() []string { return agent.sockets(t) }, 20*time.Second).Should(gomega.HaveLen(4))
	g.Eventually(func() []string { return n.names(t, before, agent.sockets(t)) }, 20*time.Second).Should(gomega.Equal(namedByThePage(t)))
}

var (
	span     = regexp.MustCompile("`([^`]+)`")
	ofTable  = regexp.MustCompile(` table (\d+) `)
	ruleLine = regexp.MustCompile(`^(\d+):.* lookup (\d+)`)
	markOf   = regexp.MustCompile(` fwmark (\S+)`)
)

// namedByThePage returns what the page's table of the kernel names, sorted.
func namedByThePage(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/concepts.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## What podnet makes on a node\n")
	_, section, inKernel := strings.Cut(section, "\nIn the kernel:\n")
	section, _, ended := strings.Cut(section, "\nPackets to UDP port")
	if !ok || !inKernel || !ended {
		t.Fatal("the page has no section on what podnet makes in a node's kernel")
	}
	named := map[string]bool{}
	for _, m := range span.FindAllStringSubmatch(section, -1) {
		named[m[1]] = true
	}
	return slices.Sorted(maps.Keys(named))
}

// names returns what podnet made in a node's kernel, as the page names it, sorted.
func (n *node) names(t *testing.T, before map[string]string, sockets []string) []string {
	t.Helper()
	found := map[string]bool{}
	for _, s := range sockets {
		found[s] = true
	}
	for line := range strings.Lines(n.Run(t, "nft", "list", "tables")) {
		found[strings.TrimSpace(strings.TrimPrefix(line, "table "))] = true
	}
	n.Do(t, func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if name := l.Name; name != "lo" && name != "eth0" {
				found[generic(name)] = true
			}
		}
		return err
	})
	for _, family := range []string{"-4", "-6"} {
		for _, m := range ofTable.FindAllStringSubmatch(n.Run(t, "ip", family, "-N", "route", "show", "table", "all", "proto", strconv.Itoa(model.RouteProtocol)), -1) {
			found[m[1]], found[strconv.Itoa(model.RouteProtocol)] = true, true
		}
		for line := range strings.Lines(n.Run(t, "ip", family, "-N", "rule", "show")) {
			rule := ruleLine.FindStringSubmatch(line)
			if len(rule) < 2 || rule[1] == "0" || len(rule[1]) > 3 {
				// The kernel's own.
				continue
			}
			found[rule[1]], found[rule[2]] = true, true
			if mark := markOf.FindStringSubmatch(line); mark != nil {
				found[mark[1]] = true
			}
		}
	}
	after := n.parameters(t)
	for key, value := range after {
		was, known := before[key]
		if !known {
			// Of a link that came: what is not as it is for new links, or, where a namespace
			// does not show that, for others.
			if was, known = after[ofLink.ReplaceAllString(key, "/$1/default/")]; !known {
				was = before[ofLink.ReplaceAllString(key, "/$1/lo/")]
			}
		}
		if value != was {
			found[filepath.Base(key)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// ofLink is what in a parameter's path names the link.
var ofLink = regexp.MustCompile(`/(conf|neigh)/[^/]+/`)

// generic is the name of a link as the page has it.
func generic(name string) string {
	if strings.HasPrefix(name, model.PodLinkPrefix) && name != model.ProbeLink && name != model.BridgeLink {
		return model.PodLinkPrefix + "…"
	}
	return name
}

// parameters returns those of the node's network by their paths.
func (n *node) parameters(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	n.Do(t, func() error {
		for _, root := range []string{"/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/bridge"} {
			err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				// Links come and go. An IPv6 link's MTU is the link's.
				if err != nil || entry.IsDir() || filepath.Base(path) == "mtu" {
					return nil //nolint:nilerr // What has gone is none of the node's any more.
				}
				if text, err := os.ReadFile(path); err == nil {
					values[path] = string(text)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return values
}

// sockets returns the UDP sockets of the probes' namespace.
func (l *loop) sockets(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	err := ns.WithNetNSPath(l.probes, func(ns.NetNS) error {
		for _, file := range []string{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"} {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				fields := strings.Fields(line)
				if len(fields) < 2 || fields[1] == "local_address" {
					continue
				}
				number, err := strconv.ParseUint(fields[1][strings.LastIndex(fields[1], ":")+1:], 16, 16)
				if err != nil {
					return fmt.Errorf("read %q: %w", line, err)
				}
				found[fmt.Sprintf("udp/%d", number)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found))
}
