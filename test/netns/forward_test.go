package netns

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// addProbe attaches the namespace of the node's probes.
func (n *node) addProbe(t *testing.T) *pod {
	t.Helper()
	p := &pod{node: n, Namespace: topology.NewNamespace(t, "probes of "+n.Name), Pod: n.want(t).Probe}
	p.Netns = p.Path()
	n.attach(t, p)
	return p
}

// forwardFindings returns what is found to drop packets of pods.
func (n *node) forwardFindings(t *testing.T, probe *pod) []string {
	t.Helper()
	var sentences []string
	n.Do(t, func() error {
		found, err := n.host.Findings(context.Background(), host.Search{Probe: &probe.Pod})
		for _, f := range found {
			if f.Type == host.FindingForwardDrop {
				sentences = append(sentences, f.Message)
			}
		}
		return err
	})
	return sentences
}

func TestWhatDropsForwardedPacketsIsFoundAsLongAsItIsThere(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			n := newCluster(t, options{attachment: attachment, mode: model.ModeRouted, families: dual}).nodes[0]
			probe, before := n.addProbe(t), n.Run(t, "nft", "list", "tables")
			for _, rule := range []string{"ip FORWARD", "ip6 FORWARD"} {
				if found := n.forwardFindings(t, probe); len(found) > 0 {
					t.Errorf("found %q on a node that forwards", found)
				}
				family, _, _ := strings.Cut(rule, " ")
				n.Script(t, fmt.Sprintf(`
					nft add table %[1]s filter
					nft add chain %[1]s filter FORWARD { type filter hook forward priority 0 ; }
					nft add rule %[1]s filter FORWARD counter reject
				`, family))
				found := n.forwardFindings(t, probe)
				if want := fmt.Sprintf("%q in chain FORWARD of table %s filter", "counter reject", family); len(found) != 1 || !strings.Contains(found[0], want) {
					t.Errorf("found %q, want one that names %s", found, want)
				}
				n.Run(t, "nft", "delete", "table", family, "filter")
			}
			if after := n.Run(t, "nft", "list", "tables"); after != before {
				t.Errorf("tables %s\nwere %s", after, before)
			}
			n.checkState(t)
		})
	}
}

func TestWhatNftablesDoesNotDropIsSaidToo(t *testing.T) {
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		t.Fatalf("this test runs iptables-legacy, of the Debian package iptables: %v", err)
	}
	n := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeRouted, families: onlyIPv4}).nodes[0]
	probe := n.addProbe(t)
	n.Run(t, "iptables-legacy", "-A", "FORWARD", "-j", "DROP")
	found := n.forwardFindings(t, probe)
	if len(found) != 1 || !strings.Contains(found[0], "not by a rule of nftables: look at the rules of iptables-legacy") {
		t.Errorf("found %q", found)
	}
}

// An agent may end while a packet is traced.
func TestTracesThatAnAgentLeftAreRemoved(t *testing.T) {
	n := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeRouted, families: onlyIPv4}).nodes[0]
	probe := n.addProbe(t)
	n.Run(t, "nft", "add", "table", "inet", "podnet-trace")
	n.restart(t)
	n.forwardFindings(t, probe)
	if tables := n.Run(t, "nft", "list", "tables"); strings.Contains(tables, "podnet-trace") {
		t.Error(tables)
	}
}
