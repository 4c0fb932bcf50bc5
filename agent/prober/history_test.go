package prober

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
)

// cluster is nodes whose agents prove their paths, on wires that come and go. Its
// time is that of a synctest bubble.
type cluster struct {
	random *rand.Rand
	began  time.Time

	mu      sync.Mutex
	network model.Network
	modes   []model.RouteMode
	blocks  []model.Block
	nodes   []*node
	// wires are by the two nodes, in their order.
	wires map[[2]string]*[2]wire
	inbox map[netip.AddrPort]*wireConn
	trace []string
}

// wire is one way between two nodes.
type wire struct {
	up  bool
	mtu int
}

// node is a node. Its kernel outlives its agents.
type node struct {
	*cluster
	name  string
	host  model.Host
	agent *Prober
	wake  loop.Signal
	stop  context.CancelFunc
	// kernel holds the paths in force, and dead since when a block is not reached
	// although the other path is proven.
	kernel map[netip.Prefix]model.PathChoice
	dead   map[netip.Prefix]time.Time
}

func (c *cluster) log(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf("%8.3f ", time.Since(c.began).Seconds())+fmt.Sprintf(format, args...))
}

func newCluster(seed uint64) *cluster {
	c := &cluster{
		random: rand.New(rand.NewPCG(seed, 1)), began: time.Now(),
		network: model.Network{
			ID: "x", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, BlockBits: [2]int{24, 64},
			Attachment: model.PointToPoint, Mode: model.ModeAuto, VNI: 1, Port: 4789,
		},
		wires: map[[2]string]*[2]wire{}, inbox: map[netip.AddrPort]*wireConn{},
	}
	for range 3 {
		c.join()
	}
	return c
}

// join adds a node.
func (c *cluster) join() {
	i := 1
	for slices.ContainsFunc(c.nodes, func(n *node) bool { return n.name == fmt.Sprintf("node%d", i) }) {
		i++
	}
	n := &node{
		cluster: c, name: fmt.Sprintf("node%d", i), wake: loop.NewSignal(),
		kernel: map[netip.Prefix]model.PathChoice{}, dead: map[netip.Prefix]time.Time{},
	}
	n.host = model.Host{
		Node: n.name, VXLAN: true,
		Endpoints: []model.Endpoint{{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Link: "eth0", MTU: 1500}},
		Routes:    []model.UnderlayRoute{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0"}},
	}
	for _, other := range c.nodes {
		c.wires[between(n.name, other.name)] = &[2]wire{{true, 1500}, {true, 1450}}
	}
	c.nodes = append(c.nodes, n)
	c.addBlock(n)
	c.log("%s joins", n.name)
	n.start()
}

func between(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (c *cluster) addBlock(n *node) {
	taken := func(i int) bool {
		return slices.ContainsFunc(c.blocks, func(b model.Block) bool { return b.CIDR.Addr().As4()[2] == byte(i) })
	}
	i := 0
	for taken(i) {
		i++
	}
	cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)
	c.blocks = append(c.blocks, model.Block{
		Name: cidr.String(), CIDR: cidr, Node: n.name, State: model.BlockActive,
		Endpoints: []netip.Addr{n.host.Endpoints[0].Addr}, Created: time.Now(),
		Labels: map[string]string{"odd": fmt.Sprint(n.name[4]%2 == 1)},
	})
}

// start starts the node's agent, which finds what is in the kernel.
func (n *node) start() {
	ctx, cancel := context.WithCancel(context.Background())
	found := map[netip.Prefix]model.Path{}
	for block, choice := range n.kernel {
		if choice.Path != model.PathDown {
			found[block] = choice.Path
		}
	}
	p := newProber(Config{
		Changed: n.wake.Raise,
		Taken:   func(context.Context) (map[netip.Prefix]model.Path, error) { return found, nil },
		Talking: n.talking,
	})
	p.dial = func(addr netip.Addr, kind byte, way int) (*socket, error) {
		conn := &wireConn{
			cluster: n.cluster, node: n.name, local: netip.AddrPortFrom(addr, portOf(kind, way)),
			in: make(chan packet, 100), closed: make(chan struct{}),
		}
		// Sockets are opened in passes, which hold the lock.
		n.inbox[conn.local] = conn
		return &socket{conn: conn, kind: kind, way: way, checksums: func(bool) error { return nil }}, nil
	}
	var running sync.WaitGroup
	n.agent = p
	n.stop = func() { cancel(); running.Wait(); n.agent = nil }
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			panic(err)
		}
	})
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-n.wake:
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			n.pass(p)
		}
	})
	n.wake.Raise()
}

// talking returns addresses of all blocks: every node talks to all others.
func (n *node) talking(context.Context) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []netip.Addr
	for block := range n.kernel {
		all = append(all, block.Addr())
	}
	return all, nil
}

// pass does what a pass of the agent's loop does.
func (n *node) pass(p *Prober) {
	n.mu.Lock()
	defer n.mu.Unlock()
	evidence, err := p.Evidence(context.Background())
	if err != nil {
		panic(err)
	}
	network := n.network
	wanted := plan.Build(model.Cluster{
		Network: &network, Blocks: n.blocks, RouteModes: n.modes, Host: n.host, Evidence: evidence,
	})
	if err := p.Listen(wanted.Probe, network.ID); err != nil {
		panic(err)
	}
	clear(n.kernel)
	for _, choice := range wanted.Paths {
		n.kernel[choice.Block] = choice
	}
	p.Aim(wanted.Paths)
}

// packet is a datagram on its way.
type packet struct {
	from netip.AddrPort
	data []byte
}

// wireConn is a socket on the cluster's wires.
type wireConn struct {
	cluster *cluster
	node    string
	local   netip.AddrPort
	in      chan packet
	once    sync.Once
	closed  chan struct{}
}

// ReadFromUDPAddrPort implements datagrams.
func (w *wireConn) ReadFromUDPAddrPort(buffer []byte) (int, netip.AddrPort, error) {
	select {
	case <-w.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	case p := <-w.in:
		return copy(buffer, p.data), p.from, nil
	}
}

// WriteToUDPAddrPort implements datagrams: the datagram arrives after a millisecond,
// if the wire of its way carries it then.
func (w *wireConn) WriteToUDPAddrPort(datagram []byte, to netip.AddrPort) (int, error) {
	p := packet{w.local, slices.Clone(datagram)}
	m, _ := decode(p.data, w.local.Addr())
	time.AfterFunc(time.Millisecond, func() {
		w.cluster.mu.Lock()
		defer w.cluster.mu.Unlock()
		other := w.cluster.inbox[to]
		if other == nil {
			return
		}
		if wires := w.cluster.wires[between(w.node, other.node)]; wires == nil || !wires[m.way].up || wires[m.way].mtu < m.size {
			return
		}
		select {
		case other.in <- p:
		default:
		}
	})
	return len(datagram), nil
}

// Close implements datagrams.
func (w *wireConn) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// change changes something. The lock is held but while an agent stops.
func (c *cluster) change() {
	n := c.nodes[c.random.IntN(len(c.nodes))]
	switch c.random.IntN(12) {
	case 0, 1, 2, 3:
		pairs := slices.SortedFunc(maps.Keys(c.wires), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
		pair, way := pairs[c.random.IntN(len(pairs))], c.random.IntN(2)
		w := &c.wires[pair][way]
		if w.up = c.random.IntN(2) == 0; w.up {
			w.mtu = []int{1500, 1450, 1400, 1300, 1290}[c.random.IntN(5)]
		}
		c.log("%v %s: %+v", pair, model.Ways[way].Path, *w)
	case 4, 5:
		c.network.Mode = []model.Mode{model.ModeAuto, model.ModeRouted, model.ModeOverlay}[c.random.IntN(3)]
		c.log("mode %s", c.network.Mode)
	case 6:
		c.modes = nil
		if c.random.IntN(2) == 0 {
			c.modes = []model.RouteMode{{
				Name: "odd", Mode: []model.Mode{model.ModeRouted, model.ModeOverlay}[c.random.IntN(2)],
				Between: []model.Selector{{{Key: "odd", Operator: model.In, Values: []string{"true"}}}},
			}}
		}
		c.log("route modes %+v", c.modes)
	case 7:
		if held := c.blocksOf(n.name); len(held) == 1 {
			c.addBlock(n)
			c.log("%s gets a second block", n.name)
		} else {
			c.blocks = slices.DeleteFunc(c.blocks, func(b model.Block) bool { return b.Name == held[0].Name })
			c.log("%s gives %s back", n.name, held[0].CIDR)
		}
	case 8:
		n.host.VXLAN = !n.host.VXLAN
		c.log("%s has VXLAN: %t", n.name, n.host.VXLAN)
	case 9:
		c.restart(n)
	case 10:
		if len(c.nodes) < 4 {
			c.join()
		}
	case 11:
		if len(c.nodes) > 2 {
			c.leave(n)
		}
	}
	for _, n := range c.nodes {
		n.wake.Raise()
	}
}

func (c *cluster) blocksOf(name string) []model.Block {
	return slices.DeleteFunc(slices.Clone(c.blocks), func(b model.Block) bool { return b.Node != name })
}

// halt ends a node's agent, which may be in a pass.
func (c *cluster) halt(n *node) {
	c.mu.Unlock()
	n.stop()
	c.mu.Lock()
	maps.DeleteFunc(c.inbox, func(_ netip.AddrPort, w *wireConn) bool { return w.node == n.name })
}

func (c *cluster) restart(n *node) {
	c.log("the agent of %s ends", n.name)
	c.halt(n)
	c.mu.Unlock()
	time.Sleep(time.Duration(c.random.IntN(3000)) * time.Millisecond)
	c.mu.Lock()
	c.log("the agent of %s starts", n.name)
	n.start()
}

func (c *cluster) leave(n *node) {
	c.log("%s leaves", n.name)
	c.halt(n)
	c.nodes = slices.DeleteFunc(c.nodes, func(x *node) bool { return x == n })
	c.blocks = slices.DeleteFunc(c.blocks, func(b model.Block) bool { return b.Node == n.name })
	maps.DeleteFunc(c.wires, func(pair [2]string, _ *[2]wire) bool { return pair[0] == n.name || pair[1] == n.name })
}

// check checks that no node stays on a path that carries nothing although the other
// one works and is proven.
func (c *cluster) check() error {
	now := time.Now()
	for _, n := range c.nodes {
		if n.agent == nil {
			continue
		}
		evidence, err := n.agent.Evidence(context.Background())
		if err != nil {
			return err
		}
		for block, choice := range n.kernel {
			wires := c.wires[between(n.name, choice.Node)]
			taken := slices.IndexFunc(choice.Ways, func(w model.WayTo) bool { return w.Path == choice.Path })
			if wires == nil || taken < 0 || wires[taken].up || !wires[1-taken].up || !choice.Ways[1-taken].Possible() ||
				evidence[block].Proofs[1-taken].Standing != model.Proven {
				delete(n.dead, block)
				continue
			}
			if n.dead[block].IsZero() {
				n.dead[block] = now
			}
			if stays := now.Sub(n.dead[block]); stays > time.Second {
				return fmt.Errorf("%s stays for %s on the path to %s (%s), which is dead: %+v", n.name, stays, block, choice.Path, evidence[block])
			}
		}
	}
	return nil
}

// settled checks that every node has the path that the modes ask for, or where that
// carries nothing, the other one.
func (c *cluster) settled() error {
	for _, n := range c.nodes {
		for block, choice := range n.kernel {
			wires := c.wires[between(n.name, choice.Node)]
			works := [2]bool{wires[0].up && choice.Ways[0].Possible(), wires[1].up && choice.Ways[1].Possible()}
			first := 0
			if choice.Want == model.ModeOverlay {
				first = 1
			}
			want := model.Ways[first].Path
			switch {
			case works[first]:
			case works[1-first]:
				want = model.Ways[1-first].Path
			default:
				continue
			}
			if choice.Path != want {
				return fmt.Errorf("%s has the path %s to %s, want %s: %s", n.name, choice.Path, block, want, choice.Message)
			}
		}
		if want := len(c.blocks) - len(c.blocksOf(n.name)); len(n.kernel) != want {
			return fmt.Errorf("%s has paths to %d blocks, want %d", n.name, len(n.kernel), want)
		}
	}
	return nil
}

// Nodes, modes, wires and agents come and go: packets leave a path that carries nothing
// within a second where the other one is proven, and in the end every node has the
// plan that the last state asks for.
func TestAnyHistoryOfACluster(t *testing.T) {
	t.Attr("budget", "30s")
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, newCluster(seed)) })
		})
	}
}

func play(t *testing.T, c *cluster) {
	c.mu.Lock()
	defer func() {
		for _, n := range c.nodes {
			c.halt(n)
		}
		c.mu.Unlock()
	}()
	fail := func(err error) bool {
		if err != nil {
			for _, line := range c.trace {
				t.Log(line)
			}
			t.Errorf("after %s: %v", time.Since(c.began), err)
		}
		return err != nil
	}
	wait := func(d time.Duration) bool {
		for end := time.Now().Add(d); time.Now().Before(end); {
			c.mu.Unlock()
			time.Sleep(50 * time.Millisecond)
			c.mu.Lock()
			if fail(c.check()) {
				return false
			}
		}
		return true
	}
	for range 40 {
		c.change()
		if !wait(time.Duration(c.random.IntN(5000)) * time.Millisecond) {
			return
		}
	}
	c.log("nothing changes any more")
	// Longer than a path that has failed again and again has to be steady.
	if wait(6 * time.Minute) {
		fail(c.settled())
	}
}
