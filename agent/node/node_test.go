package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/podnet/podnet/agent/host"
	"github.com/podnet/podnet/internal/model"
)

// inspector is a node on which the same is found each time.
type inspector struct {
	facts    host.Facts
	findings []model.Finding
	searched host.Search
	err      error
}

func (i *inspector) Facts(context.Context) (host.Facts, error) { return i.facts, i.err }

func (i *inspector) Findings(_ context.Context, s host.Search) ([]model.Finding, error) {
	i.searched = s
	return i.findings, i.err
}

// removed counts how often the network was taken off a node.
type removed int

func (r *removed) Remove(context.Context) error {
	*r++
	return errors.New("the kernel refuses")
}

func TestNodeIsWhatWasFoundAndChosen(t *testing.T) {
	link := model.HostLink{Name: "eth0", Up: true, MTU: 1500, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
	i := &inspector{facts: host.Facts{
		Links: []model.HostLink{link}, Routes: []model.UnderlayRoute{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0"}},
		VXLAN: true, Missing: []string{"nft_nat"}, IPv6: true, AcceptRA: []string{"eth0"},
	}}
	n := &Local{Name: "a", Known: NewKnown(nil, nil), Inspector: i}
	found, problems, err := n.Host(t.Context())
	if err != nil || len(problems) > 0 {
		t.Fatalf("problems %v, %v", problems, err)
	}
	if len(found.Endpoints) != 1 || found.Endpoints[0].Addr != netip.MustParseAddr("192.0.2.1") || found.Node != "a" ||
		!found.VXLAN || !found.IPv6 || !slices.Equal(found.Missing, i.facts.Missing) || !slices.Equal(found.AcceptRA, i.facts.AcceptRA) {
		t.Errorf("the node is %+v", found)
	}
	i.err = errors.New("no netlink")
	if _, _, err := n.Host(t.Context()); !errors.Is(err, i.err) {
		t.Errorf("error %v, want %v", err, i.err)
	}
}

func TestFindingsAreThoseOfTheNetworkAndOfTheFolder(t *testing.T) {
	i := &inspector{findings: []model.Finding{{Type: host.FindingOtherNetwork}}}
	n := &Local{Inspector: i, ConfDir: "/etc/cni/net.d", Conflist: "10-podnet.conflist"}
	block := netip.MustParsePrefix("10.244.1.0/24")
	ranges, probe := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, &model.Pod{}
	found, err := n.Findings(t.Context(), ranges, []model.Block{{CIDR: block}}, probe)
	if err != nil || len(found) != 1 {
		t.Errorf("found %v, %v", found, err)
	}
	s := i.searched
	if !slices.Equal(s.Ranges, ranges) || !slices.Equal(s.Blocks, []netip.Prefix{block}) || s.Probe != probe ||
		s.ConfDir != n.ConfDir || s.Conflist != n.Conflist {
		t.Errorf("searched for %+v", s)
	}
}

func TestNetworkIsRemovedThoughTheConfigurationStays(t *testing.T) {
	var network removed
	refused := errors.New("read-only file system")
	n := &Local{Network: &network, Uninstall: func(context.Context) error { return refused }}
	if err := n.Remove(t.Context()); !errors.Is(err, refused) || network != 1 {
		t.Errorf("the network was removed %d times: %v", network, err)
	}
}
