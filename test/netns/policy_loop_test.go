package netns

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podnet/podnet/agent/netfilter"
	"github.com/podnet/podnet/agent/policy"
	"github.com/podnet/podnet/agent/state"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	compiler "github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
)

// policyNode is a node on which the agent's loop enforces the policies of a cluster.
type policyNode struct {
	*policed
	*node
	mu sync.Mutex
	// whole counts replacements of whole tables.
	whole int
	// asks is how denied packets are to be reported, and denials are those that Events were made of.
	asks    model.DeniedPackets
	denials []compiler.Denial
	// given counts the denied packets that the kernel gave.
	given    atomic.Int64
	enforcer *policy.Enforcer
}

// newPolicyNode starts the loop on the first node of a cluster, with the pods that hang
// on it.
func newPolicyNode(t *testing.T, c *policed) *policyNode {
	t.Helper()
	n := &policyNode{policed: c, node: c.nodes[0]}
	n.enforce(t, func() []model.Pod {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.Clone(n.node.pods)
	})
	return n
}

// enforce runs the loop until the test ends.
func (n *policyNode) enforce(t *testing.T, pods func() []model.Pod) {
	t.Helper()
	n.enforcer = policy.New(policy.Config{
		Source: n, NFT: n, Log: n, FullInterval: time.Hour,
		Denied: func(d compiler.Denial) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.denials = append(n.denials, d)
		},
		Pods: pods,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{n.enforcer.Run, n.enforcer.Watch, n.enforcer.ReportDenied} {
		all.Go(func() {
			if err := n.Try(func() error { return run(ctx) }); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
}

// Policies is what the API holds.
func (n *policyNode) Policies(context.Context) (state.Policies, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.objects
	o.NetworkPolicies, o.Pods = slices.Clone(o.NetworkPolicies), slices.Clone(o.Pods)
	return state.Policies{Objects: o, Blocks: n.blocks, Denied: n.asks}, nil
}

// Do counts replacements.
func (n *policyNode) Do(ctx context.Context, step nft.Step) error {
	if _, whole := step.(nft.Put); whole {
		n.mu.Lock()
		n.whole++
		n.mu.Unlock()
	}
	return n.node.nft.Do(ctx, step)
}

// List reads the tables of a name.
func (n *policyNode) List(ctx context.Context, name string) ([]nft.Table, error) {
	return n.node.nft.List(ctx, name)
}

// Watch reports the kernel's changes.
func (n *policyNode) Watch(ctx context.Context, name string, changed func()) error {
	return n.node.nft.Watch(ctx, name, changed)
}

// WatchDenied counts the packets that the kernel gives.
func (n *policyNode) WatchDenied(ctx context.Context, ready func(), told func(model.DeniedPacket)) error {
	return netfilter.Log{NFT: n.node.nft}.WatchDenied(ctx, ready, func(p model.DeniedPacket) {
		n.given.Add(1)
		told(p)
	})
}

// Counters reads them whichever thread asks.
func (n *policyNode) Counters(ctx context.Context, name string) (counters map[string]uint64, err error) {
	err = n.Try(func() error {
		counters, err = n.node.nft.Counters(ctx, name)
		return err
	})
	return counters, err
}

// change changes what the API holds.
func (n *policyNode) change(f func(*model.PolicyObjects)) {
	n.mu.Lock()
	f(&n.objects)
	n.mu.Unlock()
	n.enforcer.Trigger()
}

func (n *policyNode) replaced() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.whole
}

// becomes waits for something.
func becomes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// What others do to the tables is put right, and what the agent does is not taken for it.
func TestPolicyTablesAreGuarded(t *testing.T) {
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	server := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "server"})
	client := c.addPod(t, c.nodes[0], "blue", map[string]string{"app": "client"})
	n := newPolicyNode(t, c)
	n.change(func(o *model.PolicyObjects) {
		o.NetworkPolicies = []model.NetworkPolicy{{Namespace: "red", Name: "deny"}}
	})
	reaches := func() bool { return connects(client.Namespace, "tcp", server.Addrs[0], port, soon) }
	becomes(t, "the policy is enforced", func() bool { return !reaches() })
	for _, harm := range []string{
		"delete table inet " + model.PolicyTable, "flush chain inet " + model.PolicyTable + " forward", "flush set inet " + model.PolicyTable + " ingress4",
		"flush ruleset",
	} {
		// The loop's own changes of a moment ago are told apart.
		time.Sleep(3 * time.Second)
		before := n.replaced()
		n.Run(t, append([]string{"nft"}, strings.Fields(harm)...)...)
		becomes(t, "the table is replaced after "+harm, func() bool { return n.replaced() > before })
		becomes(t, "the policy is enforced after "+harm, func() bool { return !reaches() })
		if harm == "flush ruleset" {
			n.sync(t)
		}
	}
	time.Sleep(time.Second)
	before := n.replaced()
	for seed := range uint64(20) {
		r := policytest.NewRandomIn(seed, c.world(c.nodes[0]))
		n.change(func(o *model.PolicyObjects) { o.NetworkPolicies = []model.NetworkPolicy{r.Policy(0), r.Policy(1)} })
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(time.Second)
	if got := n.replaced(); got != before {
		t.Errorf("the loop takes its own changes for others' and replaces the table %d times", got-before)
	}
}
