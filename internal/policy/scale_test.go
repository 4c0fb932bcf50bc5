package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// large makes a cluster of namespaces with 100 pods each, of which the attached ones
// are of the first, and policies that are spread over the namespaces. All policies of
// a namespace select all of its pods where alike is set.
func large(pods, attached, policies int, alike bool) policytest.World {
	var w policytest.World
	for i := range (pods + 255) / 256 {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + i>>8), byte(i), 0}), 24)
		w.Blocks = append(w.Blocks, model.Block{Name: cidr.String(), CIDR: cidr, Node: fmt.Sprint("node", i)})
	}
	for i := range pods {
		namespace := fmt.Sprintf("ns%d", i/100)
		if i%100 == 0 {
			w.Objects.Namespaces = append(w.Objects.Namespaces, model.Namespace{Name: namespace, Labels: labels("team=" + namespace)})
		}
		w.Objects.Pods = append(w.Objects.Pods, model.ClusterPod{
			Namespace: namespace, Name: fmt.Sprint("pod", i), UID: fmt.Sprint(i), Labels: labels(fmt.Sprintf("app=a%d tier=t%d", i%20, i%3)),
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(128 + i>>16), byte(i >> 8), byte(i)})}, Node: fmt.Sprint("node", i>>8),
		})
	}
	for i := range attached {
		name := fmt.Sprint("local", i)
		addr := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		w.Objects.Pods = append(w.Objects.Pods, model.ClusterPod{
			Namespace: "ns0", Name: name, UID: name, Labels: labels(fmt.Sprintf("app=a%d tier=t%d", i%20, i%3)), Addrs: []netip.Addr{addr},
		})
		w.Attached = append(w.Attached, model.Pod{ContainerID: name, IfName: "eth0", Namespace: "ns0", Name: name, UID: name, Addrs: []netip.Addr{addr}})
	}
	for i := range policies {
		p := model.NetworkPolicy{
			Namespace: fmt.Sprintf("ns%d", i%max(1, pods/100)), Name: fmt.Sprint("policy", i), Pods: selector(fmt.Sprintf("app=a%d", i/100%20)),
			Types:   []model.PolicyType{model.PolicyIngress, model.PolicyEgress},
			Ingress: []model.PolicyRule{{Peers: []model.PolicyPeer{clients(i), namespaces("")}, Ports: []model.PolicyPort{number("TCP", int32(i%1000+1))}}},
			Egress:  []model.PolicyRule{{Peers: []model.PolicyPeer{namespaces(fmt.Sprintf("team=ns%d", i%200)), block("192.0.2.0/24")}}},
		}
		if alike {
			p.Namespace, p.Pods = "ns0", model.Selector{}
			p.Ingress[0].Peers = []model.PolicyPeer{clients(i), block(fmt.Sprintf("198.18.%d.%d/32", i>>8&255, i&255))}
		}
		w.Objects.NetworkPolicies = append(w.Objects.NetworkPolicies, p)
	}
	return w
}

func clients(i int) model.PolicyPeer { return pods(fmt.Sprintf("app=a%d tier=t%d", i%20, i%3)) }

// A packet meets the same number of rules however many pods and policies there are:
// this one has to pass both of its ends' policies.
func TestPacketsMeetTheSameNumberOfRules(t *testing.T) {
	for what, w := range map[string]policytest.World{
		"10 pods, 1 policy": large(100, 10, 1, true), "250 pods, 1 policy": large(100, 250, 1, true),
		"10,000 policies of one pod": large(100, 10, 10_000, true), "250 pods, 1,000 policies": large(1000, 250, 1000, true),
	} {
		table := NewIndex(w.Objects, w.Blocks).Build(w.Attached).Tables[0]
		c := policytest.Connection{Client: w.Attached[0].Addrs[0], Server: w.Attached[1].Addrs[0], Protocol: "tcp", Port: 1}
		passes, rules, err := policytest.Verdict(table, policytest.Packet{Connection: c})
		if err != nil || !passes || !w.Allowed(c) {
			t.Errorf("%s: passes %t (%v), want true", what, passes, err)
		}
		if rules != 12 {
			t.Errorf("%s: a packet meets %d rules", what, rules)
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	w := large(100_000, 250, 10_000, false)
	for b.Loop() {
		NewIndex(w.Objects, w.Blocks)
	}
}

// BenchmarkBuild is what a change costs on a node of a large cluster.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []struct{ pods, policies, clusterPolicies int }{{1000, 100, 0}, {100_000, 10_000, 0}, {100_000, 10_000, 20}} {
		b.Run(fmt.Sprintf("%d_pods_%d_policies_%d_of_the_cluster", n.pods, n.policies, n.clusterPolicies), func(b *testing.B) {
			w := large(n.pods, 250, n.policies, false)
			w.Objects.ClusterPolicies = tiers(n.clusterPolicies)
			x := NewIndex(w.Objects, w.Blocks)
			var result Result
			for b.Loop() {
				result = x.Build(w.Attached)
			}
			elements := 0
			for _, s := range result.Tables[0].Sets {
				elements += len(s.Elements)
			}
			b.ReportMetric(float64(elements), "elements")
			b.ReportMetric(float64(len(result.Tables[0].Chains)), "chains")
		})
	}
}

// tiers makes policies of the cluster about all pods: half of them of each tier.
func tiers(n int) []model.ClusterPolicy {
	var out []model.ClusterPolicy
	for i := range n {
		out = append(out, model.ClusterPolicy{
			Name: fmt.Sprint("cluster", i), Tier: model.Tier(i % tierCount), Priority: int32(i),
			Ingress: []model.TierRule{
				{Action: model.PolicyPass, Peers: []model.PolicyPeer{namespaces(fmt.Sprintf("team=ns%d", i))}},
				{Action: model.PolicyDeny, Peers: []model.PolicyPeer{namespaces("")}, Ports: []model.PolicyPort{number("TCP", int32(8000+i))}},
			},
			Egress: []model.TierRule{{Action: model.PolicyDeny, Peers: []model.PolicyPeer{block(fmt.Sprintf("198.18.%d.0/24", i))}}},
		})
	}
	return out
}
