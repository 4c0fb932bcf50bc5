package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/bench/apiserver"
	"github.com/podnet/podnet/test/netns/topology"
)

// policyCounts are how many policies select the pods between which packets are sent.
// With none the pods are not isolated; with one they are.
var policyCounts = []int{0, 1, 100, 10_000}

// BenchmarkPolicyPackets measures what policies cost packets: between two pods of one
// node, and between pods of two nodes. Each number of policies has nodes of its own.
func BenchmarkPolicyPackets(b *testing.B) {
	topology.Require(b)
	ways := []string{"same-node", "two-nodes"}
	talks := map[string][]*talk{}
	counts := apiserver.Smallest(policyCounts)
	for _, count := range counts {
		same, other := policedPods(b, model.ModeRouted, count)
		talks[ways[0]] = append(talks[ways[0]], &talk{connection: same})
		talks[ways[1]] = append(talks[ways[1]], &talk{connection: other})
	}
	for range apiserver.Few(rounds) {
		for _, way := range ways {
			for _, t := range talks[way] {
				t.round(b)
			}
		}
	}
	for i, count := range counts {
		b.Run(fmt.Sprintf("policies=%d", count), func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // of all of these together
			for _, way := range ways {
				is, without := talks[way][i], talks[way][0]
				b.ReportMetric(middle(is.roundTrips), "µs/round-trip:"+way)
				b.ReportMetric(middle(is.streams), "Gbit/s:"+way)
				b.ReportMetric(middle(ratios(is.roundTrips, without.roundTrips)), "ratio:round-trip:"+way)
				b.ReportMetric(middle(ratios(is.streams, without.streams)), "ratio:Gbit/s:"+way)
			}
		})
	}
}

// policedPods makes two nodes with pods that so many policies select, and paths of a mode
// between them. It connects one of the pods to a pod of its own node and to one of the other node.
func policedPods(b *testing.B, mode model.Mode, policies int) (same, other *connection) {
	b.Helper()
	c := newCluster(1)
	c.blocks[1].CIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 1, 0}), 24)
	c.modes = []model.RouteMode{{Name: "forced", Mode: mode, Forced: true, Between: []model.Selector{{}, {}}}}
	underlay := topology.NewUnderlay(b, 1500)
	var nodes []*agent
	for i := range c.blocks {
		node := newAgentOn(b, underlay, c.blocks[i].Node, c)
		c.blocks[i].Endpoints = []netip.Addr{node.IPv4.Addr()}
		nodes = append(nodes, node)
	}
	c.policy = policyObjects(policies)
	c.elsewhere = []model.Block{{Name: "elsewhere", Node: "elsewhere", CIDR: netip.MustParsePrefix("10.128.0.0/22"), State: model.BlockActive}}
	for _, node := range nodes {
		node.begin(b)
	}
	var pods []*topology.Namespace
	for i, on := range []int{0, 0, 1} {
		pods = append(pods, nodes[on].attach(b, c.policy.Pods[i]))
	}
	for _, node := range nodes {
		node.Do(b, func() error { return node.enforcer.Pass(b.Context()) })
	}
	at := func(i int, port uint16) netip.AddrPort { return netip.AddrPortFrom(c.policy.Pods[i].Addrs[0], port) }
	for _, i := range []int{1, 2} {
		isolated := pods[0].Try(func() error { return refused(at(i, servedPort+1)) }) != nil
		if isolated != (policies > 0) {
			b.Fatalf("with %d policies a pod is isolated: %t", policies, isolated)
		}
	}
	return connect(b, pods[0], pods[1], at(1, servedPort)), connect(b, pods[0], pods[2], at(2, servedPort))
}

// refused returns an error unless a port where nobody serves answers that it is closed,
// as that of a pod that is not isolated does.
func refused(at netip.AddrPort) error {
	conn, err := net.DialTimeout("tcp", at.String(), 300*time.Millisecond)
	if err == nil {
		return conn.Close()
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

// servedPort is where pods serve.
const servedPort = 8080

// policyObjects are three pods, two of the first node and one of the second, among
// others elsewhere, and policies that all select them. What the three have with each other
// only the last one allows.
func policyObjects(policies int) model.PolicyObjects {
	o := model.PolicyObjects{Namespaces: []model.Namespace{{Name: "team"}}}
	for i, addr := range []string{"10.0.0.2", "10.0.0.3", "10.0.1.2"} {
		name, node := fmt.Sprint("talking", i), self
		if i == 2 {
			node = peer(0).Node
		}
		o.Pods = append(o.Pods, model.ClusterPod{
			Namespace: "team", Name: name, UID: name, Labels: map[string]string{"app": "talking"}, Node: node, Addrs: []netip.Addr{netip.MustParseAddr(addr)},
		})
	}
	for i := range 1000 {
		name := fmt.Sprint("other", i)
		o.Pods = append(o.Pods, model.ClusterPod{
			Namespace: "team", Name: name, UID: name, Labels: map[string]string{"app": fmt.Sprint("a", i%100)},
			Node: "elsewhere", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 128, byte(i >> 8), byte(i)})},
		})
	}
	both := []model.PolicyType{model.PolicyIngress, model.PolicyEgress}
	for i := range policies {
		apps := &model.Selector{{Key: "app", Operator: model.In, Values: []string{fmt.Sprint("a", i%100)}}}
		port := int32(i%1000 + 1)
		if i == policies-1 {
			apps, port = &model.Selector{{Key: "app", Operator: model.In, Values: []string{"talking"}}}, servedPort
		}
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i % 1000 >> 8), byte(i % 1000)}), 32)
		rule := []model.PolicyRule{{
			Peers: []model.PolicyPeer{{Pods: apps}, {Block: &model.IPBlock{CIDR: block}}}, Ports: []model.PolicyPort{{Protocol: "TCP", Port: &port}},
		}}
		o.NetworkPolicies = append(o.NetworkPolicies, model.NetworkPolicy{
			Namespace: "team", Name: fmt.Sprint("policy", i), Types: both, Ingress: rule, Egress: rule,
		})
	}
	return o
}
