package controllers

import (
	"net/netip"

	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
)

// lie reports, of any blocks, that pods use them: of others', of free ones, of lengths
// that the ranges do not have.
func (m *machine) lie() {
	nn := m.w.api.report(m.name)
	if m.off || nn == nil {
		return
	}
	r := m.w.rand
	st := podnetv1alpha1.NodeNetworkStatus{AgentVersion: "none", RollCall: nn.Status.RollCall}
	if r.IntN(3) > 0 {
		st.RollCall = m.w.api.network().Status.RollCall
	}
	ranges, _ := allocation.PoolOf(m.w.api.network())
	for _, of := range ranges {
		for _, block := range blocksOfRange(of.Range) {
			switch r.IntN(4) {
			case 0:
				block = netip.PrefixFrom(block.Addr(), block.Bits()-1+2*r.IntN(2)).Masked()
			case 1:
				continue
			}
			b := podnetv1alpha1.BlockStatus{CIDR: block.String(), AddressesUsed: ptr.To(int64(r.IntN(3)))}
			if r.IntN(2) == 0 {
				b.State, b.ObservedGeneration = podnetv1alpha1.SubnetActive, 1
			}
			if _, named := objects.Block(&podnetv1alpha1.NodeNetwork{Status: st}, b.CIDR); !named {
				st.Blocks = append(st.Blocks, b)
			}
		}
	}
	m.apply(st)
}
