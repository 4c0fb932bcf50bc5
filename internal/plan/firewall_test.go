package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

func tableOf(t *testing.T, s model.State, family nft.Family) model.Table {
	t.Helper()
	i := slices.IndexFunc(s.Firewall, func(t model.Table) bool { return t.Family == family })
	if i < 0 {
		t.Fatalf("no table of the family %s", family)
	}
	return s.Firewall[i]
}

// rules returns the texts of a chain, one a line.
func rules(t *testing.T, s model.State, family nft.Family, chain string) string {
	t.Helper()
	var text strings.Builder
	for _, c := range tableOf(t, s, family).Chains {
		for _, r := range c.Rules {
			if c.Name == chain {
				text.WriteString(r.Text + "\n")
			}
		}
	}
	return text.String()
}

func expectRule(t *testing.T, s model.State, chain, rule string) {
	t.Helper()
	if got := rules(t, s, "inet", chain); !strings.Contains(got, rule+"\n") {
		t.Errorf("%s has no rule %q but\n%s", chain, rule, got)
	}
}

func expectChain(t *testing.T, s model.State, chain string, want ...string) {
	t.Helper()
	if got := rules(t, s, "inet", chain); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("%s is\n%swant\n%s", chain, got, strings.Join(want, "\n"))
	}
}

func TestVXLANIsTakenFromNodesAtOwnEndpointsAlone(t *testing.T) {
	c := cluster()
	c.Former = []model.FormerEndpoint{{Node: "a", Addr: addr("192.0.2.201")}, {Node: "b", Addr: addr("192.0.2.202")}}
	s := Build(c).State
	expectElements(t, s, "inet", "endpoints4", "192.0.2.1", "192.0.2.2", "192.0.2.201", "192.0.2.202", "192.0.2.3")
	expectElements(t, s, "inet", "endpoints6", "2001:db8::1", "2001:db8::2", "2001:db8::3")
	expectElements(t, s, "inet", "ownendpoints4", "192.0.2.1", "192.0.2.201")
	expectElements(t, s, "inet", "ownendpoints6", "2001:db8::1")
	packet := "udp dport 8472 @th,96,24 7466 "
	expectRule(t, s, "raw-prerouting", packet+"jump vxlan-in")
	expectChain(t, s, "vxlan-in",
		"ip saddr @endpoints4 ip daddr @ownendpoints4 notrack accept", "ip6 saddr @endpoints6 ip6 daddr @ownendpoints6 notrack accept")
	expectRule(t, s, "filter-input", "udp dport 8472 jump vxlan-local")
	expectChain(t, s, "vxlan-local",
		"@th,96,24 7466 ct state untracked ip saddr @endpoints4 ip daddr @ownendpoints4 return",
		"@th,96,24 7466 ct state untracked ip6 saddr @endpoints6 ip6 daddr @ownendpoints6 return",
		"ip saddr @ranges4 drop", "ip6 saddr @ranges6 drop", "ct status dnat drop", "@th,96,24 7466 drop")
	expectRule(t, s, "raw-output", packet+"jump vxlan-out")
	expectChain(t, s, "vxlan-out", "ip daddr @endpoints4 notrack", "ip6 daddr @endpoints6 notrack")
}

// The endpoint that a node has chosen, and those that others know it by, are its own
// until others have heard.
func TestVXLANIsTakenAtTheEndpointThatIsLeft(t *testing.T) {
	s := Build(moving()).State
	expectElements(t, s, "inet", "ownendpoints4", "192.0.2.1", "192.0.2.101")
}

func TestVXLANIsSentByNobodyButNodes(t *testing.T) {
	s := Build(cluster()).State
	// Whatever the network identifier: it stands in the first datagram of several alone.
	expectRule(t, s, "filter-forward", "udp dport 8472 jump vxlan-forward")
	expectRule(t, s, "filter-output", "udp dport 8472 ct status dnat jump vxlan-forward")
	expectChain(t, s, "vxlan-forward", "ip daddr @ranges4 ip daddr != @endpoints4 return", "ip6 daddr @ranges6 ip6 daddr != @endpoints6 return", `iifname "podn*" drop`, "ct status dnat drop")
}

func TestPodsNeverReachTheNodesLoopback(t *testing.T) {
	s := Build(cluster()).State
	first, _, _ := strings.Cut(rules(t, s, "inet", "raw-prerouting"), "\n")
	next, _, _ := strings.Cut(rules(t, s, "inet", "pods4"), "\n")
	if first != `iifname "podn*" goto raw-pods` || next != "ip daddr 127.0.0.0/8 drop" {
		t.Errorf("the first rules are %q and %q", first, next)
	}
}

// Whatever is not a pod's own is dropped at the end, and nothing but a known source, or that of
// neighbour discovery, leads past it.
func TestPodsSendWithSourcesThatTheyHave(t *testing.T) {
	expectChain(t, Build(cluster()).State, "raw-pods",
		"iifname . ip saddr @podsources4 goto pods4", "iifname . ip6 saddr @podsources6 goto pods6", "ip6 saddr :: meta l4proto ipv6-icmp goto pods6", "drop")
	// Where there is a bridge, be it for pods that were attached before the network was recreated with
	// the other attachment, pods of both kinds are served.
	for _, network := range []model.Attachment{model.Bridge, model.PointToPoint} {
		c := cluster()
		old := pod("x", 2)
		old.Attachment = model.Bridge
		c.Network.Attachment, c.Pods = network, []model.Pod{old, pod("y", 3)}
		expectChain(t, Build(c).State, "raw-pods", `iifname "podnet0" meta nfproto ipv4 goto pods4`, `iifname "podnet0" meta nfproto ipv6 goto pods6`,
			"iifname . ip saddr @podsources4 goto pods4", "iifname . ip6 saddr @podsources6 goto pods6", "ip6 saddr :: meta l4proto ipv6-icmp goto pods6", "drop")
		expectRule(t, Build(c).State, "pods6", `iifname != "podnet0" ip6 saddr fe80::/10 meta l4proto != ipv6-icmp drop`)
	}
}

func TestPodsSendErrorsAboutTheirOwnConnectionsAlone(t *testing.T) {
	c := cluster()
	c.Pods = []model.Pod{pod("x", 2)}
	s := Build(c).State
	for _, chain := range []string{"filter-input", "filter-forward"} {
		for _, protocol := range []string{"icmp", "ipv6-icmp"} {
			expectRule(t, s, chain, "meta l4proto "+protocol+` ct state invalid,related iifname "podn*" jump pod-errors`)
		}
	}
	expectChain(t, s, "pod-errors",
		"ip saddr . ct original ip saddr @self4 return", "ip saddr . ct reply ip saddr @self4 return",
		"ip6 saddr . ct original ip6 saddr @self6 return", "ip6 saddr . ct reply ip6 saddr @self6 return",
		"icmp type { destination-unreachable, source-quench, time-exceeded, parameter-problem } drop", "icmpv6 type 0-127 drop")
	expectElements(t, s, "inet", "self4", "10.244.0.2 10.244.0.2")
}

func TestOwnAddressesDoNotComeInFromElsewhere(t *testing.T) {
	s := Build(cluster()).State
	expectRule(t, s, "raw-prerouting", `ip saddr @blocks4 iifname != "lo" drop`)
	expectRule(t, s, "raw-prerouting", `ip6 saddr @blocks6 iifname != "lo" drop`)
}

func TestPacketsToRemoteBlocksGetTheNodesOwnAddress(t *testing.T) {
	c := cluster()
	s := Build(c).State
	remote := "ip daddr @ranges4 ip daddr != @blocks4 "
	translate := "meta mark set meta mark & 0xffffbfff snat ip to 10.244.0.0 fully-random"
	expectRule(t, s, "nat-postrouting", remote+"ip saddr != @ranges4 "+translate)
	expectRule(t, s, "nat-postrouting", remote+"meta mark & 0x4000 == 0x4000 "+translate)
	expectElements(t, s, "inet", "blocks4", "10.244.0.0/24")
	expectElements(t, s, "inet", "ranges4", "10.244.0.0/16")
	c.Blocks = slices.DeleteFunc(c.Blocks, func(b model.Block) bool { return b.Node == "a" })
	if got := rules(t, Build(c).State, "inet", "nat-postrouting"); strings.Contains(got, "snat") {
		t.Errorf("without an address of its own:\n%s", got)
	}
}

func TestMasqueradeIsAskedForAndHasExceptions(t *testing.T) {
	c := cluster()
	c.Network.MasqueradeExclude = prefixes("10.1.0.0/16", "10.0.0.0/8", "192.168.7.9/32", "192.168.2.0/24", "192.168.3.1/24", "2001:db8::/32", "2001:db8::1/128")
	rule := ` ip daddr != @ranges4 ip daddr != @nomasq4 ip daddr != 224.0.0.0/4 oifname != "lo" oifname != "podn*" masquerade fully-random`
	s := Build(c).State
	expectRule(t, s, "nat-postrouting", "ip saddr . ip saddr @self4"+rule)
	expectRule(t, s, "nat-postrouting", "ip saddr @blocks4"+rule)
	expectElements(t, s, "inet", "nomasq4", "10.0.0.0/8", "192.168.2.0/24", "192.168.3.0/24", "192.168.7.9")
	expectElements(t, s, "inet", "nomasq6", "2001:db8::/32")
	c.Network.Masquerade = false
	if got := rules(t, Build(c).State, "inet", "nat-postrouting"); strings.Contains(got, rule) {
		t.Error("masquerades although it is off")
	}
}

func TestHostPortOfOneAddressGoesBeforeThatOfAll(t *testing.T) {
	s := Build(cluster()).State
	for _, chain := range []string{"nat-prerouting", "nat-output"} {
		text := rules(t, s, "inet", chain)
		for _, digit := range []string{"4", "6"} {
			one, all := strings.Index(text, "@hostportsip"+digit), strings.Index(text, "@hostports"+digit)
			if one < 0 || all < one {
				t.Errorf("%s:\n%s", chain, text)
			}
		}
	}
}

// What somebody has translated, later chains of the kind do not see.
func TestHostPortsComeAfterServicesAndSourcesBefore(t *testing.T) {
	want := map[string]string{"nat-prerouting": "dstnat+10", "nat-output": "dstnat+10", "nat-postrouting": "srcnat-10"}
	for _, c := range tableOf(t, Build(cluster()).State, "inet").Chains {
		if c.Base.Type == nft.TypeNAT && c.Base.Priority.String() != want[c.Name] {
			t.Errorf("%s has the priority %s", c.Name, c.Base.Priority)
		}
	}
}

func TestHostPortsAreForTheNodesAddresses(t *testing.T) {
	c := cluster()
	c.Host.Addresses = []model.Endpoint{{Addr: addr("192.0.2.1"), Link: "eth0"}, {Addr: addr("198.51.100.1"), Link: "eth1"}, {Addr: addr("2001:db8::9"), Link: "eth1"}}
	s := Build(c).State
	expectElements(t, s, "inet", "nodeaddresses4", "10.244.0.0", "192.0.2.1", "198.51.100.1")
	expectElements(t, s, "inet", "nodeaddresses6", "2001:db8::1", "2001:db8::9", "fd00:10::")
	to4 := []string{
		"ip daddr @nodeaddresses4 dnat ip to ip daddr . meta l4proto . th dport map @hostportsip4",
		"ip daddr @nodeaddresses4 dnat ip to meta l4proto . th dport map @hostports4",
	}
	toLoopback := []string{
		"ip daddr 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @hostportsip4",
		"ip daddr 127.0.0.0/8 dnat ip to meta l4proto . th dport map @hostports4",
	}
	to6 := []string{
		"ip6 daddr @nodeaddresses6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @hostportsip6",
		"ip6 daddr @nodeaddresses6 dnat ip6 to meta l4proto . th dport map @hostports6",
	}
	// Who is on the segment can send to 127.0.0.1.
	expectChain(t, s, "nat-prerouting", slices.Concat(to4, to6)...)
	expectChain(t, s, "nat-output", slices.Concat(to4, toLoopback, to6)...)
}

func TestBridgeTableIsThereForBridgesAlone(t *testing.T) {
	c := cluster()
	if slices.ContainsFunc(Build(c).State.Firewall, func(t model.Table) bool { return t.Family == "bridge" }) {
		t.Error("a table of the bridge without a bridge")
	}
	c.Network.Attachment = model.Bridge
	text := rules(t, Build(c).State, "bridge", "prerouting")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if lines[0] != `iifname "podn*" ether type != { ip, ip6, arp } drop` {
		t.Errorf("what has a tag may pass:\n%s", text)
	}
	if lines[len(lines)-1] != `iifname "podn*" drop` {
		t.Errorf("what is not checked passes:\n%s", text)
	}
	forward := strings.Split(strings.TrimSpace(rules(t, Build(c).State, "bridge", "forward")), "\n")
	if forward[0] != `oifname "podn*" meta pkttype { broadcast, multicast } oifname . ether saddr @podmacs drop` {
		t.Errorf("what a pod sends to all comes back to it:\n%s", forward)
	}
	if forward[len(forward)-1] != `oifname "podn*" drop` {
		t.Errorf("what comes to a pod's MAC and not to its address passes:\n%s", forward)
	}
	// Pods that were attached to a bridge keep it.
	c.Network.Attachment = model.PointToPoint
	p := pod("x", 2)
	p.Attachment = model.Bridge
	c.Pods = []model.Pod{p}
	s := Build(c).State
	linkNamed(t, s, "podnet0")
	expectElements(t, s, "bridge", "podsources4", "podnx "+p.PodMAC.String()+" 10.244.0.2")
}

func TestARPTableIsThereForIPv4Alone(t *testing.T) {
	c := cluster()
	want := `iifname "podn*" iifname != "podnet0" iifname . arp saddr ip != @podsources4 drop
iifname "podn*" iifname != "podnet0" arp daddr ip != 169.254.1.1 drop
`
	if got := rules(t, Build(c).State, "arp", "input"); got != want {
		t.Errorf("the rules are\n%s", got)
	}
	c.Network.Ranges = prefixes("fd00:10::/48")
	if slices.ContainsFunc(Build(c).State.Firewall, func(t model.Table) bool { return t.Family == "arp" }) {
		t.Error("a table of ARP without IPv4")
	}
}

func TestOneFamilyHasNoRulesOfTheOther(t *testing.T) {
	c := cluster()
	c.Network.Ranges = prefixes("10.244.0.0/16")
	s := Build(c).State
	for _, set := range tableOf(t, s, "inet").Sets {
		if strings.HasSuffix(set.Name, "6") && !slices.Contains([]string{"endpoints6", "ownendpoints6", "podsources6"}, set.Name) {
			t.Errorf("set %s", set.Name)
		}
	}
	if text := rules(t, s, "inet", "nat-postrouting"); strings.Contains(text, "ip6") {
		t.Errorf("nat-postrouting:\n%s", text)
	}
	// A pod without IPv6 addresses has none to send from.
	expectRule(t, s, "raw-pods", "iifname . ip6 saddr @podsources6 goto pods6")
	expectElements(t, s, "inet", "podsources6")
}

// Pods and nodes come and go as elements; a new rule would replace the whole table.
func TestRulesDependOnNeitherPodsNorNodes(t *testing.T) {
	few, many := cluster(), cluster()
	few.Blocks = few.Blocks[:2]
	p := pod("x", 2)
	p.HostPorts = []model.HostPort{{Host: 80, Pod: 8080, Protocol: "tcp"}}
	many.Pods = []model.Pod{p, pod("y", 3)}
	a, b := tableOf(t, Build(few).State, "inet"), tableOf(t, Build(many).State, "inet")
	for i := range a.Chains {
		if !slices.Equal(a.Chains[i].Rules, b.Chains[i].Rules) {
			t.Errorf("%s differs", a.Chains[i].Name)
		}
		for _, r := range a.Chains[i].Rules {
			if r.Fingerprint == "" {
				t.Errorf("%q is not signed", r.Text)
			}
		}
	}
}
