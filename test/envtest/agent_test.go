package envtest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// fakeAgent writes into a node's NodeNetwork what the node's agent would: the
// blocks that the node holds, each in force as it is asked, and the addresses that
// pods have. What the spec changes of it is reported within agentInterval.
type fakeAgent struct {
	node string

	mu sync.Mutex
	// pods counts addresses in use by block, waiting pods that wait by family.
	pods    map[string]int64
	waiting map[podnetv1alpha1.AddressFamily]int64
	// frozen are the states that the agent says are in force whatever is asked; those
	// of blocks that are not in it follow what is asked. An empty one is none.
	frozen map[string]podnetv1alpha1.SubnetState
	// deaf keeps the agent from answering roll calls, silent from reporting anything.
	deaf, silent bool
	answered     string
}

const agentInterval = 100 * time.Millisecond

// startAgent plays the agent of a node until the spec ends.
func startAgent(node string) *fakeAgent {
	a := &fakeAgent{
		node: node, pods: map[string]int64{}, waiting: map[podnetv1alpha1.AddressFamily]int64{},
		frozen: map[string]podnetv1alpha1.SubnetState{},
	}
	playing.Store(node, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			a.report(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(agentInterval):
			}
		}
	}()
	DeferCleanup(func() {
		cancel()
		<-ended
		playing.Delete(node)
	})
	return a
}

// playing holds the names of the nodes whose agents the running spec plays.
var playing sync.Map

// agentless is what the names of nodes begin with on which no agent runs.
const agentless = "agentless"

// reportFirst plays, until ctx ends, agents that report for the first time, as those of
// all nodes do before these hold a block.
func reportFirst(ctx context.Context) {
	for ctx.Err() == nil {
		reports := &podnetv1alpha1.NodeNetworkList{}
		if err := api.List(ctx, reports); err == nil {
			for _, nn := range reports.Items {
				_, played := playing.Load(nn.Name)
				if !played && !strings.HasPrefix(nn.Name, agentless) && apiequality.Semantic.DeepEqual(nn.Status, podnetv1alpha1.NodeNetworkStatus{}) {
					// What fails is tried again; and it owns nothing that a spec's own agent writes.
					_ = api.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(nn.Name).WithUID(nn.UID).WithStatus(
						podnetv1alpha1ac.NodeNetworkStatus().WithAgentVersion("first")), client.FieldOwner("first-report"))
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(agentInterval):
		}
	}
}

// run says how many pods have addresses of a block from now on.
func (a *fakeAgent) run(cidr string, pods int64) {
	a.change(func() { a.pods[cidr] = pods })
}

// wait says how many pods wait for an IPv4 address from now on.
func (a *fakeAgent) wait(pods int64) {
	a.change(func() { a.waiting[podnetv1alpha1.IPv4] = pods })
}

func (a *fakeAgent) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// report writes what has changed. What fails, as while the API server is away, is tried again.
func (a *fakeAgent) report(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.silent {
		return
	}
	nn, node := &podnetv1alpha1.NodeNetwork{}, &corev1.Node{}
	network, subnets := &podnetv1alpha1.PodNetwork{}, &podnetv1alpha1.NodeSubnetList{}
	// The call is read before the blocks, so that what answers it is no older.
	for _, err := range []error{
		api.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network),
		api.Get(ctx, client.ObjectKey{Name: a.node}, node),
		api.Get(ctx, client.ObjectKey{Name: a.node}, nn),
		api.List(ctx, subnets, client.MatchingFields{"spec.node": a.node}),
	} {
		if err != nil {
			return
		}
	}
	if len(nn.OwnerReferences) == 0 || nn.OwnerReferences[0].UID != node.UID {
		return
	}
	status := a.status(network, subnets.Items)
	if nn.Status.RollCall == cmp.Or(a.answered, nn.Status.RollCall) && sameBlocks(nn.Status.Blocks, status.Blocks) &&
		sameWaiting(nn.Status.Addresses, a.waiting) && len(nn.Status.Conditions) > 0 {
		return
	}
	_ = api.Status().Apply(ctx, podnetv1alpha1ac.NodeNetwork(a.node).WithStatus(status), client.FieldOwner("podnet-agent"), client.ForceOwnership)
}

func (a *fakeAgent) status(
	network *podnetv1alpha1.PodNetwork, subnets []podnetv1alpha1.NodeSubnet,
) *podnetv1alpha1ac.NodeNetworkStatusApplyConfiguration {
	states := maps.Clone(a.frozen)
	generations := map[string]int64{}
	for _, s := range subnets {
		generations[s.Spec.CIDR] = s.Generation
		if _, frozen := states[s.Spec.CIDR]; !frozen && s.Spec.State != podnetv1alpha1.SubnetReleased {
			states[s.Spec.CIDR] = s.Spec.State
		}
	}
	for cidr, pods := range a.pods {
		if _, held := states[cidr]; !held && pods > 0 {
			states[cidr] = "" // Pods use it, and the node does not hold it.
		}
	}
	status := podnetv1alpha1ac.NodeNetworkStatus().WithConditions(metav1ac.Condition().
		WithType(podnetv1alpha1.ConditionProgrammed).WithStatus(metav1.ConditionTrue).WithReason(podnetv1alpha1.ReasonProgrammed).
		WithMessage("Written by a test.").WithLastTransitionTime(metav1.Unix(1, 0)))
	for _, cidr := range slices.Sorted(maps.Keys(states)) {
		block := podnetv1alpha1ac.BlockStatus().WithCIDR(cidr).WithAddressesUsed(a.pods[cidr])
		if states[cidr] != "" {
			block.WithState(states[cidr]).WithAddressesTotal(ipam.AddressCount(mustPrefix(cidr)))
			if generations[cidr] > 0 {
				block.WithObservedGeneration(generations[cidr])
			}
		}
		status.WithBlocks(block)
	}
	for _, family := range slices.Sorted(maps.Keys(a.waiting)) {
		status.WithAddresses(podnetv1alpha1ac.AddressesStatus().WithFamily(family).WithWaiting(a.waiting[family]))
	}
	if !a.deaf {
		a.answered = network.Status.RollCall
	}
	if a.answered != "" {
		status.WithRollCall(a.answered)
	}
	return status
}

func sameBlocks(have []podnetv1alpha1.BlockStatus, want []podnetv1alpha1ac.BlockStatusApplyConfiguration) bool {
	return slices.EqualFunc(have, want, func(h podnetv1alpha1.BlockStatus, w podnetv1alpha1ac.BlockStatusApplyConfiguration) bool {
		return h.CIDR == *w.CIDR && (w.State == nil && h.State == "" || w.State != nil && h.State == *w.State) &&
			h.ObservedGeneration == ptr.Deref(w.ObservedGeneration, 0) && apiequality.Semantic.DeepEqual(h.AddressesUsed, w.AddressesUsed)
	})
}

func sameWaiting(have []podnetv1alpha1.AddressesStatus, want map[podnetv1alpha1.AddressFamily]int64) bool {
	is := map[podnetv1alpha1.AddressFamily]int64{}
	for _, a := range have {
		is[a.Family] = *a.Waiting
	}
	return maps.Equal(is, want)
}

// setReady writes the Node's condition Ready.
func setReady(ctx context.Context, name string, status corev1.ConditionStatus) {
	GinkgoHelper()
	Eventually(func() error {
		node := &corev1.Node{}
		if err := api.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return err
		}
		node.Status.Conditions = append(slices.DeleteFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady
		}), corev1.NodeCondition{Type: corev1.NodeReady, Status: status})
		return api.Status().Update(ctx, node)
	}).Should(Succeed())
}

// statesOf returns the states of the blocks that a node holds or held, by CIDR.
func statesOf(ctx context.Context, node string) map[string]podnetv1alpha1.SubnetState {
	subnets := &podnetv1alpha1.NodeSubnetList{}
	Expect(api.List(ctx, subnets, client.MatchingFields{"spec.node": node})).To(Succeed())
	states := map[string]podnetv1alpha1.SubnetState{}
	for _, s := range subnets.Items {
		states[s.Spec.CIDR] = s.Spec.State
	}
	return states
}

// rangeStatusOf returns what the PodNetwork's status says of a range.
func rangeStatusOf(ctx context.Context, cidr string) podnetv1alpha1.RangeStatus {
	network := &podnetv1alpha1.PodNetwork{}
	Expect(api.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network)).To(Succeed())
	for _, r := range network.Status.Ranges {
		if r.CIDR == cidr {
			return r
		}
	}
	return podnetv1alpha1.RangeStatus{}
}

// changeNetwork changes the spec of the PodNetwork named default.
func changeNetwork(ctx context.Context, change func(spec *podnetv1alpha1.PodNetworkSpec)) error {
	network := &podnetv1alpha1.PodNetwork{}
	if err := api.Get(ctx, client.ObjectKey{Name: podnetv1alpha1.DefaultPodNetwork}, network); err != nil {
		return err
	}
	before := client.MergeFrom(network.DeepCopy())
	change(&network.Spec)
	return api.Patch(ctx, network, before)
}

// oneBlockIn matches the blocks of a node that has one, whose CIDR begins like that.
func oneBlockIn(prefix string) OmegaMatcher { return ConsistOf(HavePrefix(prefix)) }
