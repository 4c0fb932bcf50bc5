package status

import (
	"net/netip"
	"testing"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/agent/host"
	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestFindingsNamePrefixes(t *testing.T) {
	g := gomega.NewWithT(t)
	// The manager looks for this type.
	g.Expect(host.FindingRangeOverlap).To(gomega.Equal(podnetv1alpha1.FindingRangeOverlap))
	many := model.Finding{Type: host.FindingRangeOverlap, Message: "Two."}
	for i := range byte(2 * maxFindingCIDRs) {
		many.CIDRs = append(many.CIDRs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, i, 0}), 24))
	}
	st := Build(Report{Findings: []model.Finding{
		{Type: host.FindingRangeOverlap, Message: "One.", CIDRs: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}},
		many,
		{Type: host.FindingForwardDrop, Message: "None."},
	}}, nil, 1, "v")
	g.Expect(st.Findings).To(gomega.HaveLen(3))
	g.Expect(st.Findings[0].CIDRs).To(gomega.Equal([]string{"fd00::/64"}))
	g.Expect(st.Findings[1].CIDRs).To(gomega.HaveLen(maxFindingCIDRs))
	g.Expect(st.Findings[2].CIDRs).To(gomega.BeEmpty())
}
