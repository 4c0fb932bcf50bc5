package controllers

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/event"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
)

// viewOf returns a view of a cluster whose network has these ranges.
func viewOf(t *testing.T, ranges ...string) *view {
	t.Helper()
	network := &podnetv1alpha1.PodNetwork{}
	for _, r := range ranges {
		network.Spec.Ranges = append(network.Spec.Ranges, podnetv1alpha1.Range{CIDR: r})
	}
	held := allocation.CensusOf(network, nil)
	if held.Invalid != nil {
		t.Fatal(held.Invalid)
	}
	return &view{Census: held, reports: map[string]*podnetv1alpha1.NodeNetwork{}}
}

func (v *view) withServices(name string, cidrs ...string) *view {
	v.services = append(v.services, networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
	})
	return v
}

func (v *view) withNode(name string, addresses ...corev1.NodeAddress) *view {
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	node.Status.Addresses = addresses
	v.everyNode = append(v.everyNode, node)
	return v
}

func (v *view) withBlock(node, cidr string) *view {
	v.ByNode[node] = append(v.ByNode[node], podnetv1alpha1.NodeSubnet{Spec: podnetv1alpha1.NodeSubnetSpec{Node: node, CIDR: cidr}})
	return v
}

// withReport adds the report of the node with an UID: endpoints, and what its interfaces have.
func (v *view) withReport(node, uid string, endpoints []string, cidrs ...string) *view {
	report := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{
		Name: node, OwnerReferences: []metav1.OwnerReference{{UID: types.UID(uid)}},
	}}
	report.Status.Endpoints = endpoints
	report.Status.Findings = []podnetv1alpha1.Finding{
		{Type: "ForeignRoute", Message: "Another.", CIDRs: []string{"10.244.99.0/24"}},
		{Type: podnetv1alpha1.FindingRangeOverlap, Message: "One.", CIDRs: cidrs},
	}
	v.reports[node] = report
	return v
}

func internal(address string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address}
}

func TestRangesOverlapWhatTheClusterUses(t *testing.T) {
	outside := corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "10.244.0.9"}
	name := corev1.NodeAddress{Type: corev1.NodeHostName, Address: "10.244.0.9"}
	cases := map[string]struct {
		view *view
		// want is in the message; empty where nothing overlaps.
		want string
	}{
		"nothing": {view: viewOf(t, "10.244.0.0/16").withServices("kubernetes", "10.96.0.0/16", "fd00::/108").withNode("a", internal("192.0.2.1"))},
		"services": {
			viewOf(t, "10.96.0.0/12").withServices("kubernetes", "10.96.0.0/16"),
			"Range 10.96.0.0/12 overlaps the service CIDR 10.96.0.0/16 (ServiceCIDR kubernetes)",
		},
		"the second family of services":   {viewOf(t, "fd00::/48").withServices("kubernetes", "10.96.0.0/16", "fd00::/108"), "fd00::/108 (ServiceCIDR kubernetes)"},
		"what is reserved":                {viewOf(t, "169.254.0.0/20"), "link-local"},
		"a node's internal address":       {viewOf(t, "10.244.0.0/16").withNode("a", internal("10.244.0.9")), "a has 10.244.0.9"},
		"a node's external address":       {viewOf(t, "10.244.0.0/16").withNode("a", outside), "a has 10.244.0.9"},
		"a node's IPv6 address":           {viewOf(t, "fd00::/48").withNode("a", internal("fd00::9")), "a has fd00::9"},
		"a node's name is no address":     {view: viewOf(t, "10.244.0.0/16").withNode("a", name)},
		"an address that does not parse":  {view: viewOf(t, "10.244.0.0/16").withNode("a", internal("mine"))},
		"podnet's own address of a node":  {view: viewOf(t, "10.244.0.0/16").withNode("a", internal("10.244.3.0")).withBlock("a", "10.244.3.0/24")},
		"podnet's own address of another": {viewOf(t, "10.244.0.0/16").withNode("b", internal("10.244.3.0")).withBlock("a", "10.244.3.0/24"), "b has 10.244.3.0"},
		"an endpoint that an agent chose": {viewOf(t, "10.244.0.0/16").withNode("a").withReport("a", "a", []string{"10.244.0.9"}), "a has 10.244.0.9"},
		"an address that both know is reported once": {
			viewOf(t, "10.244.0.0/16").withNode("a", internal("10.244.0.9")).withReport("a", "a", []string{"10.244.0.9"}),
			"(a has 10.244.0.9)",
		},
		"a network on a node's link": {
			viewOf(t, "10.244.0.0/16").withNode("a").withReport("a", "a", nil, "10.244.7.0/24"),
			"Range 10.244.0.0/16 overlaps 10.244.7.0/24, which 1 node has on an interface (a)",
		},
		"the report of a former node of that name": {view: viewOf(t, "10.244.0.0/16").withNode("a").withReport("a", "former", []string{"10.244.0.9"}, "10.244.7.0/24")},
		"the report of no node":                    {view: viewOf(t, "10.244.0.0/16").withReport("a", "a", []string{"10.244.0.9"}, "10.244.7.0/24")},
		"a finding about a range that has gone":    {view: viewOf(t, "10.244.0.0/16").withNode("a").withReport("a", "a", nil, "10.1.0.0/16")},
		"a finding that names no prefix":           {view: viewOf(t, "10.244.0.0/16").withNode("a").withReport("a", "a", nil, "eth0")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := c.view.overlapping()
			overlaps := got.Status == metav1.ConditionTrue && got.Reason == podnetv1alpha1.ReasonRangesOverlap
			none := got.Status == metav1.ConditionFalse && got.Reason == podnetv1alpha1.ReasonNoOverlap
			if overlaps != (c.want != "") || none == overlaps || !strings.Contains(got.Message, c.want) {
				t.Errorf("%+v; want %q", got, c.want)
			}
		})
	}
}

func TestOneNetworkBehindAllNodesIsOneSentence(t *testing.T) {
	v := viewOf(t, "10.0.0.0/8", "172.16.0.0/12")
	for i := range 5000 {
		name := fmt.Sprintf("node-%04d", i)
		v.withNode(name, internal(fmt.Sprintf("10.1.%d.%d", i/250, i%250))).withReport(name, name, nil, "10.1.0.0/16", "172.17.0.0/16")
	}
	message := v.overlapping().Message
	if len(v.overlaps) != 3 || strings.Count(message, "and 4995 more") != 3 || len(message) > 1500 {
		t.Errorf("%d overlaps, %d characters: %s", len(v.overlaps), len(message), message)
	}
}

func TestManyOverlapsAreCounted(t *testing.T) {
	v := viewOf(t, "10.244.0.0/16").withNode("a")
	var cidrs []string
	for i := range 16 {
		cidrs = append(cidrs, fmt.Sprintf("10.244.%d.0/24", i))
	}
	v.withReport("a", "a", nil, cidrs...)
	if message := v.overlapping().Message; !strings.HasSuffix(message, "11 more are not listed.") {
		t.Error(message)
	}
}

// told is a reconciler with a network and the Events that it has made.
type told struct {
	*PodNetworkReconciler
	network  *podnetv1alpha1.PodNetwork
	recorder *events.FakeRecorder
}

func newTold() *told {
	recorder := events.NewFakeRecorder(16)
	network := &podnetv1alpha1.PodNetwork{ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork, UID: "one"}}
	return &told{PodNetworkReconciler: &PodNetworkReconciler{Events: recorder}, network: network, recorder: recorder}
}

// see lets the reconciler tell what overlaps, and returns the Event that it makes of it.
func (s *told) see(v *view) string {
	condition := v.overlapping()
	s.tellOverlaps(s.network, v.overlaps)
	apimeta.SetStatusCondition(&s.network.Status.Conditions, condition)
	select {
	case told := <-s.recorder.Events:
		return told
	default:
		return ""
	}
}

func TestOverlapsAreToldOnce(t *testing.T) {
	services := func() *view {
		return viewOf(t, "10.0.0.0/8").withServices("kubernetes", "10.96.0.0/16").withNode("a").withNode("b")
	}
	network := func() *view { return services().withReport("a", "a", nil, "10.7.0.0/16") }
	onTwo := func() *view { return network().withReport("b", "b", nil, "10.7.0.0/16") }

	s := newTold()
	for i, step := range []struct {
		view *view
		// want is in the Event, and not is not; want is empty for no Event.
		want, not string
	}{
		{view: viewOf(t, "10.0.0.0/8")},
		{view: services(), want: "Warning RangesOverlap Range 10.0.0.0/8 overlaps the service CIDR 10.96.0.0/16"},
		{view: services()},
		{view: network(), want: "10.7.0.0/16, which 1 node has", not: "service CIDR"},
		{view: onTwo()},
		{view: network()},
		{view: viewOf(t, "10.0.0.0/8")},
		{view: network(), want: "10.7.0.0/16, which 1 node has"},
	} {
		got := s.see(step.view)
		if (got == "") != (step.want == "") || !strings.Contains(got, step.want) || step.not != "" && strings.Contains(got, step.not) {
			t.Errorf("step %d: Event %q; want %q", i, got, step.want)
		}
	}

	// The next manager finds the condition that this one has written.
	s.told = reportedOverlaps{}
	if got := s.see(network()); got != "" {
		t.Errorf("a manager that starts says again: %s", got)
	}
	s.told = reportedOverlaps{}
	if got := s.see(viewOf(t, "10.0.0.0/8").withServices("second", "10.97.0.0/16")); !strings.Contains(got, "second") {
		t.Errorf("a manager that starts says %q; want what is new", got)
	}
	// A network that is recreated is another one.
	s.network.UID, s.network.Status = "two", podnetv1alpha1.PodNetworkStatus{}
	if got := s.see(services()); !strings.Contains(got, "kubernetes") {
		t.Errorf("of a new network it says %q", got)
	}
	s.network.Name = "other"
	if got := s.see(network()); got != "" {
		t.Errorf("of a network that is not served it says %q", got)
	}
}

func TestNotesFitIntoEvents(t *testing.T) {
	v := viewOf(t, "10.0.0.0/8").withNode("a")
	v.withReport("a", "a", nil, "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16", "10.6.0.0/16")
	_, _, note := cutTwice(newTold().see(v))
	if len(note) > 1024 || !strings.HasSuffix(note, "…") {
		t.Errorf("a note of %d bytes: %s", len(note), note)
	}
}

// cutTwice splits what the fake recorder writes into type, reason and note.
func cutTwice(event string) (kind, reason, note string) {
	kind, event, _ = strings.Cut(event, " ")
	reason, note, _ = strings.Cut(event, " ")
	return kind, reason, note
}

func TestOtherFindingsDoNotWakeTheNetwork(t *testing.T) {
	report := func(cidrs ...string) *podnetv1alpha1.NodeNetwork {
		return viewOf(t).withReport("a", "a", nil, cidrs...).reports["a"]
	}
	more := report("10.7.0.0/16")
	more.Status.Findings = append(more.Status.Findings, podnetv1alpha1.Finding{Type: "ForwardDrop", Message: "Another."})
	for _, c := range []struct {
		before, after *podnetv1alpha1.NodeNetwork
		want          bool
	}{
		{report("10.7.0.0/16"), report("10.7.0.0/16"), false},
		{report("10.7.0.0/16"), more, false},
		{report("10.7.0.0/16"), report("10.8.0.0/16"), true},
		{report("10.7.0.0/16"), report(), true},
	} {
		if got := overlapFindingsChanged().Update(event.UpdateEvent{ObjectOld: c.before, ObjectNew: c.after}); got != c.want {
			t.Errorf("from %v to %v: %t", foreignCIDRs(c.before), foreignCIDRs(c.after), got)
		}
	}
}
