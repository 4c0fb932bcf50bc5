package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

// metrics are the enforcer's counters, by their names with the values of labels after them.
func (n *policyNode) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(n.enforcer); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue()
		}
	}
	return values
}

const deniedPackets = "podnet_agent_policy_denied_packets_total"

// send sends datagrams of which nothing comes back.
func send(t *testing.T, from *pod, to netip.Addr, number uint16, times int) {
	t.Helper()
	for range times {
		if err := from.SendFrom(from.Addrs[model.FamilyIndex(to)], to, number, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
}

// sendStray sends an answer to an echo request that nobody has made.
func sendStray(t *testing.T, from *pod, to netip.Addr) {
	t.Helper()
	from.Do(t, func() error {
		conn, err := net.Dial("ip4:icmp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte{0, 0, 0xff, 0xff, 0, 0, 0, 0})
		return err
	})
}

// settles waits until policies are enforced, and the table is not replaced any more as it is
// when the loop begins to watch: what comes meanwhile may be counted by none. Tries are by
// UDP: what TCP sends again later would be denied, and counted, then.
func (n *policyNode) settles(t *testing.T, enforced func() bool) {
	t.Helper()
	becomes(t, "the policies are enforced", enforced)
	for before := -1; before != n.replaced(); {
		before = n.replaced()
		time.Sleep(time.Second)
	}
}

// Whatever denies a packet, it is counted once, and no table that comes later forgets it.
func TestDeniedPacketsAreCounted(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	server := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "server"})
	client := c.addPod(t, c.nodes[0], "blue", nil)
	confined := c.addPod(t, c.nodes[0], "green", nil)
	n := newPolicyNode(t, c)
	http := int32(80)
	n.change(func(o *model.PolicyObjects) {
		o.NetworkPolicies = []model.NetworkPolicy{
			{Namespace: "red", Name: "web", Ingress: []model.PolicyRule{{Ports: []model.PolicyPort{{Protocol: "UDP", Port: &http}}}}},
			{Namespace: "green", Name: "deny", Types: []model.PolicyType{model.PolicyEgress}},
		}
	})
	n.settles(t, func() bool {
		return !connects(client.Namespace, "udp", server.Addrs[0], port, soon) && !connects(confined.Namespace, "udp", client.Addrs[0], port, soon)
	})
	expect := func(what string, want float64, act func()) {
		t.Helper()
		before := n.metrics(t)[deniedPackets]
		act()
		if got := n.metrics(t)[deniedPackets] - before; got != want {
			t.Errorf("%s: %v packets are counted, want %v", what, got, want)
		}
	}
	for _, to := range server.Addrs {
		expect("denied by ports", 20, func() { send(t, client, to, 81, 20) })
		expect("allowed", 0, func() { send(t, client, to, 80, 20) })
		expect("denied at the sender", 20, func() { send(t, confined, to, 80, 20) })
	}
	expect("of no connection", 1, func() { sendStray(t, client, server.Addrs[0]) })
	// The loop's own changes of a moment ago are told apart.
	time.Sleep(3 * time.Second)
	for _, harm := range []string{"add chain inet " + model.PolicyTable + " foreign", "delete table inet " + model.PolicyTable} {
		before, whole := n.metrics(t)[deniedPackets], n.replaced()
		n.Run(t, append([]string{"nft"}, strings.Fields(harm)...)...)
		becomes(t, "the table is replaced after "+harm, func() bool { return n.replaced() > whole })
		if got := n.metrics(t)[deniedPackets]; got != before {
			t.Errorf("%v packets were counted before %s, and %v after", before, harm, got)
		}
		expect("after "+harm, 5, func() { send(t, client, server.Addrs[0], 81, 5) })
	}
}

// A kernel that refuses a change is reported with its reason, until it takes the change: here a
// program owns the table, so that nobody else may change it.
func TestRefusedPoliciesAreToldOf(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	server := c.addPod(t, c.nodes[0], "red", nil)
	client := c.addPod(t, c.nodes[0], "blue", nil)
	let := own(t, c.nodes[0].Namespace, "inet", model.PolicyTable)
	n := newPolicyNode(t, c)
	n.change(func(o *model.PolicyObjects) {
		o.NetworkPolicies = []model.NetworkPolicy{{Namespace: "red", Name: "deny"}}
	})
	told := func() bool {
		return slices.ContainsFunc(n.enforcer.Problems(), func(p model.Problem) bool {
			return p.Reason == model.ReasonKernelError && strings.Contains(p.Message, "Operation not permitted")
		})
	}
	becomes(t, "the refusal is reported", told)
	if !connects(client.Namespace, "tcp", server.Addrs[0], port, patience) {
		t.Error("what the kernel refused is enforced")
	}
	let()
	becomes(t, "nothing is reported any more", func() bool { return len(n.enforcer.Problems()) == 0 })
	if connects(client.Namespace, "tcp", server.Addrs[0], port, soon) {
		t.Error("the policy is not enforced")
	}
}

// own makes a table that no other program may change, and returns what lets go of it.
func own(t *testing.T, in *topology.Namespace, family, table string) (let func()) {
	t.Helper()
	nft := exec.Command("nft", "--interactive")
	stdin, err := nft.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	in.Do(t, nft.Start)
	let = sync.OnceFunc(func() {
		stdin.Close()
		// It ends with its input.
		if err := nft.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(let)
	if _, err := fmt.Fprintf(stdin, "add table %s %s { flags owner; }\n", family, table); err != nil {
		t.Fatal(err)
	}
	becomes(t, "the table is there", func() bool { return strings.Contains(in.Run(t, "nft", "list", "tables"), table) })
	return let
}

// told returns the sentences on the denials of which Events were made, and forgets them.
func (n *policyNode) told() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var sentences []string
	for _, d := range n.denials {
		sentences = append(sentences, d.String())
	}
	n.denials = nil
	return sentences
}

// deniedChain is the chain in which denied packets end, as nft lists it.
func (n *policyNode) deniedChain(t *testing.T) string {
	t.Helper()
	return n.Run(t, "nft", "list", "chain", "inet", model.PolicyTable, "denied")
}

// Of denied packets a sample is reported with names, as long as that is asked for. However
// many are denied, the kernel bounds the sample.
func TestDeniedPacketsAreToldOf(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	server := c.addPod(t, c.nodes[0], "red", nil)
	client := c.addPod(t, c.nodes[0], "blue", nil)
	n := newPolicyNode(t, c)
	ask := func(how model.DeniedPackets) {
		n.change(func(o *model.PolicyObjects) {
			n.asks = how
			o.NetworkPolicies = []model.NetworkPolicy{{Namespace: "red", Name: "deny"}}
			o.ClusterPolicies = []model.ClusterPolicy{{Name: "no-node", Egress: []model.TierRule{
				{Field: "egress[0]", Action: model.PolicyDeny, Peers: []model.PolicyPeer{{Nodes: &model.Selector{}}}},
			}}}
		})
	}
	ask(model.DeniedIgnored)
	n.settles(t, func() bool { return !connects(client.Namespace, "udp", server.Addrs[0], port, soon) })
	if chain := n.deniedChain(t); strings.Contains(chain, "log") || strings.Contains(chain, "limit") {
		t.Errorf("nobody has asked for denied packets, and the chain is %s", chain)
	}
	ask(model.DeniedEvents)
	becomes(t, "denied packets are given", func() bool { return strings.Contains(n.deniedChain(t), "log") })
	expect := func(act func(), want string) {
		t.Helper()
		var told []string
		n.told()
		becomes(t, want, func() bool {
			act()
			told = append(told, n.told()...)
			return slices.Contains(told, want)
		})
		if len(told) != 1 {
			t.Errorf("told is %q, want %q alone", told, want)
		}
	}
	for i, to := range server.Addrs {
		expect(func() { send(t, client, to, 81, 1) }, fmt.Sprintf("Ingress of pod red/%s denied: UDP from pod blue/%s (%s) to port 81 of pod red/%s (%s). "+
			"No rule of the NetworkPolicies that select the pod (deny) allows it.", server.Pod.Name, client.Pod.Name, client.Addrs[i], server.Pod.Name, to))
	}
	here := c.nodes[0].Address(true)
	expect(func() { send(t, client, here, 81, 1) }, fmt.Sprintf("Egress of pod blue/%s denied: UDP from pod blue/%s (%s) to port 81 of node %s (%s). "+
		"Rule egress[0] of ClusterNetworkPolicy no-node denies it.", client.Pod.Name, client.Pod.Name, client.Addrs[0], c.nodes[0].Name, here))
	expect(func() { sendStray(t, client, server.Addrs[0]) }, fmt.Sprintf("Egress of pod blue/%s denied: ICMP from pod blue/%s (%s) to pod red/%s (%s). "+
		"It belongs to no connection that the kernel knows, so that nobody can tell whether policies allow it.",
		client.Pod.Name, client.Pod.Name, client.Addrs[0], server.Pod.Name, server.Addrs[0]))

	const flood = 10000
	denied, given, began := n.metrics(t)[deniedPackets], n.given.Load(), time.Now()
	send(t, client, server.Addrs[0], 82, flood)
	if got := n.metrics(t)[deniedPackets] - denied; got != flood {
		t.Errorf("%v packets are counted, want %d", got, flood)
	}
	// The kernel keeps packets for a second, to give several at once.
	time.Sleep(1500 * time.Millisecond)
	took := time.Since(began)
	most := int64(10 + 5*(took.Seconds()+1))
	if got := n.given.Load() - given; got == 0 || got > most {
		t.Errorf("of %d packets within %s the kernel gives %d, want some, and %d at most", flood, took, got, most)
	}
	ask(model.DeniedIgnored)
	becomes(t, "denied packets are not given any more", func() bool { return !strings.Contains(n.deniedChain(t), "log") })
	n.told()
	send(t, client, server.Addrs[0], 83, 10)
	time.Sleep(1500 * time.Millisecond)
	if told := n.told(); len(told) > 0 {
		t.Errorf("nobody asks any more, and told is %q", told)
	}
}

// Who else reads the kernel's sample is reported, and policies are enforced all the same.
func TestSampleThatCannotBeHadIsToldOf(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	server := c.addPod(t, c.nodes[0], "red", nil)
	client := c.addPod(t, c.nodes[0], "blue", nil)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- c.nodes[0].Try(func() error {
			return netfilter.Log{NFT: c.nodes[0].nft}.WatchDenied(ctx, func() { close(ready) }, func(model.DeniedPacket) {})
		})
	}()
	<-ready
	n := newPolicyNode(t, c)
	n.change(func(o *model.PolicyObjects) {
		n.asks = model.DeniedLogged
		o.NetworkPolicies = []model.NetworkPolicy{{Namespace: "red", Name: "deny"}}
	})
	becomes(t, "the policy is enforced", func() bool { return !connects(client.Namespace, "tcp", server.Addrs[0], port, soon) })
	becomes(t, "the other reader is reported", func() bool {
		return slices.ContainsFunc(n.enforcer.Problems(), func(p model.Problem) bool { return strings.Contains(p.Message, "another program reads it") })
	})
	if chain := n.deniedChain(t); strings.Contains(chain, "log") {
		t.Errorf("the chain is %s", chain)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	becomes(t, "nothing is reported any more", func() bool {
		return len(n.enforcer.Problems()) == 0 && strings.Contains(n.deniedChain(t), "log")
	})
}
