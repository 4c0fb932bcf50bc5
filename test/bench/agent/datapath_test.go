package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/bench/apiserver"
	"github.com/podnet/podnet/test/netns/topology"
)

const (
	// rounds is how often each connection is measured, one after the other and then all
	// again: what the machine does besides changes meanwhile.
	rounds = 31
	// measured is how long.
	measured = 100 * time.Millisecond
)

// talk is a connection, and how it did in each round: microseconds of a round trip,
// and Gbit/s of a stream.
type talk struct {
	*connection
	roundTrips, streams []float64
}

// round measures the connection once more.
func (t *talk) round(b *testing.B) {
	b.Helper()
	t.roundTrips = append(t.roundTrips, float64(t.roundTrip(b, measured).Nanoseconds())/1000)
	t.streams = append(t.streams, t.stream(b, measured)/1e9)
}

// report reports the medians, and what they are of those of another connection in the
// same round: medians and quartiles.
func (t *talk) report(b *testing.B, host *talk) {
	b.Helper()
	for _, of := range []struct {
		unit          string
		values, hosts []float64
	}{{"µs/round-trip", t.roundTrips, host.roundTrips}, {"Gbit/s", t.streams, host.streams}} {
		b.ReportMetric(quantile(of.values, 0.5), of.unit)
		all := ratios(of.values, of.hosts)
		for _, q := range []struct {
			name string
			at   float64
		}{{"", 0.5}, {":q1", 0.25}, {":q3", 0.75}} {
			b.ReportMetric(quantile(all, q.at), "ratio:"+of.unit+q.name)
		}
	}
}

// BenchmarkDataPath measures what a pod network costs packets, by one TCP connection whose
// two ends are on one processor: between two machines without any, between pods of podnet,
// and between pods on bridges with routes or a tunnel made by hand, which is what the
// plainest pod networks have. Each has machines of its own on an underlay of its own.
func BenchmarkDataPath(b *testing.B) {
	topology.Require(b)
	type column struct {
		name string
		talk *talk
	}
	var columns []column
	add := func(name string, c *connection) { columns = append(columns, column{name, &talk{connection: c}}) }
	add("host", bareHosts(b))
	many := policyCounts[len(policyCounts)-1]
	if testing.Short() {
		many = 1
	}
	for _, mode := range []model.Mode{model.ModeRouted, model.ModeOverlay} {
		same, other := podsByHand(b, mode)
		add(fmt.Sprintf("by-hand,%s", mode), other)
		if mode == model.ModeRouted {
			add("by-hand,same-node", same)
		}
		for _, policies := range []int{0, many} {
			same, other := policedPods(b, mode, policies)
			add(fmt.Sprintf("podnet,%s,policies=%d", mode, policies), other)
			if mode == model.ModeRouted {
				add(fmt.Sprintf("podnet,same-node,policies=%d", policies), same)
			}
		}
	}
	for range apiserver.Few(rounds) {
		for _, c := range columns {
			c.talk.round(b)
		}
	}
	for _, c := range columns {
		b.Run(c.name, func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // of all of these together
			c.talk.report(b, columns[0].talk)
		})
	}
}

// bareHosts connects two machines that have no pod network.
func bareHosts(b *testing.B) *connection {
	b.Helper()
	underlay := topology.NewUnderlay(b, 1500)
	one := underlay.AddHost(b, "bare-1", topology.Families{IPv4: true})
	other := underlay.AddHost(b, "bare-2", topology.Families{IPv4: true})
	return connect(b, one.Namespace, other.Namespace, netip.AddrPortFrom(other.IPv4.Addr(), servedPort))
}

// podsByHand makes two nodes whose pods hang on bridges, as those of the reference plugin
// bridge with ipMasq do, and connects a pod to one of its own node and to one of the other.
// Between the nodes lead routes, or a VXLAN device with permanent entries, as flannel makes it.
func podsByHand(b *testing.B, mode model.Mode) (same, other *connection) {
	b.Helper()
	underlay := topology.NewUnderlay(b, 1500)
	var nodes [2]*topology.Host
	for i := range nodes {
		nodes[i] = underlay.AddHost(b, fmt.Sprintf("by-hand-%d", i), topology.Families{IPv4: true})
	}
	pods := map[string]*topology.Namespace{}
	for i, node := range nodes {
		mtu := 1500
		if mode == model.ModeOverlay {
			mtu = 1450
		}
		node.Sysctl(b, "net/ipv4/ip_forward", "1")
		node.Script(b, fmt.Sprintf(`
			ip link add cni0 mtu %[2]d type bridge
			ip addr add 10.0.%[1]d.1/24 dev cni0
			ip link set cni0 up
			nft add table ip hand
			nft add chain ip hand post { type nat hook postrouting priority srcnat; }
			nft add rule ip hand post ip saddr 10.0.0.0/16 ip daddr 10.0.0.0/16 return
			nft add rule ip hand post ip saddr 10.0.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
			nft add chain ip hand forward { type filter hook forward priority filter; }
			nft add rule ip hand forward ip saddr 10.0.0.0/16 accept
			nft add rule ip hand forward ip daddr 10.0.0.0/16 accept
		`, i, mtu))
		for _, last := range []int{2, 3} {
			addr := fmt.Sprintf("10.0.%d.%d", i, last)
			pod := topology.NewNamespace(b, fmt.Sprintf("by-hand-%s", addr))
			pod.Script(b, fmt.Sprintf("ip link add eth0 mtu %d type veth peer name veth%d netns %s", mtu, last, node.Path()))
			node.Script(b, fmt.Sprintf("ip link set veth%[1]d mtu %[2]d master cni0 up", last, mtu))
			pod.Script(b, fmt.Sprintf(`
				ip addr add %s/24 dev eth0
				ip link set eth0 up
				ip route add default via 10.0.%d.1
			`, addr, i))
			pods[addr] = pod
		}
	}
	for i, node := range nodes {
		to := 1 - i
		if mode == model.ModeRouted {
			node.Script(b, fmt.Sprintf("ip route add 10.0.%d.0/24 via %s", to, nodes[to].IPv4.Addr()))
			continue
		}
		node.Script(b, fmt.Sprintf(`
			ip link add hand.1 address 02:00:00:00:00:0%[1]d mtu 1450 type vxlan id 1 local %[2]s dev eth0 dstport 8472 nolearning
			ip addr add 10.0.%[1]d.0/32 dev hand.1
			ip link set hand.1 up
			ip neigh add 10.0.%[3]d.0 dev hand.1 lladdr 02:00:00:00:00:0%[3]d nud permanent
			bridge fdb add 02:00:00:00:00:0%[3]d dev hand.1 dst %[4]s self permanent
			ip route add 10.0.%[3]d.0/24 via 10.0.%[3]d.0 dev hand.1 onlink
		`, i, node.IPv4.Addr(), to, nodes[to].IPv4.Addr()))
	}
	at := func(addr string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(addr), servedPort) }
	from := pods["10.0.0.2"]
	return connect(b, from, pods["10.0.0.3"], at("10.0.0.3")), connect(b, from, pods["10.0.1.2"], at("10.0.1.2"))
}

// ratios compares what was measured in the same round.
func ratios(of, to []float64) []float64 {
	var out []float64
	for i := range of {
		out = append(out, of[i]/to[i])
	}
	return out
}

// middle is the median of values.
func middle(values []float64) float64 { return quantile(values, 0.5) }

// quantile is the value below which such a part of the values is.
func quantile[T cmp.Ordered](values []T, part float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}
