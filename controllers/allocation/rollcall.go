package allocation

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/messages"
	"github.com/podnet/podnet/controllers/objects"
)

// Patience is how long agents have for their answer: many times what one
// takes whose watch broke unnoticed. A node whose agent does not run must not keep
// others from growing for ever.
const Patience = 3 * time.Minute

// PendingInterval is how often a node that waits for answers asks whether all are there by now.
const PendingInterval = time.Second

// rollCall keeps blocks from being given out before every agent has said which
// ones its pods use. The API server may hold less than the nodes do, as after a
// restore of etcd from a backup, and nothing in it says so. A manager calls when
// it begins to lead, and again when a NodeSubnet disappears that was not released.
//
// An answer is evidence too: of the blocks that nobody holds, those that it names become
// its node's. It is so once, and once all have answered, so that a block that
// several name becomes nobody's.
type rollCall struct {
	Clock clock.PassiveClock
	// Lost, unless it is nil, returns the node that held a block whose NodeSubnet was seen to
	// disappear without having been released; empty where none was.
	Lost func(netip.Prefix) string

	mu    sync.Mutex
	id    string
	began time.Time
	over  bool
	// looked is when some were last found not to have answered.
	looked time.Time
	// closed are the nodes whose answers were dealt with.
	closed map[string]bool
	// claimants are the nodes that name a block in their answers, contested the blocks
	// that several do, and contenders these nodes. They are filled when all have answered.
	claimants  map[netip.Prefix]string
	contested  map[netip.Prefix]bool
	contenders map[string]bool
}

// Begin asks all agents again. Before the first call, which is still to
// come, it does nothing.
func (c *rollCall) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != "" {
		c.begin()
	}
}

func (c *rollCall) begin() {
	c.id, c.began, c.over = string(uuid.NewUUID()), c.Clock.Now(), false
	c.looked, c.closed, c.claimants = time.Time{}, map[string]bool{}, nil
	c.contested, c.contenders = map[netip.Prefix]bool{}, map[string]bool{}
}

// ID identifies the last call. The first one begins when somebody asks for it.
func (c *rollCall) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == "" {
		c.begin()
	}
	return c.id
}

// Over reports whether the last call is over.
func (c *rollCall) Over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// hears reports whether an agent's report answers the last call with what was not
// dealt with yet.
func (c *rollCall) hears(report *podnetv1alpha1.NodeNetwork) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id != "" && report.Status.RollCall == c.id && !c.closed[report.Name]
}

// close says that a node's answer to a call was dealt with.
func (c *rollCall) close(node, call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != "" && call == c.id {
		c.closed[node] = true
	}
}

// claim reports whether a block becomes that of a node which names it in its answer.
func (c *rollCall) claim(node string, block netip.Prefix) bool {
	if c.lostBy(block) != "" {
		return false // It is known whose it was.
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(node, block)
	return !c.contested[block]
}

// note takes note of a claim. Blocks that count are of one length in each range, and
// overlap only where they are equal.
func (c *rollCall) note(node string, block netip.Prefix) {
	if c.claimants == nil {
		c.claimants = map[netip.Prefix]string{}
	}
	if other, claimed := c.claimants[block]; claimed && other != node {
		c.contested[block], c.contenders[node], c.contenders[other] = true, true, true
	}
	c.claimants[block] = node
}

// left takes note that a node has gone. Where it named blocks that others name too,
// these are asked again.
func (c *rollCall) left(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.contenders[node] {
		c.begin()
	}
}

func (c *rollCall) lostBy(block netip.Prefix) string {
	if c.Lost == nil {
		return ""
	}
	return c.Lost(block)
}

// owed are the blocks that a node's agent names and that are still to be made its
// node's again.
func (c *rollCall) owed(report *podnetv1alpha1.NodeNetwork, held Census) []netip.Prefix {
	var seen, named []netip.Prefix
	for _, cidr := range claims(report, held.Ranges) {
		switch node := c.lostBy(cidr); {
		case held.Taken.Overlaps(cidr):
		case node == report.Name:
			seen = append(seen, cidr)
		case node == "":
			named = append(named, cidr)
		}
	}
	if len(named) == 0 || !c.hears(report) {
		return seen
	}
	return append(seen, held.countable(report.Name, named)...)
}

// roll are the nodes and what their agents report.
type roll struct {
	nodes   map[string]*corev1.Node
	reports []podnetv1alpha1.NodeNetwork
}

func readRoll(ctx context.Context, reader client.Reader) (roll, error) {
	nodes, reports := &corev1.NodeList{}, &podnetv1alpha1.NodeNetworkList{}
	for _, list := range []client.ObjectList{nodes, reports} {
		if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return roll{}, fmt.Errorf("list who is to answer the roll call: %w", err)
		}
	}
	return rollOf(nodes.Items, reports.Items), nil
}

func rollOf(nodes []corev1.Node, reports []podnetv1alpha1.NodeNetwork) roll {
	out := roll{nodes: make(map[string]*corev1.Node, len(nodes)), reports: reports}
	for i := range nodes {
		out.nodes[nodes[i].Name] = &nodes[i]
	}
	return out
}

// silent are the nodes that have still to answer a call.
func (r roll) silent(call string) []string {
	var names []string
	for i := range r.reports {
		report := &r.reports[i]
		node := r.nodes[report.Name]
		if node != nil && objects.Ready(node) && objects.OwnedBy(report, node) && report.Status.RollCall != "" && report.Status.RollCall != call {
			names = append(names, report.Name)
		}
	}
	return names
}

// owed are the blocks that are still to be made nodes' again, by node.
func (r roll) owed(ctx context.Context, reader client.Reader, call *rollCall) (map[string][]netip.Prefix, error) {
	network, err := objects.ServedNetwork(ctx, reader)
	if err != nil || network == nil {
		return nil, err
	}
	held, err := takeCensus(ctx, reader, network)
	if err != nil {
		return nil, err
	}
	return r.owedBy(held, call), nil
}

// owedBy are the blocks that are still to be made nodes' again as the objects are, by node.
func (r roll) owedBy(held Census, call *rollCall) map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for i := range r.reports {
		report := &r.reports[i]
		node := r.nodes[report.Name]
		if node == nil || !objects.OwnedBy(report, node) || !node.DeletionTimestamp.IsZero() || !objects.Carries(node) {
			continue
		}
		if owed := call.owed(report, held); len(owed) > 0 {
			out[report.Name] = owed
		}
	}
	return out
}

// complete reports whether all have answered who are waited for, and takes note of
// what they name.
func (c *rollCall) complete(ctx context.Context, reader client.Reader) (bool, error) {
	id := c.ID()
	c.mu.Lock()
	noted, over := c.claimants != nil, c.over || c.Clock.Since(c.began) > Patience
	lately := c.Clock.Since(c.looked) < PendingInterval // Many nodes may wait for the answers of a few.
	c.mu.Unlock()
	if noted || lately {
		return noted, nil
	}
	who, err := readRoll(ctx, reader)
	if err != nil {
		return false, err
	}
	if !over && len(who.silent(id)) > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.looked = c.Clock.Now()
		return false, nil
	}
	owed, err := who.owed(ctx, reader, c)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != id {
		return false, nil
	}
	for node, blocks := range owed {
		for _, block := range blocks {
			c.note(node, block)
		}
	}
	return true, nil
}

// Missing returns the names of the nodes that have still to answer, or whose answers
// name blocks that are still to be made theirs again; none once the call is over.
// Those that never answered one are not waited for, as their agents may not know
// how, nor those that are not ready.
func (c *rollCall) Missing(ctx context.Context, reader client.Reader) ([]string, error) {
	id := c.ID()
	c.mu.Lock()
	over, late := c.over, c.Clock.Since(c.began) > Patience
	c.mu.Unlock()
	if over {
		return nil, nil
	}
	who, err := readRoll(ctx, reader)
	if err != nil {
		return nil, err
	}
	missing := who.silent(id)
	if len(missing) == 0 {
		owed, err := who.owed(ctx, reader, c)
		if err != nil {
			return nil, err
		}
		missing = slices.Collect(maps.Keys(owed))
	}
	if len(missing) > 0 && !late {
		slices.Sort(missing)
		return missing, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == id {
		c.over = true
		ctrl.LoggerFrom(ctx).Info("the roll call is over", "after", c.Clock.Since(c.began).String(), "missing", messages.Some(missing))
	}
	return nil, nil
}
