package envtest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

var _ = Describe("Bad and good objects", func() {
	BeforeEach(func(ctx context.Context) { cleanAfterwards(ctx) })

	type network = podnetv1alpha1.PodNetwork

	DescribeTable("a PodNetwork is refused with a sentence", func(ctx context.Context, bad *network, words string) {
		Expect(api.Create(ctx, bad)).To(beRefusedWith(words))
	},
		Entry("CIDR that does not parse", podNetwork(blockRange("10.244.0.0", 0)), "cidr must be a CIDR like 10.244.0.0/16"),
		Entry("CIDR out of bounds", podNetwork(blockRange("10.244.0.0/33", 0)), "cidr must be a CIDR like 10.244.0.0/16"),
		Entry("every address", podNetwork(blockRange("0.0.0.0/0", 8)), "cidr overlaps addresses that no pod can have"),
		Entry("every address, IPv6", podNetwork(blockRange("::/0", 64)), "cidr overlaps addresses that no pod can have"),
		Entry("this network", podNetwork(blockRange("0.128.0.0/9", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("loopback", podNetwork(blockRange("127.0.0.0/8", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("a part of loopback", podNetwork(blockRange("127.244.0.0/16", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("link-local", podNetwork(blockRange("169.254.0.0/16", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("link-local in a larger range", podNetwork(blockRange("169.0.0.0/8", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("multicast", podNetwork(blockRange("239.1.0.0/16", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("class E", podNetwork(blockRange("240.0.0.0/8", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("the broadcast address", podNetwork(blockRange("255.255.255.0/24", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("loopback, IPv6", podNetwork(blockRange("::/64", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("NAT64", podNetwork(blockRange("64:ff9b::/64", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("link-local, IPv6", podNetwork(blockRange("fe80::/64", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("multicast, IPv6", podNetwork(blockRange("ff05::/16", 0)), "cidr overlaps addresses that no pod can have"),
		Entry("more than a network can use", podNetwork(blockRange("10.0.0.0/7", 8)), "the range is larger than a network can use"),
		Entry("more than a network can use, IPv6", podNetwork(blockRange("fc00::/7", 64)), "the range is larger than a network can use"),
		Entry("IPv6 in an IPv4 coat", podNetwork(blockRange("::ffff:10.0.0.0/104", 0)), "cidr must be a CIDR like 10.244.0.0/16"),
		Entry("host bits set", podNetwork(blockRange("10.244.3.7/16", 0)), "cidr has bits set beyond its prefix length"),
		Entry("host bits set, IPv6", podNetwork(blockRange("fd00:a:244::1/48", 0)), "cidr has bits set beyond its prefix length"),
		Entry("not the shortest form", podNetwork(blockRange("FD00:a:244:0::/48", 0)), "cidr must be written in its shortest form"),
		Entry("block larger than its range", podNetwork(blockRange("10.244.0.0/16", 12)), "a node's block would be larger than the range"),
		Entry("block larger than its range, IPv6", podNetwork(blockRange("fd00:a:244::/48", 40)), "a node's block would be larger than the range"),
		Entry("range smaller than a default block", podNetwork(blockRange("10.244.0.0/25", 0)), "smaller than one block of the default length"),
		Entry("range smaller than a default block, IPv6", podNetwork(blockRange("fd00:a:244::/96", 0)), "smaller than one block of the default length"),
		Entry("block without room for pods", podNetwork(blockRange("10.244.0.0/16", 31)), "nodePrefixLength must leave room for pods"),
		Entry("block length beyond IPv4's", podNetwork(blockRange("10.244.0.0/16", 64)), "nodePrefixLength must leave room for pods"),
		Entry("block length beyond IPv6's", podNetwork(blockRange("fd00:a:244::/48", 127)), "should be less than or equal to 126"),
		Entry("block length too small", podNetwork(blockRange("10.0.0.0/8", 1)), "should be greater than or equal to 8"),
		Entry("overlapping ranges", podNetwork(blockRange("10.244.0.0/16", 24), blockRange("10.244.128.0/17", 24)), "two of the ranges overlap"),
		Entry("overlapping ranges, the larger one last", podNetwork(blockRange("fd00:a:244::/48", 64), blockRange("fd00::/16", 64)), "two of the ranges overlap"),
		Entry("the same range twice", podNetwork(blockRange("10.244.0.0/16", 24), blockRange("10.244.0.0/16", 24)), "Duplicate value"),
		Entry("no range", with(podNetwork(), func(n *network) { n.Spec.RouteMode = podnetv1alpha1.ModeAuto }), "spec.ranges: Required value"),
		Entry("unknown mode", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.RouteMode = "Tunnel" }),
			`Unsupported value: "Tunnel": supported values: "Auto", "Routed", "Overlay"`),
		Entry("unknown way to report denied packets", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.Policy.Denied = "Tell" }),
			`Unsupported value: "Tell": supported values: "Ignore", "Log", "Event"`),
		Entry("unknown attachment", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.Attachment = "Macvlan" }),
			`Unsupported value: "Macvlan": supported values: "PointToPoint", "Bridge"`),
		Entry("unknown encapsulation", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.Overlay.Encapsulation = "GRE" }),
			`Unsupported value: "GRE"`),
		Entry("unknown state of a range", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.Ranges[0].State = "Gone" }),
			`Unsupported value: "Gone": supported values: "Active", "Draining"`),
		Entry("MTU that IPv6 cannot use", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.MTU = ptr.To[int32](1000) }),
			"mtu must be 0 (detect it) or at least 1280"),
		Entry("VNI out of range", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) { n.Spec.Overlay.VNI = 1 << 24 }),
			"should be less than or equal to 16777215"),
		Entry("exclusion that does not parse", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) {
			n.Spec.Masquerade.ExcludeCIDRs = []string{"192.168.0.0"}
		}), "each of excludeCIDRs must be a CIDR"),
		Entry("exclusion with host bits", with(podNetwork(blockRange("10.244.0.0/16", 0)), func(n *network) {
			n.Spec.Masquerade.ExcludeCIDRs = []string{"192.168.3.1/16"}
		}), "a CIDR of excludeCIDRs has bits set beyond its prefix length"),
	)

	It("accepts a good PodNetwork and fills in what it leaves out", func(ctx context.Context) {
		n := podNetwork(blockRange("10.244.0.0/16", 0), blockRange("fd00:a:244::/48", 0), blockRange("10.245.0.0/30", 30), blockRange("fd01::/64", 126))
		Expect(api.Create(ctx, n)).To(Succeed())
		Expect(n.Spec.Attachment).To(Equal(podnetv1alpha1.PointToPoint))
		Expect(n.Spec.RouteMode).To(Equal(podnetv1alpha1.ModeAuto))
		Expect(n.Spec.Overlay).To(Equal(podnetv1alpha1.Overlay{Encapsulation: podnetv1alpha1.EncapsulationVXLAN, VNI: 7466, Port: 4789}))
		Expect(n.Spec.MTU).To(HaveValue(BeEquivalentTo(0)))
		Expect(n.Spec.Masquerade.Enabled).To(HaveValue(BeTrue()))
		Expect(n.Spec.BlockQuarantineSeconds).To(HaveValue(BeEquivalentTo(podnetv1alpha1.DefaultBlockQuarantineSeconds)))
		Expect(n.Spec.Ranges[0].State).To(Equal(podnetv1alpha1.RangeActive))
	})

	It("accepts the samples that users start from", func(ctx context.Context) {
		applyManifests(ctx, filepath.Join("samples", "*.yaml"), client.DryRunAll)
	})

	It("accepts the largest ranges there are, and those beside what no pod can have", func(ctx context.Context) {
		Expect(api.Create(ctx, podNetwork(
			blockRange("10.0.0.0/8", 0), blockRange("126.0.0.0/8", 0), blockRange("128.0.0.0/8", 0), blockRange("169.255.0.0/16", 0),
			blockRange("223.0.0.0/8", 0), blockRange("1.0.0.0/8", 0), blockRange("100::/16", 0), blockRange("fd00::/16", 0),
			blockRange("fe00::/16", 0), blockRange("2000::/16", 0),
		))).To(Succeed())
	})

	It("lets a range that was accepted before be changed, drained and left behind", func(ctx context.Context) {
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		Expect(api.Get(ctx, client.ObjectKey{Name: "podnetworks.podnet.dev"}, crd)).To(Succeed())
		now := crd.DeepCopy()
		versions, found, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeTrue())
		unstructured.RemoveNestedField(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec", "properties",
			"ranges", "items", "properties", "cidr", "x-kubernetes-validations")
		Expect(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")).To(Succeed())
		Expect(api.Update(ctx, crd)).To(Succeed())
		restored := sync.OnceFunc(func() {
			now.SetResourceVersion(crd.GetResourceVersion())
			Expect(api.Update(ctx, now)).To(Succeed())
		})
		DeferCleanup(func() { restored() })

		n := podNetwork(blockRange("0.0.0.0/0", 24))
		Eventually(func() error { return api.Create(ctx, n) }).Should(Succeed())
		restored()
		fresh := podNetwork(blockRange("127.0.0.0/8", 24))
		fresh.Name = "other"
		Eventually(func() error { return api.Create(ctx, fresh, client.DryRunAll) }).Should(beRefusedWith("no pod can have"))

		n.Spec.RouteMode = podnetv1alpha1.ModeOverlay
		Expect(api.Update(ctx, n)).To(Succeed(), "something else is changed")
		n.Spec.Ranges[0].State = podnetv1alpha1.RangeDraining
		n.Spec.Ranges = append(n.Spec.Ranges, blockRange("fd00:a:244::/48", 64))
		Expect(api.Update(ctx, n)).To(Succeed(), "it is drained, and another range added")
		n.Status.Ranges = []podnetv1alpha1.RangeStatus{{CIDR: "0.0.0.0/0", State: podnetv1alpha1.RangeDraining, BlocksAllocated: ptr.To[int64](0)}}
		Expect(api.Status().Update(ctx, n)).To(Succeed())
		n.Spec.Ranges = n.Spec.Ranges[1:]
		Expect(api.Update(ctx, n)).To(Succeed(), "it is removed")
	})

	It("accepts as many ranges as the list may hold", func(ctx context.Context) {
		ranges := make([]podnetv1alpha1.Range, 64)
		for i := range ranges {
			ranges[i] = blockRange(fmt.Sprintf("10.%d.0.0/16", i), 24)
		}
		Expect(api.Create(ctx, podNetwork(ranges...))).To(Succeed())
	})

	DescribeTable("a change of a live PodNetwork is refused with a sentence", func(ctx context.Context, change func(*network), words string) {
		n := podNetwork(blockRange("10.244.0.0/16", 24), blockRange("10.245.0.0/16", 0))
		Expect(api.Create(ctx, n)).To(Succeed())
		change(n)
		Expect(api.Update(ctx, n)).To(beRefusedWith(words))
	},
		Entry("another block length", func(n *network) { n.Spec.Ranges[0].NodePrefixLength = 25 }, "nodePrefixLength of a range never changes"),
		Entry("no block length any more", func(n *network) { n.Spec.Ranges[0].NodePrefixLength = 0 }, "nodePrefixLength of a range never changes"),
		Entry("a block length where there was none", func(n *network) { n.Spec.Ranges[1].NodePrefixLength = 24 }, "nodePrefixLength of a range never changes"),
		Entry("another CIDR", func(n *network) { n.Spec.Ranges[0].CIDR = "10.243.0.0/16" }, "range 10.244.0.0/16 cannot be removed: it is Active"),
		Entry("removal of an Active range", func(n *network) { n.Spec.Ranges = n.Spec.Ranges[1:] }, "range 10.244.0.0/16 cannot be removed: it is Active. Set its state to Draining first"),
		Entry("another attachment", func(n *network) { n.Spec.Attachment = podnetv1alpha1.Bridge }, "attachment cannot change on a live network"),
		Entry("another VNI", func(n *network) { n.Spec.Overlay.VNI = 5 }, "overlay cannot change on a live network"),
	)

	It("lets a range go only when it drains and its status says that it is empty", func(ctx context.Context) {
		n := podNetwork(blockRange("10.244.0.0/16", 24), blockRange("10.245.0.0/16", 24))
		n.Spec.Ranges[0].State = podnetv1alpha1.RangeDraining
		Expect(api.Create(ctx, n)).To(Succeed())
		remove := func() error {
			without := n.DeepCopy()
			without.Spec.Ranges = without.Spec.Ranges[1:]
			return api.Update(ctx, without, client.DryRunAll)
		}
		says := func(state podnetv1alpha1.RangeState, allocated int64) {
			n.Status.Ranges = []podnetv1alpha1.RangeStatus{{CIDR: "10.244.0.0/16", State: state, BlocksAllocated: &allocated}}
			Expect(api.Status().Update(ctx, n)).To(Succeed())
		}
		By("having no status yet")
		Expect(remove()).To(beRefusedWith("range 10.244.0.0/16 cannot be removed: its status does not say yet that it drains"))
		By("being in use")
		says(podnetv1alpha1.RangeDraining, 3)
		Expect(remove()).To(beRefusedWith("range 10.244.0.0/16 cannot be removed: nodes hold blocks of it"))
		By("having been counted before it drained")
		says(podnetv1alpha1.RangeActive, 0)
		Expect(remove()).To(beRefusedWith("range 10.244.0.0/16 cannot be removed: its status does not say yet that it drains"))
		By("being empty")
		says(podnetv1alpha1.RangeDraining, 0)
		Expect(remove()).To(Succeed())
	})

	const v6 = "fd00000a024400000000000000000000-64"

	DescribeTable("a NodeSubnet is refused with a sentence", func(ctx context.Context, name, cidr string, words string) {
		Eventually(func() error { return api.Create(ctx, nodeSubnet(name, cidr, "node"), client.DryRunAll) }).Should(beRefusedWith(words))
	},
		Entry("no CIDR", "10.244.3.0-24", "10.244.3.0", "cidr must be a CIDR like 10.244.3.0/24"),
		Entry("host bits", "10.244.3.7-24", "10.244.3.7/24", "cidr has bits set beyond its prefix length"),
		Entry("capital letters", v6, "FD00:a:244::/64", "cidr must be written in its shortest form"),
		Entry("zeros that are left out elsewhere", v6, "fd00:a:244:0::/64", "cidr must be written in its shortest form"),
		Entry("name of another block", "10.244.4.0-24", "10.244.3.0/24", "the name of a NodeSubnet must be its cidr with - for /"),
		Entry("name of another length", "10.244.3.0-25", "10.244.3.0/24", "the name of a NodeSubnet must be its cidr with - for /"),
		Entry("any name", "mine", "10.244.3.0/24", "the name of a NodeSubnet must be its cidr with - for /"),
		Entry("name of another block, IPv6", "fd00000a024500000000000000000000-64", "fd00:a:244::/64", "all 32 digits, without colons"),
		Entry("name of another length, IPv6", "fd00000a024400000000000000000000-65", "fd00:a:244::/64", "all 32 digits, without colons"),
		Entry("length with a zero in front, IPv6", "fd00000a024400000000000000000000-064", "fd00:a:244::/64", "all 32 digits, without colons"),
		Entry("short name, IPv6", "fd00-64", "fd00::/64", "all 32 digits, without colons"),
		Entry("any name, IPv6", "mine", "fd00:a:244::/64", "all 32 digits, without colons"),
	)

	DescribeTable("a NodeSubnet whose name is its CIDR is accepted", func(ctx context.Context, name, cidr string) {
		Expect(api.Create(ctx, nodeSubnet(name, cidr, "node"))).To(Succeed())
		Expect(named(cidr)).To(Equal(name))
	},
		Entry("IPv4", "10.244.3.0-24", "10.244.3.0/24"),
		Entry("IPv6", v6, "fd00:a:244::/64"),
		Entry("IPv6 without zeros to leave out", "fd00000100020003000400050006fff0-124", "fd00:1:2:3:4:5:6:fff0/124"),
		Entry("one address", "20010db8000000000000000000000001-128", "2001:db8::1/128"),
	)

	DescribeTable("a change of a NodeSubnet is refused with a sentence", func(ctx context.Context, change func(*podnetv1alpha1.NodeSubnetSpec), words string) {
		s := nodeSubnet("10.244.3.0-24", "10.244.3.0/24", "node")
		s.Spec.NodeUID, s.Spec.State = "1", podnetv1alpha1.SubnetReleased
		Expect(api.Create(ctx, s)).To(Succeed())
		change(&s.Spec)
		Expect(api.Update(ctx, s)).To(beRefusedWith(words))
	},
		Entry("CIDR", func(s *podnetv1alpha1.NodeSubnetSpec) { s.CIDR = "10.244.4.0/24" }, "cidr never changes"),
		Entry("node", func(s *podnetv1alpha1.NodeSubnetSpec) { s.Node = "other" }, "node never changes"),
		Entry("network", func(s *podnetv1alpha1.NodeSubnetSpec) { s.Network = "other" }, "network never changes"),
		Entry("no UID any more", func(s *podnetv1alpha1.NodeSubnetSpec) { s.NodeUID = "" }, "nodeUID is never taken away once it is set"),
		Entry("back from its rest", func(s *podnetv1alpha1.NodeSubnetSpec) { s.State = podnetv1alpha1.SubnetActive }, "a released block cannot be taken back"),
		Entry("unknown state", func(s *podnetv1alpha1.NodeSubnetSpec) { s.State = "Lost" }, `Unsupported value: "Lost"`),
		Entry("endpoint that is no address", func(s *podnetv1alpha1.NodeSubnetSpec) { s.Endpoints = []string{"node-1"} }, "each of endpoints must be an IP address"),
		Entry("two endpoints of one family", func(s *podnetv1alpha1.NodeSubnetSpec) { s.Endpoints = []string{"192.0.2.1", "192.0.2.2"} },
			"endpoints holds at most one address of each family"),
	)

	It("lets a node of the same name that was made anew have a released block again", func(ctx context.Context) {
		s := nodeSubnet("10.244.3.0-24", "10.244.3.0/24", "node")
		s.Spec.NodeUID, s.Spec.State = "1", podnetv1alpha1.SubnetReleased
		Expect(api.Create(ctx, s)).To(Succeed())
		s.Spec.NodeUID, s.Spec.State = "2", podnetv1alpha1.SubnetActive
		Expect(api.Update(ctx, s)).To(Succeed())
	})

	It("refuses a second object of a block's name, whoever makes it", func(ctx context.Context) {
		Expect(api.Create(ctx, nodeSubnet(v6, "fd00:a:244::/64", "one"))).To(Succeed())
		Expect(api.Create(ctx, nodeSubnet(v6, "fd00:a:244::/64", "two"))).To(MatchError(ContainSubstring("already exists")))
	})

	DescribeTable("a RouteMode is refused with a sentence", func(ctx context.Context, spec podnetv1alpha1.RouteModeSpec, words string) {
		Expect(api.Create(ctx, &podnetv1alpha1.RouteMode{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: spec})).To(beRefusedWith(words))
	},
		Entry("unknown mode", podnetv1alpha1.RouteModeSpec{Between: make([]metav1.LabelSelector, 1), Mode: "Direct"},
			`Unsupported value: "Direct": supported values: "Auto", "Routed", "Overlay"`),
		Entry("no mode", podnetv1alpha1.RouteModeSpec{Between: make([]metav1.LabelSelector, 1)}, "spec.mode"),
		Entry("no selector", podnetv1alpha1.RouteModeSpec{Mode: podnetv1alpha1.ModeRouted}, "spec.between"),
		Entry("three selectors", podnetv1alpha1.RouteModeSpec{Between: make([]metav1.LabelSelector, 3), Mode: podnetv1alpha1.ModeRouted}, "spec.between"),
		Entry("priority out of range", podnetv1alpha1.RouteModeSpec{
			Between: make([]metav1.LabelSelector, 1), Mode: podnetv1alpha1.ModeRouted, Priority: ptr.To[int32](2000000),
		}, "should be less than or equal to 1000000"),
		Entry("Auto without proof", podnetv1alpha1.RouteModeSpec{
			Between: make([]metav1.LabelSelector, 1), Mode: podnetv1alpha1.ModeAuto, Proof: podnetv1alpha1.ProofSkipped,
		}, "proof can be Skipped only for Routed and Overlay"),
	)

	It("accepts a RouteMode between every two nodes", func(ctx context.Context) {
		mode := &podnetv1alpha1.RouteMode{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: podnetv1alpha1.RouteModeSpec{
			Between: make([]metav1.LabelSelector, 1), Mode: podnetv1alpha1.ModeRouted,
		}}
		Expect(api.Create(ctx, mode)).To(Succeed())
		Expect(mode.Spec.Priority).To(HaveValue(BeEquivalentTo(0)))
		Expect(mode.Spec.Proof).To(Equal(podnetv1alpha1.ProofRequired))
	})

	It("says in every message of a rule what is wrong, in words", func() {
		for _, rule := range ruleMessages() {
			Expect(strings.Count(rule, " ")).To(BeNumerically(">=", 2), rule)
		}
	})
})

func with[T any](object *T, change func(*T)) *T {
	change(object)
	return object
}
