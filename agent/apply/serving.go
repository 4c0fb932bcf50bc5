package apply

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/internal/model"
)

// Serving implements cni.Network.
func (s *Applier) Serving() (cni.Serving, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return cni.Serving{}, s.fatal
	}
	out := s.serving
	out.Blocks, out.Changed = slices.Clone(out.Blocks), s.changed
	return out, nil
}

// servingOf is what new pods get of a plan.
func servingOf(network model.Network, p model.Plan) cni.Serving {
	out := cni.Serving{Attachment: network.Attachment, MTU: p.MTU}
	var held [2]int
	for _, b := range p.Blocks {
		if b.State == model.BlockActive {
			out.Blocks = append(out.Blocks, b.CIDR)
			held[model.FamilyIndex(b.CIDR.Addr())]++
		}
	}
	// A pod's primary address is of the family that the network names first.
	primary4 := network.Ranges[0].Addr().Is4()
	slices.SortStableFunc(out.Blocks, func(a, b netip.Prefix) int {
		return cmp.Compare(rank(a, primary4), rank(b, primary4))
	})
	for i := range held {
		has := slices.ContainsFunc(network.Ranges, func(r netip.Prefix) bool { return model.FamilyIndex(r.Addr()) == i })
		switch {
		case !has:
		case network.MaxBlocks > 0 && held[i] >= network.MaxBlocks:
			out.NotGrowing[i] = fmt.Sprintf("the node holds %d blocks, and may hold no more (spec.nodeBlocks.max of PodNetwork default)", held[i])
		case network.Exhausted[i]:
			out.NotGrowing[i] = "the ranges have no free block: add a range to PodNetwork default"
		default:
			out.Growing[i] = true
		}
	}
	return out
}

func sameServing(a, b cni.Serving) bool {
	return slices.Equal(a.Blocks, b.Blocks) && a.Attachment == b.Attachment && a.MTU == b.MTU &&
		a.Growing == b.Growing && a.NotGrowing == b.NotGrowing
}

func rank(p netip.Prefix, primary4 bool) int {
	if p.Addr().Is4() == primary4 {
		return 0
	}
	return 1
}

// serve makes what new pods get follow from the pass.
func (s *Applier) serve() {
	is := cni.Serving{}
	if s.plan != nil {
		is = servingOf(*s.cluster.Network, *s.plan)
	}
	if s.fatal != nil || !sameServing(is, s.serving) {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.serving = is
}

// young makes pods wait while a new node may still get a block of its second
// family, or is to have one back that vanished: a pod that is made before would
// never have an address of it.
func (s *Applier) young(wanted model.Plan, problems []model.Problem) error {
	var vanished, there [2]bool
	for _, b := range wanted.Blocks {
		vanished[model.FamilyIndex(b.CIDR.Addr())] = vanished[model.FamilyIndex(b.CIDR.Addr())] || b.Vanished
		there[model.FamilyIndex(b.CIDR.Addr())] = there[model.FamilyIndex(b.CIDR.Addr())] || !b.Vanished
	}
	for i := range vanished {
		if vanished[i] && !there[i] {
			return errors.New("the NodeSubnets of this node are gone without having been released, as by a restore of etcd: " +
				"pods wait until the manager has made them again")
		}
	}
	i := slices.IndexFunc(problems, func(p model.Problem) bool { return p.Reason == model.ReasonNoBlock })
	if i < 0 {
		return nil
	}
	for _, b := range wanted.Blocks {
		if age := time.Since(b.Created); age < familyGrace {
			time.AfterFunc(familyGrace-age, s.Trigger)
			return errors.New(problems[i].Message)
		}
	}
	return nil
}
