package envtest

import (
	"context"
	"encoding/json"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// values are those below the chart's "network".
type values = map[string]any

// rangesOf are values of nothing but ranges.
func rangesOf(cidrs ...string) values {
	var list []any
	for _, cidr := range cidrs {
		list = append(list, values{"cidr": cidr})
	}
	return values{"ranges": list}
}

func blocksOfLength(cidr string, length int) values {
	return values{"ranges": []any{values{"cidr": cidr, "nodePrefixLength": length}}}
}

func alsoValues(key string, value any) values {
	v := rangesOf("10.244.0.0/16")
	v[key] = value
	return v
}

var _ = Describe("The chart's values", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	// asks the API server for its opinion of a spec, without making anything.
	opinion := func(ctx context.Context, spec []byte) error {
		network := podNetwork()
		if err := json.Unmarshal(spec, &network.Spec); err != nil {
			return err
		}
		return api.Create(ctx, network, client.DryRunAll)
	}

	DescribeTable("that the API would refuse are refused before anything is made",
		func(ctx context.Context, v values, sentence types.GomegaMatcher) {
			spec, err := json.Marshal(v)
			Expect(err).NotTo(HaveOccurred())
			Expect(opinion(ctx, spec)).NotTo(Succeed(), "the API server takes it")
			Expect(renderedSpec(ctx, helmBinary(ctx), v)).Error().To(MatchError(sentence))
		},
		Entry("no CIDR", rangesOf("10.244.0.0"), ContainSubstring(`network.ranges[0].cidr: "10.244.0.0" is no CIDR. Write one like`)),
		Entry("a number too many", rangesOf("10.244.0.0.0/16"), ContainSubstring("is no CIDR")),
		Entry("a number too large", rangesOf("10.256.0.0/16"), ContainSubstring("is no CIDR")),
		Entry("a leading zero", rangesOf("10.044.0.0/16"), ContainSubstring("is no CIDR")),
		Entry("a length too large", rangesOf("10.244.0.0/33"), ContainSubstring("is no CIDR")),
		Entry("a length with a leading zero", rangesOf("10.244.0.0/016"), ContainSubstring("is no CIDR")),
		Entry("a length too large, IPv6", rangesOf("fd00::/129"), ContainSubstring("is no CIDR")),
		Entry("IPv6 too short", rangesOf("fd00:1:2/48"), ContainSubstring("is no CIDR")),
		Entry("IPv6 too long", rangesOf("fd00:1:2:3:4:5:6::7/128"), ContainSubstring("is no CIDR")),
		Entry("IPv6 shortened twice", rangesOf("fd00::1::/48"), ContainSubstring("is no CIDR")),
		Entry("IPv4 in the dress of IPv6", rangesOf("::ffff:10.0.0.0/104"), ContainSubstring("is no CIDR")),
		Entry("IPv4 in the dress of IPv6, in hexadecimal", rangesOf("::ffff:a00:0/104"), ContainSubstring("is no CIDR")),
		Entry("host bits set", rangesOf("10.244.0.1/16"), ContainSubstring("10.244.0.1/16 has bits set beyond its prefix length. Write its first address, 10.244.0.0/16,")),
		Entry("host bits set within a byte", rangesOf("10.244.255.0/20"), ContainSubstring("Write its first address, 10.244.240.0/20,")),
		Entry("host bits set, IPv6", rangesOf("fd00:a:244:4000::/49"), ContainSubstring("Write its first address, fd00:a:244::/49,")),
		Entry("not the shortest form", rangesOf("fd00:0a:244::/48"), ContainSubstring("Write fd00:a:244::/48.")),
		Entry("not in lower case", rangesOf("FD00:a:244::/48"), ContainSubstring("Write fd00:a:244::/48.")),
		Entry("zeros written out", rangesOf("fd00:a:244:0:0:0:0:0/48"), ContainSubstring("Write fd00:a:244::/48.")),
		Entry("the wrong zeros left out", values{"ranges": []any{values{"cidr": "fd00::1:0:0:0:0/80", "nodePrefixLength": 90}}},
			ContainSubstring("Write fd00:0:0:1::/80.")),
		Entry("range smaller than a block", rangesOf("10.244.0.0/25"), ContainSubstring("smaller than the block of one node, a /24")),
		Entry("range smaller than a block, IPv6", rangesOf("fd00:a:244::/96"), ContainSubstring("smaller than the block of one node, a /64")),
		Entry("block larger than its range", blocksOfLength("10.244.0.0/16", 12), ContainSubstring("network.ranges[0].nodePrefixLength: 12 is smaller than")),
		Entry("block without room", blocksOfLength("10.244.0.0/16", 31), ContainSubstring("leaves no room for pods. Write a number from 16 to 30.")),
		Entry("block without room, IPv6", blocksOfLength("fd00:a:244::/48", 127), ContainSubstring("/network/ranges/0/nodePrefixLength")),
		Entry("the same range twice", rangesOf("10.244.0.0/16", "10.244.0.0/16"), ContainSubstring("network.ranges[1].cidr: 10.244.0.0/16 overlaps 10.244.0.0/16")),
		Entry("overlapping ranges", rangesOf("10.244.0.0/16", "10.245.0.0/16", "10.244.128.0/17"), ContainSubstring("network.ranges[2].cidr: 10.244.128.0/17 overlaps 10.244.0.0/16")),
		Entry("overlapping ranges, the larger one last", rangesOf("fd00:a:244::/48", "fd00::/16"), ContainSubstring("overlaps fd00:a:244::/48")),
		Entry("everything", rangesOf("0.0.0.0/0"), ContainSubstring("0.0.0.0/0 overlaps 0.0.0.0/8, whose addresses no pod can have")),
		Entry("everything, IPv6", rangesOf("::/0"), ContainSubstring("::/0 overlaps ::/8, whose addresses no pod can have")),
		Entry("loopback", rangesOf("127.16.0.0/16"), ContainSubstring("overlaps 127.0.0.0/8")),
		Entry("loopback, IPv6", blocksOfLength("::/16", 64), ContainSubstring("overlaps ::/8")),
		Entry("link-local", rangesOf("169.254.64.0/18"), ContainSubstring("overlaps 169.254.0.0/16")),
		Entry("link-local, IPv6", rangesOf("fe80:1::/32"), ContainSubstring("overlaps fe80::/10")),
		Entry("multicast", rangesOf("239.0.0.0/16"), ContainSubstring("overlaps 224.0.0.0/3")),
		Entry("multicast, IPv6", rangesOf("ff02::/32"), ContainSubstring("overlaps ff00::/8")),
		Entry("too large", rangesOf("10.0.0.0/7"), ContainSubstring("10.0.0.0/7 is larger than a network can use. Write a prefix length of at least 8.")),
		Entry("too large, IPv6", rangesOf("fc00::/15"), ContainSubstring("fc00::/15 is larger than a network can use. Write a prefix length of at least 16.")),
		Entry("no range", rangesOf(), ContainSubstring("network.ranges is empty")),
		Entry("unknown attachment", alsoValues("attachment", "Macvlan"), ContainSubstring("/network/attachment")),
		Entry("unknown mode", alsoValues("routeMode", "Tunnel"), ContainSubstring("/network/routeMode")),
		Entry("unknown encapsulation", alsoValues("overlay", values{"encapsulation": "GRE"}), ContainSubstring("/network/overlay/encapsulation")),
		Entry("VNI too large", alsoValues("overlay", values{"vni": 1 << 24}), ContainSubstring("/network/overlay/vni")),
		Entry("port too large", alsoValues("overlay", values{"port": 65536}), ContainSubstring("/network/overlay/port")),
		Entry("MTU that IPv6 cannot use", alsoValues("mtu", 1000), ContainSubstring("/network/mtu")),
		Entry("MTU too large", alsoValues("mtu", 65536), ContainSubstring("/network/mtu")),
		Entry("an exclusion that is no CIDR", alsoValues("masquerade", values{"excludeCIDRs": []any{"192.168.0.0"}}),
			ContainSubstring(`network.masquerade.excludeCIDRs[0]: "192.168.0.0" is no CIDR`)),
		Entry("an exclusion with host bits", alsoValues("masquerade", values{"excludeCIDRs": []any{"192.168.0.0/16", "192.168.1.1/24"}}),
			ContainSubstring("network.masquerade.excludeCIDRs[1]: 192.168.1.1/24 has bits set beyond its prefix length")),
		Entry("an exclusion twice", alsoValues("masquerade", values{"excludeCIDRs": []any{"192.168.0.0/16", "192.168.0.0/16"}}),
			ContainSubstring("/network/masquerade/excludeCIDRs")),
		Entry("more blocks than a node may hold", alsoValues("nodeBlocks", values{"max": 65}), ContainSubstring("/network/nodeBlocks/max")),
		Entry("a rest that never ends", alsoValues("blockQuarantineSeconds", 86401), ContainSubstring("/network/blockQuarantineSeconds")),
		Entry("unknown way to report denied packets", alsoValues("policy", values{"denied": "Tell"}), ContainSubstring("/network/policy/denied")),
	)

	DescribeTable("that the API takes are taken, and arrive as they are",
		func(ctx context.Context, v values) {
			spec, err := renderedSpec(ctx, helmBinary(ctx), v)
			Expect(err).NotTo(HaveOccurred())
			want, err := json.Marshal(v)
			Expect(err).NotTo(HaveOccurred())
			Expect(spec).To(MatchJSON(want))
			Expect(opinion(ctx, spec)).To(Succeed())
		},
		Entry("one range", rangesOf("10.244.0.0/16")),
		Entry("both families", rangesOf("10.244.0.0/16", "fd00:10:244::/48")),
		Entry("neighbours", rangesOf("10.244.0.0/16", "10.245.0.0/16", "10.246.0.0/15", "fd00:1::/32", "fd00:2::/32")),
		Entry("a range of one block", rangesOf("10.244.7.0/24", "fd00:1:2:3::/64")),
		Entry("lengths within a byte", values{"ranges": []any{
			values{"cidr": "100.64.0.0/10", "nodePrefixLength": 27}, values{"cidr": "fd00:10:244:f000::/52", "nodePrefixLength": 112},
		}}),
		Entry("one group of zeros alone is written", values{"ranges": []any{values{"cidr": "fd00:0:1:1:1:1::/96", "nodePrefixLength": 112}}}),
		Entry("the first of two runs is left out", values{"ranges": []any{values{"cidr": "2001:db8::1:1:0:0/96", "nodePrefixLength": 112}}}),
		Entry("all fields", values{
			"ranges": []any{values{
				"cidr": "10.244.0.0/16", "nodePrefixLength": 25, "state": "Draining",
				"nodeSelector": values{"matchLabels": values{"rack": "a"}, "matchExpressions": []any{values{"key": "b", "operator": "Exists"}}},
			}},
			"attachment": "Bridge", "routeMode": "Routed", "overlay": values{"encapsulation": "VXLAN", "vni": 16777215, "port": 8472},
			"mtu": 0, "masquerade": values{"enabled": false, "excludeCIDRs": []any{"192.168.0.0/16", "fd00:5::/32"}},
			"nodeBlocks": values{"max": 4, "reserve": 0, "idleSeconds": 60}, "policy": values{"denied": "Log"}, "blockQuarantineSeconds": 0,
		}),
	)
})
