package diff_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

var hostLinks = []string{"eth0", "pod1", "pod2", "pod3"}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func vxlan() model.Link {
	return model.Link{
		Name: "vxpodnet4", Kind: model.LinkVXLAN, MAC: model.MAC{2}, MTU: 1450,
		VNI: 7466, Port: 8472, Local: addr("192.0.2.1"), Underlay: "eth0",
	}
}

// onVXLAN is a state with one of everything on the VXLAN device.
func onVXLAN() model.State {
	return model.State{
		Links:     []model.Link{vxlan()},
		Addresses: []model.Address{{Link: "vxpodnet4", Addr: prefix("10.244.0.0/32")}},
		Routes: []model.Route{
			{Dst: prefix("10.244.0.0/24"), Unreachable: true},
			{Dst: prefix("10.244.1.0/24"), Link: "vxpodnet4", Via: addr("10.244.1.0"), OnLink: true, Src: addr("10.244.0.0"), MTU: 1450},
			{Dst: prefix("10.244.2.0/24"), Link: "eth0", Via: addr("192.0.2.3"), OnLink: true, Src: addr("10.244.0.0")},
		},
		Neighbours: []model.Neighbour{{Link: "vxpodnet4", Addr: addr("10.244.1.0"), MAC: model.MAC{2, 1}}},
		FDB:        []model.FDBEntry{{Link: "vxpodnet4", MAC: model.MAC{2, 1}, Endpoint: addr("192.0.2.2")}},
		Sysctls: []model.Sysctl{
			{Key: "net/ipv4/ip_forward", Value: "1"},
			{Key: "net/ipv4/conf/vxpodnet4/rp_filter", Value: "2"},
		},
		Rules: []model.Rule{{Priority: model.RulePriority, Table: model.RouteTable}},
	}
}

// firewall is a table with a set, an interval set and a map.
func firewall(rule string, pods, ranges []string, ports map[string]string) model.Table {
	t := nft.Table{Family: nft.Inet, Name: model.FirewallTable, Sets: []nft.Set{
		{Name: "hostports4", Key: "inet_proto . inet_service", Value: "ipv4_addr . inet_service"},
		{Name: "podsources4", Key: "ifname . ipv4_addr"},
		{Name: "ranges4", Key: "ipv4_addr", Interval: true},
	}, Chains: []nft.Chain{{
		Name: "raw-prerouting", Base: nft.Base{Type: nft.TypeFilter, Hook: nft.Prerouting, Priority: nft.Raw.At(0)},
		Rules: nft.Rules(rule),
	}}}
	for _, p := range pods {
		t.Sets[1].Elements = append(t.Sets[1].Elements, nft.Element{Key: []string{"pod" + p, "10.244.0." + p}})
	}
	for _, r := range ranges {
		t.Sets[2].Elements = append(t.Sets[2].Elements, nft.Element{Key: []string{r}})
	}
	for port, to := range ports {
		t.Sets[0].Elements = append(t.Sets[0].Elements, nft.Element{Key: []string{"tcp", port}, Value: []string{to, "80"}})
	}
	t.Sign()
	return model.Table{Table: t}
}

// apply brings a fake kernel to want and fails the test where it does not come to rest there.
func apply(t *testing.T, k *difftest.Fake, want model.State) []diff.Op {
	t.Helper()
	ctx := context.Background()
	have, err := k.Observe(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	ops := diff.Diff(want, have)
	if err := k.Execute(ctx, ops); err != nil {
		t.Fatalf("%v\noperations: %s", err, listed(ops))
	}
	have, err = k.Observe(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	if again := diff.Diff(want, have); len(again) > 0 {
		t.Fatalf("a second pass changes something: %s\nafter: %s", listed(again), listed(ops))
	}
	return ops
}

func listed(ops []diff.Op) string {
	var s string
	for _, op := range ops {
		s += fmt.Sprintf("\n  %s %T %+v", op.Verb, op.Object, op.Object)
	}
	return s
}

func TestUnchangedStateNeedsNothing(t *testing.T) {
	if ops := diff.Diff(onVXLAN(), onVXLAN()); len(ops) > 0 {
		t.Errorf("operations: %s", listed(ops))
	}
}

func TestEverythingIsMadeAndRemoved(t *testing.T) {
	k := difftest.New(model.State{}, hostLinks...)
	want := onVXLAN()
	want.Firewall = []model.Table{firewall("drop", []string{"1"}, []string{"10.244.0.0/16"}, map[string]string{"80": "10.244.0.1"})}
	apply(t, k, want)
	apply(t, k, model.State{})
	left := k.State()
	left.Sysctls = nil
	if fmt.Sprint(left) != fmt.Sprint(model.State{}) {
		t.Errorf("left over: %+v", left)
	}
}

// A new kind needs no code in here: its objects are made and taken away, but where they last.
func TestEveryKindIsMadeAndTakenAway(t *testing.T) {
	for _, list := range new(model.State).Lists() {
		var one model.State
		var object model.Object
		all := whole()
		for _, l := range all.Lists() {
			if l.Kind() == list.Kind() {
				l.Each(func(o model.Object) { object = o })
			}
		}
		if object == nil {
			t.Errorf("whole has nothing of kind %s", list.Kind())
			continue
		}
		for _, l := range one.Lists() {
			if l.Kind() == list.Kind() {
				l.Add(object)
			}
		}
		identities := func(ops []diff.Op) (ids []any) {
			for _, op := range ops {
				ids = append(ids, op.Verb, op.Object.Identity())
			}
			return ids
		}
		if got := identities(diff.Diff(one, model.State{})); !slices.Equal(got, []any{diff.Put, object.Identity()}) {
			t.Errorf("%s is made by %v", object.Describe(), got)
		}
		lasts := list.Kind() == model.KindPort || list.Kind() == model.KindSysctl
		if got := identities(diff.Diff(model.State{}, one)); !lasts && !slices.Equal(got, []any{diff.Delete, object.Identity()}) || lasts && len(got) > 0 {
			t.Errorf("%s is taken away by %v", object.Describe(), got)
		}
		if got := diff.Diff(one, one); len(got) > 0 {
			t.Errorf("%s is as it shall be: %s", object.Describe(), listed(got))
		}
	}
}

func TestParametersOfLinksFollowTheLinksAndOthersPrecedeThemInOrder(t *testing.T) {
	want := onVXLAN()
	want.Sysctls = []model.Sysctl{
		{Key: "net/ipv6/conf/eth0.10/accept_ra", Value: "2"},
		{Key: "net/ipv6/conf/all/forwarding", Value: "1"},
		{Key: "net/ipv4/conf/vxpodnet4/rp_filter", Value: "2"},
		{Key: "net/bridge/bridge-nf-call-iptables", Value: "1"},
	}
	var order []string
	for _, op := range diff.Diff(want, model.State{}) {
		switch o := op.Object.(type) {
		case model.Sysctl:
			order = append(order, o.Key)
		case model.Link:
			order = append(order, o.Name)
		}
	}
	expected := []string{
		"net/ipv6/conf/eth0.10/accept_ra", "net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables",
		"vxpodnet4", "net/ipv4/conf/vxpodnet4/rp_filter",
	}
	if !slices.Equal(order, expected) {
		t.Errorf("order %v, want %v", order, expected)
	}
}

func TestVXLANDeviceIsRemadeWithAllThatWasOnIt(t *testing.T) {
	for name, change := range map[string]func(*model.Link){
		"VNI":  func(l *model.Link) { l.VNI = 1 },
		"port": func(l *model.Link) { l.Port = 4789 },
	} {
		t.Run(name, func(t *testing.T) {
			k := difftest.New(onVXLAN(), hostLinks...)
			want := onVXLAN()
			change(&want.Links[0])
			ops := apply(t, k, want)
			if ops[0].Verb != diff.Delete || ops[0].Object != any(vxlan()) {
				t.Errorf("the old device does not go first: %s", listed(ops))
			}
			if !reflect.DeepEqual(k.State().Routes, want.Routes) {
				t.Errorf("routes after: %+v", k.State().Routes)
			}
		})
	}
}

func TestLinksAreChangedInPlace(t *testing.T) {
	for name, change := range map[string]func(*model.Link){
		"MTU":      func(l *model.Link) { l.MTU = 1400 },
		"MAC":      func(l *model.Link) { l.MAC = model.MAC{6} },
		"local":    func(l *model.Link) { l.Local = addr("192.0.2.9") },
		"underlay": func(l *model.Link) { l.Underlay = "eth1" },
	} {
		t.Run(name, func(t *testing.T) {
			k := difftest.New(onVXLAN(), hostLinks...)
			want := onVXLAN()
			change(&want.Links[0])
			ops := apply(t, k, want)
			if len(ops) != 1 || ops[0].Verb != diff.Put {
				t.Errorf("operations: %s", listed(ops))
			}
		})
	}
}

func TestSwitchOfPathIsOneReplacement(t *testing.T) {
	k := difftest.New(onVXLAN(), hostLinks...)
	want := onVXLAN()
	want.Routes[1] = model.Route{Dst: prefix("10.244.1.0/24"), Link: "eth0", Via: addr("192.0.2.2"), OnLink: true, Src: addr("10.244.0.0")}
	ops := apply(t, k, want)
	if len(ops) != 1 || ops[0] != (diff.Op{Verb: diff.Put, Object: want.Routes[1]}) {
		t.Errorf("operations: %s", listed(ops))
	}
}

// Deleting an address takes the routes along that have it as source, so each
// route must have its new source before.
func TestRoutesStayWhileTheSourceMovesToAnotherBlock(t *testing.T) {
	before, after := onVXLAN(), onVXLAN()
	after.Addresses[0].Addr = prefix("10.245.0.0/32")
	for i := range after.Routes {
		if after.Routes[i].Src.IsValid() {
			after.Routes[i].Src = addr("10.245.0.0")
		}
	}
	k := difftest.New(before, hostLinks...)
	for _, op := range diff.Diff(after, before) {
		if err := k.Execute(context.Background(), []diff.Op{op}); err != nil {
			t.Fatal(err)
		}
		if len(k.State().Routes) != len(before.Routes) {
			t.Fatalf("a route is missing after %+v: %+v", op, k.State().Routes)
		}
	}
	apply(t, k, after)
}

func TestAddressThatMovesToAnotherLinkIsNeverMissing(t *testing.T) {
	before, after := onVXLAN(), onVXLAN()
	six := vxlan()
	six.Name, six.Local = "vxpodnet6", addr("2001:db8::1")
	before.Links = append(before.Links, six)
	after.Links = append(after.Links, six)
	before.Addresses[0].Link = "vxpodnet6"
	k := difftest.New(before, hostLinks...)
	for _, op := range diff.Diff(after, before) {
		if err := k.Execute(context.Background(), []diff.Op{op}); err != nil {
			t.Fatal(err)
		}
		if len(k.State().Addresses) == 0 {
			t.Fatalf("no address after %+v", op)
		}
	}
	apply(t, k, after)
}

func TestPrefixLengthOfAnAddressChanges(t *testing.T) {
	before, after := onVXLAN(), onVXLAN()
	after.Addresses[0].Addr = prefix("10.244.0.0/31")
	apply(t, difftest.New(before, hostLinks...), after)
}

func TestForeignElementsOfATableGoAndOthersStay(t *testing.T) {
	before := model.State{Firewall: []model.Table{firewall("drop", []string{"1", "2"}, []string{"10.244.0.0/16"}, nil)}}
	after := model.State{Firewall: []model.Table{firewall("drop", []string{"2", "3"}, []string{"10.244.0.0/16"}, nil)}}
	ops := apply(t, difftest.New(before), after)
	element := func(pod string) []nft.Element {
		return []nft.Element{{Key: []string{"pod" + pod, "10.244.0." + pod}}}
	}
	set := diff.Elements{Elements: nft.Elements{Family: nft.Inet, Table: "podnet", Set: "podsources4"}}
	del, put := set, set
	del.List, put.List = element("1"), element("3")
	if want := []diff.Op{{Verb: diff.Delete, Object: del}, {Verb: diff.Put, Object: put}}; !reflect.DeepEqual(ops, want) {
		t.Errorf("operations: %s", listed(ops))
	}
}

func TestElementsThatExcludeEachOtherAreReplaced(t *testing.T) {
	before := model.State{Firewall: []model.Table{firewall("drop", nil, []string{"10.244.0.0/16"}, map[string]string{"80": "10.244.0.1"})}}
	after := model.State{Firewall: []model.Table{firewall("drop", nil, []string{"10.244.0.0/15"}, map[string]string{"80": "10.244.0.2"})}}
	k := difftest.New(before)
	apply(t, k, after)
	if !reflect.DeepEqual(k.State().Firewall[0].Sets[2].Elements, after.Firewall[0].Sets[2].Elements) {
		t.Errorf("after: %+v", k.State().Firewall[0].Sets)
	}
}

func TestTableWithOtherStructureIsReplacedAsAWhole(t *testing.T) {
	plain := firewall("drop", []string{"1"}, nil, nil)
	for name, change := range map[string]func(*model.Table){
		"rule text":     func(t *model.Table) { *t = firewall("accept", []string{"1"}, nil, nil) },
		"set type":      func(t *model.Table) { t.Sets[0].Key = "ipv4_addr"; t.Sign() },
		"missing set":   func(t *model.Table) { t.Sets = t.Sets[1:] },
		"missing rule":  func(t *model.Table) { t.Chains[0].Rules = nil },
		"foreign rule":  func(t *model.Table) { t.Chains[0].Rules = append(t.Chains[0].Rules, nft.Rule{}) },
		"foreign chain": func(t *model.Table) { t.Chains = append(t.Chains, nft.Chain{Name: "other"}) },
	} {
		t.Run(name, func(t *testing.T) {
			found := firewall("drop", []string{"1"}, nil, nil)
			change(&found)
			ops := apply(t, difftest.New(model.State{Firewall: []model.Table{found}}), model.State{Firewall: []model.Table{plain}})
			if len(ops) != 1 || !reflect.DeepEqual(ops[0].Object, plain) {
				t.Errorf("operations: %s", listed(ops))
			}
		})
	}
}

func TestPartIsAddedAndRemovedAgain(t *testing.T) {
	ctx := context.Background()
	base := onVXLAN()
	base.Firewall = []model.Table{firewall("drop", []string{"1"}, nil, nil)}
	part := model.State{
		Routes:     []model.Route{{Dst: prefix("10.244.0.2/32"), Link: "pod2"}},
		Neighbours: []model.Neighbour{{Link: "pod2", Addr: addr("10.244.0.2"), MAC: model.MAC{2, 2}}},
		Sysctls:    []model.Sysctl{{Key: "net/ipv4/conf/pod2/route_localnet", Value: "1"}},
		Firewall: []model.Table{{Table: nft.Table{Family: "inet", Name: "podnet", Sets: []nft.Set{
			{Name: "podsources4", Elements: []nft.Element{{Key: []string{"pod2", "10.244.0.2"}}}},
			{Name: "hostports4", Value: "x", Elements: []nft.Element{{Key: []string{"tcp", "80"}, Value: []string{"10.244.0.2", "80"}}}},
		}}}},
	}
	k := difftest.New(base, hostLinks...)
	before := k.State()
	for range 2 {
		if err := k.Execute(ctx, diff.Additions(part)); err != nil {
			t.Fatal(err)
		}
	}
	if with := k.State(); len(with.Routes) != 4 || len(with.Neighbours) != 2 || len(with.Firewall[0].Sets[1].Elements) != 2 {
		t.Errorf("with the part: %+v", with)
	}
	for range 2 {
		if err := k.Execute(ctx, diff.Removals(part)); err != nil {
			t.Fatal(err)
		}
	}
	after := k.State()
	before.Sysctls, after.Sysctls = nil, nil
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
}
