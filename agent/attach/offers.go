package attach

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/podnet/podnet/internal/model"
)

// familyGrace is how long the second family's block may come after the first's.
const familyGrace = 10 * time.Second

// Offer is what new pods get. It does not change.
type Offer struct {
	// Blocks are the blocks of the node from which addresses are taken, in order
	// of preference. A pod gets one address of each family that is among them,
	// and the family that comes first is its primary one.
	Blocks     []netip.Prefix
	Attachment model.Attachment
	// MTU is the largest IP packet in bytes that pods may send.
	MTU int
	// Growing reports whether the node may still get another block of IPv4 and of
	// IPv6: then an ADD that finds all addresses in use waits for it.
	Growing [2]bool
	// NotGrowing says, in part of a sentence, why the node gets no other block of
	// IPv4 and of IPv6. It may be empty.
	NotGrowing [2]string
	// Changed is closed when there is another Offer; nil where that is not reported.
	Changed <-chan struct{}
}

// Offers publishes what new pods get. Who asks never waits, whatever is being done to
// the kernel.
type Offers struct {
	current atomic.Pointer[published]
}

type published struct {
	offer Offer
	err   error
	// changed is closed when another offer is published.
	changed chan struct{}
}

// NewOffers returns Offers that give nothing yet.
func NewOffers() *Offers {
	o := &Offers{}
	o.current.Store(&published{
		err: errors.New("the agent has just started and has not heard from the API server yet"), changed: make(chan struct{}),
	})
	return o
}

// Current returns what new pods get, or an error, a sentence for the user, that says why
// none can be attached now.
func (o *Offers) Current() (Offer, error) {
	is := o.current.Load()
	if is.err != nil {
		return Offer{}, is.err
	}
	out := is.offer
	out.Changed = is.changed
	return out, nil
}

// Publish sets what new pods get, and why none can be attached; nil where they can. It is
// for one caller at a time.
func (o *Offers) Publish(next Offer, why error) {
	was := o.current.Load()
	is := &published{offer: next, err: why, changed: was.changed}
	changed := why != nil || !same(next, was.offer)
	if changed {
		is.changed = make(chan struct{})
	}
	o.current.Store(is)
	if changed {
		close(was.changed)
	}
}

func same(a, b Offer) bool {
	return slices.Equal(a.Blocks, b.Blocks) && a.Attachment == b.Attachment && a.MTU == b.MTU &&
		a.Growing == b.Growing && a.NotGrowing == b.NotGrowing
}

// OfferOf is what new pods get of a plan.
func OfferOf(network model.Network, p model.Plan) Offer {
	out := Offer{Attachment: network.Attachment, MTU: p.MTU}
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

func rank(p netip.Prefix, primary4 bool) int {
	if p.Addr().Is4() == primary4 {
		return 0
	}
	return 1
}

// BlockToCome returns why pods wait while a new node may still get a block of its second
// family, or is to have one back that vanished: a pod that is made before would never have
// an address of it. It is nil where they need not wait. The time is that after which to ask
// again; 0 where nothing changes by itself.
func BlockToCome(p model.Plan, problems []model.Problem, now time.Time) (again time.Duration, why error) {
	var vanished, there [2]bool
	for _, b := range p.Blocks {
		i := model.FamilyIndex(b.CIDR.Addr())
		vanished[i], there[i] = vanished[i] || b.Vanished, there[i] || !b.Vanished
	}
	for i := range vanished {
		if vanished[i] && !there[i] {
			return 0, errors.New("the NodeSubnets of this node disappeared without being released (was etcd restored?): " +
				"new pods wait until the manager has recreated them")
		}
	}
	i := slices.IndexFunc(problems, func(p model.Problem) bool { return p.Reason == model.ReasonNoBlock })
	if i < 0 {
		return 0, nil
	}
	for _, b := range p.Blocks {
		if age := now.Sub(b.Created); age < familyGrace {
			return familyGrace - age, errors.New(problems[i].Message)
		}
	}
	return 0, nil
}
