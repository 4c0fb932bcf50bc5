package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects"
)

// claiming is a cluster of nodes whose agents say which addresses are theirs. The i-th node
// has the block 10.244.i.0/24 and was the i-th to come.
type claiming struct {
	*gomega.WithT
	t      *testing.T
	api    client.Client
	told   *events.FakeRecorder
	keeper *NodeSubnetReconciler
}

func newClaiming(t *testing.T, nodes ...string) *claiming {
	t.Helper()
	network := &podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec:       podnetv1alpha1.PodNetworkSpec{Ranges: []podnetv1alpha1.Range{{CIDR: "10.244.0.0/16"}, {CIDR: "fd44::/48"}}},
	}
	services := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}
	build := fake.NewClientBuilder().WithScheme(Scheme()).WithObjects(network, services).WithStatusSubresource(&podnetv1alpha1.NodeNetwork{}, &corev1.Node{})
	for _, by := range indices {
		build = build.WithIndex(by.kind, by.field, by.values)
	}
	for i, name := range nodes {
		came := metav1.NewTime(time.Unix(1_700_000_000+int64(i), 0))
		uid := types.UID("uid-of-" + name)
		build = build.WithObjects(
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid, CreationTimestamp: came}},
			&podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: uid}}}},
			&podnetv1alpha1.NodeSubnet{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("10.244.%d.0-24", i), UID: uid},
				Spec: podnetv1alpha1.NodeSubnetSpec{
					Network: podnetv1alpha1.DefaultPodNetwork, Node: name, NodeUID: uid, CIDR: fmt.Sprintf("10.244.%d.0/24", i), State: podnetv1alpha1.SubnetActive,
				},
			})
	}
	c := &claiming{WithT: gomega.NewWithT(t), t: t, api: build.Build(), told: events.NewFakeRecorder(100)}
	c.keeper = &NodeSubnetReconciler{
		Client: c.api, Live: c.api, Events: c.told, Clock: clock.RealClock{}, Policies: policyList{}, idle: idleness{}, unused: idleness{},
		gone: idleness{}, agentless: idleness{},
	}
	return c
}

// say has a node's agent report endpoints, and lets the manager look at all whom that wakes.
func (c *claiming) say(node string, endpoints ...string) {
	c.t.Helper()
	report := &podnetv1alpha1.NodeNetwork{}
	c.Expect(c.api.Get(c.t.Context(), client.ObjectKey{Name: node}, report)).To(gomega.Succeed())
	before := report.DeepCopy()
	report.Status.Endpoints = endpoints
	c.Expect(c.api.Status().Update(c.t.Context(), report)).To(gomega.Succeed())
	// As a watch does, with what was and what is.
	c.look(append(c.keeper.withClaimants(c.t.Context(), before), c.keeper.withClaimants(c.t.Context(), report)...))
}

func (c *claiming) look(requests []ctrl.Request) {
	c.t.Helper()
	for _, request := range requests {
		_, err := c.keeper.Reconcile(c.t.Context(), request)
		c.Expect(err).NotTo(gomega.HaveOccurred())
	}
}

// published returns what others are told to send to.
func (c *claiming) published(node string) []string {
	c.t.Helper()
	list := &podnetv1alpha1.NodeSubnetList{}
	c.Expect(c.api.List(c.t.Context(), list, client.MatchingFields{objects.NodeField: node})).To(gomega.Succeed())
	c.Expect(list.Items).To(gomega.HaveLen(1))
	return list.Items[0].Spec.Endpoints
}

// events returns what was told since it was last asked.
func (c *claiming) events() string {
	var all []string
	for {
		select {
		case e := <-c.told.Events:
			all = append(all, e)
		default:
			return strings.Join(all, "\n")
		}
	}
}

func TestAddressesThatAreNoNodesAreNotPublished(t *testing.T) {
	for address, why := range map[string]string{
		"10.244.1.2": "it lies in range 10.244.0.0/16", "fd44:0:0:1::2": "it lies in range fd44::/48", "10.96.0.10": "it lies in the service CIDR 10.96.0.0/16 (ServiceCIDR kubernetes)",
		"127.0.0.1": "loopback", "0.0.0.0": "reserved", "169.254.1.1": "link-local", "224.0.0.1": "multicast", "255.255.255.255": "broadcast", "240.0.0.1": "class E",
		"::1": "loopback", "::": "unspecified", "fe80::1": "link-local", "ff02::1": "multicast", "192.0.2.1": "Node a has the address, and keeps it until it no longer reports it",
	} {
		t.Run(address, func(t *testing.T) {
			c := newClaiming(t, "a", "b")
			c.say("a", "192.0.2.1", "2001:db8::1")
			c.say("b", "192.0.2.2", "2001:db8::2")
			c.Expect(c.events()).To(gomega.BeEmpty())
			endpoints := []string{address, "2001:db8::2"}
			if strings.Contains(address, ":") {
				endpoints = []string{"192.0.2.2", address}
			}
			c.say("b", endpoints...)
			c.Expect(c.published("b")).To(gomega.ConsistOf("192.0.2.2", "2001:db8::2"), "it keeps what it had")
			c.Expect(c.published("a")).To(gomega.Equal([]string{"192.0.2.1", "2001:db8::1"}))
			told := c.events()
			c.Expect(told).To(gomega.And(gomega.ContainSubstring("Warning EndpointRefused "+address+" of Node b"), gomega.ContainSubstring(why)))
			c.Expect(c.condition()).To(gomega.And(
				gomega.HaveField("Status", metav1.ConditionTrue), gomega.HaveField("Message", gomega.ContainSubstring(why))))
			c.say("b", "192.0.2.2", "2001:db8::2")
			c.Expect(c.condition()).To(gomega.HaveField("Status", metav1.ConditionFalse))
		})
	}
}

// condition is that of the PodNetwork.
func (c *claiming) condition() metav1.Condition {
	c.t.Helper()
	r := &PodNetworkReconciler{Client: c.api}
	lists := struct {
		nodes    corev1.NodeList
		reports  podnetv1alpha1.NodeNetworkList
		subnets  podnetv1alpha1.NodeSubnetList
		services []networkingv1.ServiceCIDR
	}{}
	for _, list := range []client.ObjectList{&lists.nodes, &lists.reports, &lists.subnets} {
		c.Expect(c.api.List(c.t.Context(), list)).To(gomega.Succeed())
	}
	var err error
	lists.services, err = r.serviceCIDRs(c.t.Context())
	c.Expect(err).NotTo(gomega.HaveOccurred())
	network := &podnetv1alpha1.PodNetwork{}
	c.Expect(c.api.Get(c.t.Context(), client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(gomega.Succeed())
	v := &view{Census: allocation.CensusOf(network, lists.subnets.Items), reports: map[string]*podnetv1alpha1.NodeNetwork{}}
	c.Expect(v.Invalid).NotTo(gomega.HaveOccurred())
	v.everyNode, v.services = lists.nodes.Items, lists.services
	for i := range lists.reports.Items {
		v.reports[lists.reports.Items[i].Name] = &lists.reports.Items[i]
	}
	return v.refusedEndpoints()
}

// The Node says it where the agent has not spoken; that is no better.
func TestInternalIPsAreNotBelievedEither(t *testing.T) {
	c := newClaiming(t, "a", "b")
	c.say("a", "192.0.2.1")
	node := &corev1.Node{}
	c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "b"}, node)).To(gomega.Succeed())
	for _, address := range []string{"10.244.0.7", "192.0.2.1"} {
		node.Status.Addresses = []corev1.NodeAddress{internal(address)}
		c.Expect(c.api.Status().Update(t.Context(), node)).To(gomega.Succeed())
		c.look(c.keeper.withClaimants(t.Context(), node))
		c.Expect(c.published("b")).To(gomega.BeEmpty())
		c.Expect(c.events()).To(gomega.ContainSubstring("EndpointRefused " + address))
		c.Expect(firstEndpoints(t.Context(), c.api, node)).To(gomega.BeEmpty(), "nor in a block that is made")
	}
	c.Expect(c.published("a")).To(gomega.Equal([]string{"192.0.2.1"}))
}

func TestAddressGoesOverWhenItsOwnerGivesItUp(t *testing.T) {
	c := newClaiming(t, "a", "b")
	c.say("a", "192.0.2.1")
	c.say("b", "192.0.2.1")
	c.Expect(c.published("b")).To(gomega.BeEmpty())
	c.say("a", "192.0.2.3")
	c.Expect(c.published("a")).To(gomega.Equal([]string{"192.0.2.3"}))
	c.Expect(c.published("b")).To(gomega.Equal([]string{"192.0.2.1"}), "whoever waits for it is looked at")

	c.say("a", "192.0.2.1")
	c.Expect(c.published("a")).To(gomega.Equal([]string{"192.0.2.3"}), "it is the younger node's now")

	node := &corev1.Node{}
	c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "b"}, node)).To(gomega.Succeed())
	c.Expect(c.api.Delete(t.Context(), node)).To(gomega.Succeed())
	c.look(c.keeper.withClaimants(t.Context(), node))
	block := &podnetv1alpha1.NodeSubnet{}
	c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "10.244.1.0-24"}, block)).To(gomega.Succeed())
	block.Spec.State = podnetv1alpha1.SubnetReleased
	c.Expect(c.api.Update(t.Context(), block)).To(gomega.Succeed())
	c.look(c.keeper.withClaimants(t.Context(), block))
	c.Expect(c.published("a")).To(gomega.Equal([]string{"192.0.2.1"}), "it is free when the block of a node that went is released")
}

// Whoever waits for an address does not get it while the owner's Node is recreated, which
// makes it the younger of the two.
func TestAddressStaysWhileItsNodeIsGone(t *testing.T) {
	for name, reportStays := range map[string]bool{"with its report": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			c := newClaiming(t, "waiting", "owner")
			c.say("owner", "192.0.2.1", "2001:db8::1")
			c.say("waiting", "192.0.2.1", "2001:db8::1")
			node, report := &corev1.Node{}, &podnetv1alpha1.NodeNetwork{}
			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "owner"}, node)).To(gomega.Succeed())
			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "owner"}, report)).To(gomega.Succeed())
			c.Expect(c.api.Delete(t.Context(), node)).To(gomega.Succeed())
			if !reportStays {
				c.Expect(c.api.Delete(t.Context(), report)).To(gomega.Succeed())
			}
			c.look(c.keeper.subnets(t.Context()))
			c.Expect(c.published("waiting")).To(gomega.BeEmpty())
			c.Expect(c.condition()).To(gomega.HaveField("Message", gomega.ContainSubstring("Node owner has the address")))

			again := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "owner", UID: "another", CreationTimestamp: metav1.NewTime(time.Unix(1_800_000_000, 0))}}
			c.Expect(c.api.Create(t.Context(), again)).To(gomega.Succeed())
			again.Status.Addresses = []corev1.NodeAddress{internal("192.0.2.1"), internal("2001:db8::1")}
			c.Expect(c.api.Status().Update(t.Context(), again)).To(gomega.Succeed())
			c.look(c.keeper.withClaimants(t.Context(), again))
			c.Expect(c.published("owner")).To(gomega.Equal([]string{"192.0.2.1", "2001:db8::1"}))
			c.Expect(c.published("waiting")).To(gomega.BeEmpty())
		})
	}
}

// A node whose agent chose another address than its InternalIP keeps it while its Node is
// recreated, with pods in its block and without.
func TestChosenAddressStaysUntilTheAgentOfTheRecreatedNodeReports(t *testing.T) {
	for name, tc := range map[string]struct {
		reports string
		pods    int64
		waits   []string
	}{
		"the same":                  {reports: "192.0.2.1", pods: 1},
		"another one":               {reports: "192.0.2.7", pods: 1, waits: []string{"192.0.2.1"}},
		"the same, without pods":    {reports: "192.0.2.1"},
		"another one, without pods": {reports: "192.0.2.7", waits: []string{"192.0.2.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClaiming(t, "waiting", "owner")
			c.say("owner", "192.0.2.1")
			c.say("waiting", "192.0.2.1")
			node, report, block := &corev1.Node{}, &podnetv1alpha1.NodeNetwork{}, &podnetv1alpha1.NodeSubnet{}
			for _, o := range []client.Object{node, report} {
				c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "owner"}, o)).To(gomega.Succeed())
			}
			c.Expect(c.api.Delete(t.Context(), node)).To(gomega.Succeed())
			again := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "owner", UID: "another", CreationTimestamp: metav1.NewTime(time.Unix(1_800_000_000, 0))}}
			c.Expect(c.api.Create(t.Context(), again)).To(gomega.Succeed())
			again.Status.Addresses = []corev1.NodeAddress{internal("198.51.100.2")}
			c.Expect(c.api.Status().Update(t.Context(), again)).To(gomega.Succeed())
			c.look(append(c.keeper.withClaimants(t.Context(), again), c.keeper.subnets(t.Context())...))
			c.Expect(c.published("waiting")).To(gomega.BeEmpty(), "the report is of the former Node")

			c.Expect(c.api.Delete(t.Context(), report)).To(gomega.Succeed())
			report = &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{
				Name: "owner", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "owner", UID: again.UID}},
			}}
			c.Expect(c.api.Create(t.Context(), report)).To(gomega.Succeed())
			c.look(c.keeper.subnets(t.Context()))
			c.Expect(c.published("waiting")).To(gomega.BeEmpty(), "nothing is reported yet")

			report.Status.Blocks = []podnetv1alpha1.BlockStatus{{CIDR: "10.244.1.0/24", AddressesUsed: &tc.pods}}
			report.Status.Endpoints = []string{tc.reports}
			if tc.pods == 0 {
				report.Status.Blocks = nil
			}
			c.Expect(c.api.Status().Update(t.Context(), report)).To(gomega.Succeed())
			c.look(c.keeper.withClaimants(t.Context(), report))
			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "10.244.1.0-24"}, block)).To(gomega.Succeed())
			released := block.Spec.State == podnetv1alpha1.SubnetReleased
			c.Expect(released).To(gomega.Equal(tc.pods == 0))
			// As NodeReconciler does: the node takes its block back, or gets another one.
			if tc.pods > 0 {
				block.Spec.NodeUID = again.UID
				c.Expect(c.api.Update(t.Context(), block)).To(gomega.Succeed())
			} else {
				block = &podnetv1alpha1.NodeSubnet{ObjectMeta: metav1.ObjectMeta{Name: "10.244.2.0-24"}, Spec: block.Spec}
				block.Spec.NodeUID, block.Spec.CIDR, block.Spec.State = again.UID, "10.244.2.0/24", podnetv1alpha1.SubnetActive
				block.Spec.Endpoints = []string{"198.51.100.2"}
				c.Expect(c.api.Create(t.Context(), block)).To(gomega.Succeed())
			}
			c.look(c.keeper.subnets(t.Context()))
			c.look(c.keeper.subnets(t.Context()))
			c.Expect(c.api.Get(t.Context(), client.ObjectKeyFromObject(block), block)).To(gomega.Succeed())
			c.Expect(block.Spec.Endpoints).To(gomega.Equal([]string{tc.reports}))
			c.Expect(c.published("waiting")).To(gomega.Equal(tc.waits))
		})
	}
}

// Blocks that somebody else wrote may name one address for two nodes.
func TestOldestBlockDecidesBetweenTwoThatHaveAnAddress(t *testing.T) {
	made := func(at int64, node string) podnetv1alpha1.NodeSubnet {
		return podnetv1alpha1.NodeSubnet{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(time.Unix(at, 0))},
			Spec:       podnetv1alpha1.NodeSubnetSpec{Node: node, State: podnetv1alpha1.SubnetActive, Endpoints: []string{"192.0.2.1"}},
		}
	}
	node := func(name string, came int64) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(came, 0))},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{internal("192.0.2.1")}},
		}
	}
	g := gomega.NewWithT(t)
	young, _ := claimantOf("young", node("young", 900), nil, []podnetv1alpha1.NodeSubnet{made(300, "young"), made(100, "young")}, "192.0.2.1")
	old, _ := claimantOf("old", node("old", 50), nil, []podnetv1alpha1.NodeSubnet{made(200, "old")}, "192.0.2.1")
	g.Expect(young.elder(old)).To(gomega.BeTrue())
	g.Expect(old.elder(young)).To(gomega.BeFalse())
}

// A range or service CIDR that comes over the addresses of nodes cuts none of them off that
// others send to, and gives none to those that come later.
func TestPublishedEndpointStaysWhereARangeComesOverIt(t *testing.T) {
	ranges := func(n *podnetv1alpha1.PodNetwork, _ *networkingv1.ServiceCIDR) {
		n.Spec.Ranges = append(n.Spec.Ranges, podnetv1alpha1.Range{CIDR: "192.0.0.0/16"})
	}
	for name, tc := range map[string]struct {
		cover func(*podnetv1alpha1.PodNetwork, *networkingv1.ServiceCIDR)
		// block is another node's, in that state.
		block string
		state podnetv1alpha1.SubnetState
		// claims are what the node says then, if not the same.
		claims string
		want   []string
		told   string
	}{
		"a range":                         {cover: ranges, block: "10.244.9.0/24", want: []string{"192.0.2.1"}, told: "192.0.2.1 of Node a is given to others as its endpoint only until a block contains it"},
		"a range with a block there":      {cover: ranges, block: "192.0.2.0/24", told: "192.0.2.1 of Node a is not given"},
		"a range with a block that rests": {cover: ranges, block: "192.0.2.0/24", state: podnetv1alpha1.SubnetReleased, told: "192.0.2.1 of Node a is not given"},
		"a service CIDR": {
			cover: func(_ *podnetv1alpha1.PodNetwork, s *networkingv1.ServiceCIDR) {
				s.Spec.CIDRs = append(s.Spec.CIDRs, "192.0.2.0/24")
			},
			block: "10.244.9.0/24", want: []string{"192.0.2.1"}, told: "only until a block contains it: it lies in the service CIDR",
		},
		"another claim in the range":       {cover: ranges, block: "10.244.9.0/24", claims: "192.0.2.9", want: []string{"192.0.2.1"}, told: "192.0.2.9 of Node a is not given"},
		"another claim beside the range":   {cover: ranges, block: "10.244.9.0/24", claims: "198.51.100.1", want: []string{"198.51.100.1"}},
		"another claim, and a block there": {cover: ranges, block: "192.0.2.0/24", claims: "192.0.2.9", told: "192.0.2.9 of Node a is not given"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClaiming(t, "a", "b")
			c.say("a", "192.0.2.1")
			network, services := &podnetv1alpha1.PodNetwork{}, &networkingv1.ServiceCIDR{}
			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(gomega.Succeed())
			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "kubernetes"}, services)).To(gomega.Succeed())
			tc.cover(network, services)
			c.Expect(c.api.Update(t.Context(), network)).To(gomega.Succeed())
			c.Expect(c.api.Update(t.Context(), services)).To(gomega.Succeed())
			c.Expect(c.api.Create(t.Context(), &podnetv1alpha1.NodeSubnet{
				ObjectMeta: metav1.ObjectMeta{Name: "another"},
				Spec: podnetv1alpha1.NodeSubnetSpec{
					Network: podnetv1alpha1.DefaultPodNetwork, Node: "c", CIDR: tc.block, State: cmp.Or(tc.state, podnetv1alpha1.SubnetActive),
				},
			})).To(gomega.Succeed())
			c.events()
			c.say("a", cmp.Or(tc.claims, "192.0.2.1"))
			c.Expect(c.published("a")).To(gomega.Equal(tc.want))
			c.Expect(c.events()).To(gomega.ContainSubstring(tc.told))
			c.Expect(c.condition().Message).To(gomega.ContainSubstring(tc.told))

			c.say("b", "192.0.2.2")
			c.Expect(c.published("b")).To(gomega.BeEmpty(), "it comes later")
			c.say("b", "192.0.2.1")
			c.Expect(c.published("b")).To(gomega.BeEmpty(), "it is another's, and in the range")
			c.Expect(c.published("a")).To(gomega.Equal(tc.want))
		})
	}
}

// Nobody comes to say that a block contains an endpoint by now.
func TestCoveredEndpointIsLookedAtAgain(t *testing.T) {
	c := newClaiming(t, "a")
	c.say("a", "192.0.2.1")
	network := &podnetv1alpha1.PodNetwork{}
	c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(gomega.Succeed())
	request := c.keeper.subnets(t.Context(), client.MatchingFields{objects.NodeField: "a"})[0]
	result, err := c.keeper.Reconcile(t.Context(), request)
	c.Expect(err).NotTo(gomega.HaveOccurred())
	c.Expect(result.RequeueAfter).To(gomega.BeZero())
	network.Spec.Ranges = append(network.Spec.Ranges, podnetv1alpha1.Range{CIDR: "192.0.0.0/16"})
	c.Expect(c.api.Update(t.Context(), network)).To(gomega.Succeed())
	result, err = c.keeper.Reconcile(t.Context(), request)
	c.Expect(err).NotTo(gomega.HaveOccurred())
	c.Expect(result.RequeueAfter).To(gomega.Equal(refusedInterval))
}

// A node has addresses that it does not choose as its endpoint; they are its all the same.
func TestAddressOfAnotherNodeIsRefusedThoughItIsNotItsEndpoint(t *testing.T) {
	for name, address := range map[string]string{"the first": "192.168.1.2", "another": "192.168.2.2", "of the other family": "2001:db8:1::2"} {
		t.Run(name, func(t *testing.T) {
			c := newClaiming(t, "robber", "owner")
			owner := &corev1.Node{}
			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "owner"}, owner)).To(gomega.Succeed())
			owner.Status.Addresses = []corev1.NodeAddress{
				internal("192.168.1.2"), internal("192.168.2.2"), {Type: corev1.NodeExternalIP, Address: "2001:DB8:1::2"},
			}
			c.Expect(c.api.Status().Update(t.Context(), owner)).To(gomega.Succeed())
			c.say("owner", "10.1.0.2")
			c.say("robber", address)
			c.Expect(c.published("owner")).To(gomega.Equal([]string{"10.1.0.2"}))
			c.Expect(c.published("robber")).To(gomega.BeEmpty())
			c.Expect(c.condition()).To(gomega.HaveField("Message", gomega.ContainSubstring("it is an address of Node owner, whose status names it")))

			c.Expect(c.api.Get(t.Context(), client.ObjectKey{Name: "owner"}, owner)).To(gomega.Succeed())
			before := owner.DeepCopy()
			owner.Status.Addresses = nil
			c.Expect(c.api.Status().Update(t.Context(), owner)).To(gomega.Succeed())
			c.look(append(c.keeper.withClaimants(t.Context(), before), c.keeper.withClaimants(t.Context(), owner)...))
			c.Expect(c.published("robber")).To(gomega.Equal([]string{address}), "whoever waits for it is looked at")

			owner.Status.Addresses = before.Status.Addresses
			c.Expect(c.api.Status().Update(t.Context(), owner)).To(gomega.Succeed())
			c.look(c.keeper.withClaimants(t.Context(), owner))
			c.Expect(c.published("robber")).To(gomega.Equal([]string{address}), "what is published stays")
			known, err := registryOf(t.Context(), c.api, nil)
			c.Expect(err).NotTo(gomega.HaveOccurred())
			c.Expect(otherAddresses(owner, []string{"10.1.0.2"}, known)).To(gomega.ContainElement(address), "and it is the owner's as well")
		})
	}
}

// Two nodes swap addresses, in any order of what their agents say: in the end each has
// the other's, and at no time do two have one.
func TestNodesSwapAddresses(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		c := newClaiming(t, "a", "b")
		c.say("a", "192.0.2.1")
		c.say("b", "192.0.2.2")
		swapped := map[string]string{"a": "192.0.2.2", "b": "192.0.2.1"}
		for _, node := range order {
			c.say(node, swapped[node])
			if both := append(slices.Clone(c.published("a")), c.published("b")...); len(both) == 2 && both[0] == both[1] {
				t.Errorf("both have %s", both[0])
			}
		}
		for node, address := range swapped {
			c.Expect(c.published(node)).To(gomega.Equal([]string{address}))
		}
	}
}
