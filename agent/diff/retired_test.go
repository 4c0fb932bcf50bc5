package diff_test

import (
	"net/netip"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// What podnet itself has ceased to want, and has still to take away, is nobody else's doing.
func TestWhatPodnetLeftBehindIsNoDrift(t *testing.T) {
	part := model.State{
		Routes: []model.Route{{Dst: netip.MustParsePrefix("10.244.1.2/32"), Link: "podn1"}},
		Firewall: []model.Table{{Table: nft.Table{Family: "inet", Name: "podnet", Sets: []nft.Set{
			{Name: "podsources4", Key: "ifname . ipv4_addr", Elements: []nft.Element{{Key: []string{"podn1", "10.244.1.2"}}}},
			{Name: "blocks4", Key: "ipv4_addr", Interval: true, Elements: []nft.Element{{Key: []string{"10.244.1.0/24"}}}},
		}}}},
	}
	have := part
	want := model.State{Firewall: []model.Table{{Table: nft.Table{Family: "inet", Name: "podnet", Sets: []nft.Set{
		{Name: "podsources4", Key: "ifname . ipv4_addr"}, {Name: "blocks4", Key: "ipv4_addr", Interval: true},
	}}}}}
	ops := diff.Diff(want, have)
	if len(ops) == 0 {
		t.Fatal("there is nothing to do")
	}
	if got := diff.NewWanted(want).Repairs(ops, have, nil); len(got) != 3 {
		t.Errorf("what others brought: %v", got)
	}
	before := diff.NewWanted(part)
	before.Remove(part)
	if got := before.Repairs(ops, have, nil); len(got) > 0 {
		t.Errorf("after its removal: %v", got)
	}
	// A pass that could not take it away leaves it to the next one.
	failed := diff.NewWanted(want)
	failed.Forget(ops)
	if got := failed.Repairs(ops, have, nil); len(got) > 0 {
		t.Errorf("after a failed pass: %v", got)
	}
}
