package netns

import (
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
	becomes(t, "the policies are enforced", func() bool {
		return !connects(client.Namespace, "tcp", server.Addrs[0], port, soon) && !connects(confined.Namespace, "tcp", client.Addrs[0], port, soon)
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

// A kernel that refuses a change is told of with its reason, until it takes the change: here a
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
	becomes(t, "the refusal is told of", told)
	if !connects(client.Namespace, "tcp", server.Addrs[0], port, patience) {
		t.Error("what the kernel refused is enforced")
	}
	let()
	becomes(t, "nothing is told of any more", func() bool { return len(n.enforcer.Problems()) == 0 })
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
