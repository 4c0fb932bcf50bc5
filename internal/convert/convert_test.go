package convert

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestNetworkKeepsEveryField(t *testing.T) {
	g := gomega.NewWithT(t)
	got, err := Network(&podnetv1alpha1.PodNetwork{ObjectMeta: metav1.ObjectMeta{UID: "7"}, Spec: podnetv1alpha1.PodNetworkSpec{
		Ranges: []podnetv1alpha1.Range{
			{CIDR: "10.244.0.0/16"}, {CIDR: "10.245.0.0/16", NodePrefixLength: 26},
			{CIDR: "fd00:10:244::/48"},
		},
		Attachment: podnetv1alpha1.Bridge,
		RouteMode:  podnetv1alpha1.ModeRouted,
		Overlay:    podnetv1alpha1.Overlay{VNI: 7, Port: 8472},
		MTU:        ptr.To(int32(1400)),
		Masquerade: podnetv1alpha1.Masquerade{Enabled: ptr.To(false), ExcludeCIDRs: []string{"192.168.0.0/16"}},
		Policy:     podnetv1alpha1.Policy{Denied: podnetv1alpha1.DeniedEvent},
	}})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(got).To(gomega.Equal(&model.Network{
		ID: "7", BlockBits: [2]int{26, 64},
		Ranges: []netip.Prefix{
			netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.245.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48"),
		},
		Attachment: model.Bridge, Mode: model.ModeRouted, VNI: 7, Port: 8472, MTU: 1400,
		Masquerade: false, MasqueradeExclude: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
		Denied: model.DeniedEvents,
	}))
}

func TestMasqueradeIsOnUnlessTurnedOff(t *testing.T) {
	g := gomega.NewWithT(t)
	got, err := Network(&podnetv1alpha1.PodNetwork{})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(got.Masquerade).To(gomega.BeTrue())
}

func TestNetworkNamesTheFieldThatDoesNotParse(t *testing.T) {
	g := gomega.NewWithT(t)
	_, err := Network(&podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec:       podnetv1alpha1.PodNetworkSpec{Masquerade: podnetv1alpha1.Masquerade{ExcludeCIDRs: []string{"everything"}}},
	})
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("PodNetwork default: masquerade.excludeCIDRs")))
}

func TestBlockKeepsEveryField(t *testing.T) {
	g := gomega.NewWithT(t)
	created := metav1.NewTime(time.Unix(1_700_000_000, 0))
	got, err := Block(&podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: "10.244.3.0-24", CreationTimestamp: created},
		Spec: podnetv1alpha1.NodeSubnetSpec{
			Network: "default", Node: "a", CIDR: "10.244.3.0/24", Endpoints: []string{"192.0.2.3", "2001:db8::3"},
			State: podnetv1alpha1.SubnetDraining, NodeLabels: map[string]string{"zone": "x"}, NodeAddresses: []string{"198.51.100.3"},
		},
	})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(got).To(gomega.Equal(model.Block{
		Name: "10.244.3.0-24", CIDR: netip.MustParsePrefix("10.244.3.0/24"), Node: "a",
		Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8::3")},
		Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.3")},
		State:     model.BlockDraining, Labels: map[string]string{"zone": "x"}, Created: created.Time,
	}))
}

func TestRouteModeSelectsAsKubernetesDoes(t *testing.T) {
	g := gomega.NewWithT(t)
	between := metav1.LabelSelector{
		MatchLabels: map[string]string{"zone": "x"},
		MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "tier", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"edge"}},
			{Key: "gpu", Operator: metav1.LabelSelectorOpDoesNotExist},
			{Key: "os", Operator: metav1.LabelSelectorOpExists},
			{Key: "arch", Operator: metav1.LabelSelectorOpIn, Values: []string{"amd64", "arm64"}},
		},
	}
	got, err := RouteMode(&podnetv1alpha1.RouteMode{Spec: podnetv1alpha1.RouteModeSpec{Between: []metav1.LabelSelector{between}}})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	theirs, err := metav1.LabelSelectorAsSelector(&between)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	base := map[string]string{"zone": "x", "os": "linux", "arch": "arm64"}
	for _, change := range []map[string]string{
		{}, {"zone": "y"}, {"tier": "edge"}, {"tier": "core"}, {"gpu": "yes"}, {"arch": "riscv64"}, {"os": ""},
	} {
		set := map[string]string{}
		for _, from := range []map[string]string{base, change} {
			for k, v := range from {
				set[k] = v
			}
		}
		g.Expect(got.Between[0].Matches(set)).To(gomega.Equal(theirs.Matches(labels.Set(set))), "labels %v", set)
	}
}

func TestRouteModeRefusesASelectorThatKubernetesWouldRefuse(t *testing.T) {
	g := gomega.NewWithT(t)
	_, err := RouteMode(&podnetv1alpha1.RouteMode{
		ObjectMeta: metav1.ObjectMeta{Name: "m"},
		Spec: podnetv1alpha1.RouteModeSpec{Between: []metav1.LabelSelector{{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: metav1.LabelSelectorOpIn}},
		}}},
	})
	g.Expect(err).To(gomega.MatchError(gomega.ContainSubstring("RouteMode m: between[0]")))
}

func TestRangeSummaryCountsBlocks(t *testing.T) {
	g := gomega.NewWithT(t)
	got := RangeSummary([]podnetv1alpha1.RangeStatus{
		{CIDR: "10.244.0.0/30", BlocksTotal: ptr.To(int64(4)), BlocksFree: ptr.To(int64(0))},
		{CIDR: "10.245.0.0/16"},
	})
	g.Expect(got).To(gomega.Equal("range 10.244.0.0/30 has 4 blocks of which 0 are free"))
	g.Expect(strings.Contains(got, "10.245")).To(gomega.BeFalse())
}
