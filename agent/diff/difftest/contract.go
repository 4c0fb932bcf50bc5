package difftest

import (
	"context"
	"net/netip"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Kernel is observed and changed, as agent/apply does it.
type Kernel interface {
	Observe(ctx context.Context, want model.State) (model.State, error)
	Execute(ctx context.Context, ops []diff.Op) error
}

// Contract says what the agent goes by in a kernel, as tests that run on the Fake and on a
// namespace. A kernel that is given has nothing of podnet's; in runs something in its namespace.
func Contract(t *testing.T, given func(t *testing.T) (kernel Kernel, in func(func() error) error)) {
	for name, states := range map[string][]model.State{
		"what was made is there":       {contractState()},
		"what is not wanted goes":      {contractState(), {}},
		"what went comes again":        {contractState(), {}, contractState()},
		"what differs is replaced":     {contractState(), changedState(), contractState()},
		"a link takes along its own":   {contractState(), {Rules: contractState().Rules, Firewall: contractState().Firewall}},
		"elements change by the piece": {contractState(), withElements("10.244.0.3", "10.244.0.4"), withElements()},
	} {
		t.Run(name, func(t *testing.T) {
			k, in := given(t)
			for i, want := range states {
				reach(t, i, k, in, want)
			}
		})
	}
}

// reach makes a kernel what it shall be, and checks that it is.
func reach(t *testing.T, i int, k Kernel, in func(func() error) error, want model.State) {
	t.Helper()
	var left []diff.Op
	err := in(func() error {
		have, err := k.Observe(t.Context(), want)
		if err != nil {
			return err
		}
		ops := diff.Diff(want, have)
		if err := k.Execute(t.Context(), ops); err != nil {
			return err
		}
		now, err := k.Observe(t.Context(), want)
		left = diff.Diff(want, now)
		return err
	})
	if err != nil {
		t.Fatalf("state %d: %v", i, err)
	}
	if len(left) > 0 {
		t.Errorf("state %d: %v is left to do", i, left)
	}
}

func contractState() model.State {
	prefix, mac := netip.MustParsePrefix, model.MAC{2, 0, 0, 0, 0, 1}
	table := nft.Table{Family: nft.Inet, Name: model.FirewallTable, Sets: []nft.Set{
		{Name: "self4", Key: "ipv4_addr", Elements: []nft.Element{{Key: []string{"10.244.0.2"}}}},
	}, Chains: []nft.Chain{{
		Name:  "filter-forward",
		Base:  nft.Base{Type: nft.TypeFilter, Hook: nft.Forward, Priority: nft.Mangle.At(0)},
		Rules: nft.Rules("ip saddr @self4 accept"),
	}}}
	table.Sign()
	return model.State{
		Links:     []model.Link{{Name: model.BridgeLink, Kind: model.LinkBridge, MAC: mac, MTU: 1500}},
		Addresses: []model.Address{{Link: model.BridgeLink, Addr: prefix("10.244.0.1/32")}},
		Routes: []model.Route{
			{Dst: prefix("10.244.0.0/24"), Unreachable: true},
			{Dst: prefix("10.244.0.2/32"), Link: model.BridgeLink, Src: netip.MustParseAddr("10.244.0.1")},
		},
		Rules:      []model.Rule{{Priority: model.RulePriority, Table: model.RouteTable}},
		Neighbours: []model.Neighbour{{Link: model.BridgeLink, Addr: netip.MustParseAddr("10.244.0.2"), MAC: model.MAC{2, 0, 0, 0, 0, 2}}},
		Sysctls:    []model.Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}},
		Firewall:   []model.Table{{Table: table}},
	}
}

// changedState differs from contractState in each kind that can be changed.
func changedState() model.State {
	s := contractState()
	s.Links[0].MTU = 1400
	s.Routes[1].MTU = 1300
	s.Neighbours[0].MAC = model.MAC{2, 0, 0, 0, 0, 3}
	s.Firewall[0].Chains[0].Rules = nft.Rules("ip daddr @self4 accept", "drop")
	s.Firewall[0].Sign()
	return s
}

// withElements is contractState with other elements.
func withElements(addrs ...string) model.State {
	s := contractState()
	s.Firewall[0].Sets[0].Elements = nil
	for _, a := range addrs {
		s.Firewall[0].Sets[0].Elements = append(s.Firewall[0].Sets[0].Elements, nft.Element{Key: []string{a}})
	}
	return s
}
