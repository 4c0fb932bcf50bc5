package netns

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
)

func TestFindings(t *testing.T) {
	cases := []struct {
		name string
		// with puts the thing in the way.
		with string
		// file is a CNI configuration to put there.
		file string
		// want is the type of the finding, empty for none, and word is in its message.
		want, word string
	}{
		{name: "nothing"},
		{
			name: "a table that drops forwarded packets by policy",
			with: "nft add table inet ufw\nnft add chain inet ufw ufw-forward { type filter hook forward priority 0 ; policy drop ; }",
			want: host.FindingForwardDrop, word: "chain ufw-forward of table inet ufw",
		},
		{
			name: "FORWARD of iptables drops",
			with: "iptables-nft -P FORWARD DROP",
			want: host.FindingForwardDrop, word: "iptables -P FORWARD ACCEPT",
		},
		{
			name: "FORWARD of ip6tables drops",
			with: "ip6tables-nft -P FORWARD DROP",
			want: host.FindingForwardDrop, word: "ip6tables -P FORWARD ACCEPT",
		},
		{
			name: "firewalld",
			with: "nft add table inet firewalld\nnft add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; }\n" +
				"nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
			want: host.FindingForwardDrop, word: "firewall-cmd",
		},
		{
			name: "a rule of iptables rejects at the end", with: "iptables-nft -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
			want: host.FindingForwardDrop, word: "in chain FORWARD of table ip filter: delete it",
		},
		{
			name: "a rule of ip6tables drops behind a jump", with: "ip6tables-nft -N mine\nip6tables-nft -A FORWARD -j mine\nip6tables-nft -A mine -j DROP",
			want: host.FindingForwardDrop, word: "in chain mine of table ip6 filter: delete it",
		},
		{
			name: "a rule of iptables drops other packets",
			with: "iptables-nft -A FORWARD -s 10.244.0.0/16 -j ACCEPT\niptables-nft -A FORWARD -d 10.244.0.0/16 -j ACCEPT\niptables-nft -P FORWARD DROP",
		},
		{
			name: "a rule of another hook drops",
			with: "nft add table inet mine\nnft add chain inet mine my-post { type filter hook postrouting priority 300 ; }\n" +
				"nft add rule inet mine my-post udp length < 100 counter drop",
			want: host.FindingForwardDrop, word: `"udp length < 100 counter drop" in chain my-post of table inet mine`,
		},
		{
			name: "a table of the bridge drops",
			with: "nft add table bridge mine\nnft add chain bridge mine my-bridge { type filter hook prerouting priority 0 ; policy drop ; }",
			want: host.FindingForwardDrop, word: "by the policy of chain my-bridge of table bridge mine",
		},
		{
			name: "a table that accepts",
			with: "nft add table inet mine\nnft add chain inet mine my-forward { type filter hook forward priority 0 ; }\n" +
				"nft add chain inet mine my-input { type filter hook input priority 0 ; policy drop ; }",
		},
		{name: "iptables-legacy", with: "iptables-legacy -A FORWARD -j ACCEPT", want: host.FindingIPTablesLegacy, word: "iptables-legacy-save"},
		{name: "a configuration that sorts first", file: "05-flannel.conflist", want: host.FindingOtherCNIConfig, word: "05-flannel.conflist"},
		{name: "a configuration that sorts after", file: "99-other.conflist"},
		{name: "a file that is no configuration", file: "05-notes.txt"},
		{name: "cni0", with: "ip link add cni0 type bridge", want: host.FindingOtherNetwork, word: "cni0"},
		{name: "flannel", with: "ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.168.77.11", want: host.FindingOtherNetwork, word: "flannel"},
		{name: "Cilium", with: "ip link add cilium_host type veth peer name cilium_net", want: host.FindingOtherNetwork, word: "Cilium"},
		{name: "Calico", with: "ip link add cali123 type veth peer name caliabc", want: host.FindingOtherNetwork, word: "Calico"},
		{name: "kube-router", with: "ip link add kube-bridge type bridge", want: host.FindingOtherNetwork, word: "kube-router"},
		{name: "Weave Net", with: "ip link add weave type bridge", want: host.FindingOtherNetwork, word: "Weave"},
		{
			name: "a route inside the node's block", with: "ip route add 10.244.1.128/25 via 192.168.77.200",
			want: host.FindingForeignRoute, word: "10.244.1.128/25 on eth0",
		},
		{name: "a route to the whole range", with: "ip route add 10.244.0.0/16 via 192.168.77.200"},
		{
			name: "a VXLAN device on the same port", with: "ip link add vx9 type vxlan id 9 dstport 4789 local 192.168.77.11",
			want: host.FindingVXLANPort, word: "vx9",
		},
		{name: "a VXLAN device on another port", with: "ip link add vx9 type vxlan id 9 dstport 4790 local 192.168.77.11"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, options{attachment: model.Bridge, mode: model.ModeOverlay, families: dual})
			n := c.nodes[0]
			n.addPod(t)
			probe := n.addProbe(t)
			folder := t.TempDir()
			for _, file := range []string{"10-podnet.conflist", tc.file} {
				if file == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(folder, file), []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if command, _, _ := strings.Cut(tc.with, " "); command != "" {
				if _, err := exec.LookPath(command); err != nil {
					t.Fatalf("this test runs %s, of the Debian package iptables: %v", command, err)
				}
			}
			n.Script(t, tc.with)
			var found []model.Finding
			n.Do(t, func() error {
				var err error
				found, err = n.host.Findings(context.Background(), host.Search{
					Ranges: c.network.Ranges, Blocks: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
					ConfDir: folder, Conflist: "10-podnet.conflist", Probe: &probe.Pod,
				})
				return err
			})
			switch {
			case tc.want == "" && len(found) > 0:
				t.Errorf("found %+v, want nothing", found)
			case tc.want == "":
			case len(found) != 1 || found[0].Type != tc.want || !strings.Contains(found[0].Message, tc.word) || !strings.HasSuffix(found[0].Message, "."):
				t.Errorf("found %+v, want one of type %s that names %q", found, tc.want, tc.word)
			}
			// What is found is left as it is, and nothing of it hinders the next pass.
			n.sync(t)
		})
	}
}

func TestSearchThatFailsDoesNotHideWhatOthersFind(t *testing.T) {
	c := newCluster(t, options{attachment: model.PointToPoint, mode: model.ModeOverlay, families: dual})
	n := c.nodes[0]
	n.Script(t, "ip link add cni0 type bridge")
	n.Do(t, func() error {
		probe := model.Pod{Netns: filepath.Join(t.TempDir(), "gone"), Addrs: []netip.Addr{netip.MustParseAddr("10.244.0.2")}}
		found, err := n.host.Findings(context.Background(), host.Search{Probe: &probe})
		if err == nil || len(found) != 1 || found[0].Type != host.FindingOtherNetwork {
			t.Errorf("found %+v, %v", found, err)
		}
		return nil
	})
}
