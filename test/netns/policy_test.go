package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
	"github.com/podnet/podnet/internal/policy"
	"github.com/podnet/podnet/internal/policy/policytest"
	"github.com/podnet/podnet/test/netns/topology"
)

// policed is a cluster with policies, and what each node's kernel has of them.
type policed struct {
	*cluster
	objects model.PolicyObjects
	tables  map[*node]*writer.Writer
}

func newPoliced(t *testing.T, o options) *policed {
	t.Helper()
	p := &policed{cluster: newCluster(t, o), tables: map[*node]*writer.Writer{}}
	for i := range p.blocks {
		p.blocks[i].Labels = map[string]string{"name": p.blocks[i].Node}
	}
	for _, n := range p.nodes {
		n.Serve(t, port)
		n.Serve(t, 80)
	}
	for _, name := range policytest.Namespaces {
		p.objects.Namespaces = append(p.objects.Namespaces, model.Namespace{Name: name, Labels: map[string]string{"name": name}})
	}
	return p
}

// addPod adds a pod of a namespace, which serves on two ports.
func (c *policed) addPod(t *testing.T, n *node, namespace string, labels map[string]string) *pod {
	t.Helper()
	p := n.newPod(t)
	p.Pod.Namespace, p.UID = namespace, p.Pod.Name
	c.objects.Pods = append(c.objects.Pods, model.ClusterPod{
		Namespace: namespace, Name: p.Pod.Name, UID: p.UID, Labels: labels, Addrs: p.Addrs, Node: n.Name,
	})
	n.attach(t, p)
	p.Serve(t, port)
	p.Serve(t, 80)
	return p
}

// world is what a node knows.
func (c *policed) world(n *node) policytest.World {
	return policytest.World{Objects: c.objects, Blocks: c.blocks, Attached: n.pods}
}

// enforce puts the policies in force on every node, by a change of what is there.
func (c *policed) enforce(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		want := policy.NewIndex(c.objects, c.blocks).Build(n.pods).Tables
		if c.tables[n] == nil {
			c.tables[n] = newInPlace(n)
		}
		n.Do(t, func() error { return c.tables[n].Write(context.Background(), want) })
	}
}

// Times for a packet to come back: what does not within the first is tried again
// where it should have. A busy machine may take long, and an idle one does not wait.
const (
	soon     = 300 * time.Millisecond
	patience = 15 * time.Second
)

// connects reports whether a server of Serve is reached.
func connects(from *topology.Namespace, network string, to netip.Addr, port uint16, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var conn net.Conn
	err := from.Try(func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, netip.AddrPortFrom(to, port).String())
		return err
	})
	if err != nil {
		return false
	}
	defer conn.Close()
	if network == "tcp" {
		return true
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return false
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 100))
	return err == nil
}

// end is one end of connections.
type end struct {
	*topology.Namespace
	node  *node
	addrs []netip.Addr
	// servers are the addresses that others connect to.
	servers []netip.Addr
	isPod   bool
}

func (c *policed) ends(pods []*pod) []end {
	var ends []end
	for _, p := range pods {
		ends = append(ends, end{p.Namespace, p.node, p.Addrs, p.Addrs, true})
	}
	for _, n := range c.nodes {
		e := end{Namespace: n.Namespace, node: n}
		// Other nodes' pods see the node with the address that it has in its range.
		for _, b := range c.blocks {
			if b.Node == n.Name {
				e.addrs, e.servers = append(e.addrs, b.CIDR.Addr()), b.Endpoints
			}
		}
		ends = append(ends, e)
	}
	return ends
}

// check tries connections between all ends, and compares with the specification.
func (c *policed) check(t *testing.T, pods []*pod) (cases, passed int) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	limit := make(chan struct{}, 64)
	try := func(from, to end, connection policytest.Connection) {
		defer all.Done()
		limit <- struct{}{}
		defer func() { <-limit }()
		want := c.allowed(from, to, connection)
		got := connects(from.Namespace, connection.Protocol, connection.Server, connection.Port, soon)
		if !got && want {
			got = connects(from.Namespace, connection.Protocol, connection.Server, connection.Port, patience)
		}
		mu.Lock()
		defer mu.Unlock()
		cases++
		if got {
			passed++
		}
		if got != want {
			t.Errorf("%s to %s (%+v) connects: %t, want %t", from.Name, to.Name, connection, got, want)
		}
	}
	ends := c.ends(pods)
	for _, from := range ends {
		for _, to := range ends {
			for i, server := range to.servers {
				for _, protocol := range []string{"tcp", "udp"} {
					for _, number := range []uint16{80, port} {
						connection := policytest.Connection{Client: from.addrs[i], Server: server, Protocol: protocol, Port: number}
						if !to.isPod {
							// A node that has many addresses answers datagrams from any.
							if !from.isPod || protocol == "udp" {
								continue
							}
							connection.ToHost = from.node == to.node
						}
						all.Add(1)
						go try(from, to, connection)
					}
				}
			}
		}
	}
	all.Wait()
	return cases, passed
}

// allowed reports whether both nodes let a connection pass. What a node sends to its own
// pods is nobody's to forbid.
func (c *policed) allowed(from, to end, connection policytest.Connection) bool {
	if from.node == to.node && !from.isPod {
		return true
	}
	if from.isPod && !c.world(from.node).Allowed(connection) {
		return false
	}
	return c.world(to.node).Allowed(connection)
}

// Random policies, judged by real packets and by a plain reading of the specification.
func TestPacketsObeyRandomPolicies(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newPoliced(t, options{nodes: 2, attachment: attachment, mode: model.ModeRouted, families: dual})
			var pods []*pod
			for i := range 6 {
				n := c.nodes[i/4]
				pods = append(pods, c.addPod(t, n, policytest.Namespaces[i%3], nil))
			}
			cases, passed := 0, 0
			for seed := range uint64(10) {
				world := c.world(c.nodes[0])
				world.Attached = slices.Concat(c.nodes[0].pods, c.nodes[1].pods)
				r := policytest.NewRandomIn(seed, world)
				r.Relabel()
				c.objects = r.Objects
				c.objects.NetworkPolicies = nil
				for i := range 2 + r.IntN(5) {
					c.objects.NetworkPolicies = append(c.objects.NetworkPolicies, r.Policy(i))
				}
				c.objects.ClusterPolicies = nil
				for i := range r.IntN(4) {
					c.objects.ClusterPolicies = append(c.objects.ClusterPolicies, r.ClusterPolicy(i))
				}
				c.enforce(t)
				n, p := c.check(t, pods)
				cases, passed = cases+n, passed+p
				if t.Failed() {
					t.Fatalf("seed %d: %+v", seed, c.objects)
				}
			}
			t.Logf("%d connections, of which %d pass", cases, passed)
		})
	}
}

// Whatever the order of changes, the kernel ends with the table that a kernel has
// which was given it at once.
func TestPolicyTablesChangeInPlace(t *testing.T) {
	t.Parallel()
	changed, fresh := topology.NewNamespace(t, "changed"), topology.NewNamespace(t, "fresh")
	tables, _, _, err := rooms(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	do := func(n *topology.Namespace, step nft.Step) {
		t.Helper()
		n.Do(t, func() error { return tables.Do(t.Context(), step) })
	}
	var have nft.Table
	for seed := uint64(1); seed <= 60; seed++ {
		r := policytest.NewRandom(seed)
		if seed%3 > 0 {
			r.CountAll()
		}
		want := policy.NewIndex(r.Objects, r.Blocks).Build(r.Attached).Tables[0]
		if seed == 1 {
			do(changed, nft.Put{Table: want})
		} else {
			change, ok := nft.Difference(want, have)
			if !ok {
				t.Fatal("the table has to be replaced")
			}
			do(changed, change)
			if !change.Old.Empty() {
				do(changed, nft.DeleteParts{Parts: change.Old})
			}
		}
		have = want
		do(fresh, nft.Put{Table: want})
		if a, b := listed(t, changed), listed(t, fresh); a != b {
			t.Fatalf("seed %d: changed\n%s\nfresh\n%s", seed, a, b)
		}
	}
}

// listed is the policy table as nft lists it, with its parts in one order.
func listed(t *testing.T, n *topology.Namespace) string {
	t.Helper()
	text := n.Run(t, "nft", "list", "table", "inet", model.PolicyTable)
	text = strings.TrimPrefix(strings.TrimRight(text, "}\n"), "table inet "+model.PolicyTable+" {")
	parts := strings.Split(text, "\n\n")
	for i, part := range parts {
		// Elements are listed in the order of the kernel's hashes.
		words := strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune(" ,{}\n\t", r) })
		if strings.Contains(part, "elements = ") {
			slices.Sort(words)
		}
		parts[i] = strings.Join(words, " ")
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// A connection obeys the policies of the moment, in both directions: what is
// forbidden after it was made ends, and what is allowed goes on.
func TestEstablishedConnectionsObeyNewPolicies(t *testing.T) {
	for _, attachment := range []model.Attachment{model.PointToPoint, model.Bridge} {
		t.Run(string(attachment), func(t *testing.T) {
			t.Parallel()
			c := newPoliced(t, options{nodes: 2, attachment: attachment, mode: model.ModeRouted, families: dual})
			server := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "server"})
			local := c.addPod(t, c.nodes[0], "red", map[string]string{"app": "good"})
			remote := c.addPod(t, c.nodes[1], "red", map[string]string{"app": "bad"})
			c.enforce(t)
			var flows []*flow
			for _, client := range []*pod{local, remote} {
				for _, network := range []string{"tcp", "udp"} {
					for _, addr := range server.Addrs {
						flows = append(flows, newFlow(t, client, server, network, addr))
					}
				}
			}
			expect := func(when string, passing ...*pod) {
				t.Helper()
				var all sync.WaitGroup
				for _, f := range flows {
					all.Go(func() {
						for way, pass := range map[string]func(time.Duration) bool{"to the server": f.there, "from the server": f.back} {
							if slices.Contains(passing, f.from) {
								if !pass(patience) {
									t.Errorf("%s: nothing passes %s: %s", when, way, f.name)
								}
							} else if pass(2 * soon) {
								t.Errorf("%s: something passes %s: %s", when, way, f.name)
							}
						}
					})
				}
				all.Wait()
			}
			expect("without policies", local, remote)
			good := model.Selector{{Key: "app", Operator: model.In, Values: []string{"good"}}}
			toServer := model.NetworkPolicy{Namespace: "red", Name: "server", Pods: model.Selector{{Key: "app", Operator: model.In, Values: []string{"server"}}}}
			toServer.Ingress = []model.PolicyRule{{Peers: []model.PolicyPeer{{Pods: &good}}}}
			c.objects.NetworkPolicies = []model.NetworkPolicy{toServer}
			c.enforce(t)
			expect("with a policy of the server", local)
			ofGood := model.NetworkPolicy{Namespace: "red", Name: "good", Pods: good, Types: []model.PolicyType{model.PolicyEgress}}
			c.objects.NetworkPolicies = []model.NetworkPolicy{ofGood}
			c.enforce(t)
			expect("with a policy of the other client", remote)
			c.objects.NetworkPolicies = nil
			c.enforce(t)
			expect("without policies again", local, remote)
		})
	}
}

// flow is a connection that stays open, with both of its ends.
type flow struct {
	from *pod
	name string
	// Either end sends and receives.
	client, server net.Conn
	sent           byte
}

// newFlow opens a connection to a port of its own.
func newFlow(t *testing.T, client, server *pod, network string, to netip.Addr) *flow {
	t.Helper()
	f := &flow{from: client, name: fmt.Sprintf("%s by %s to %s", client.Namespace.Name, network, to)}
	if network == "tcp" {
		var listener net.Listener
		server.Do(t, func() error {
			var err error
			listener, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String())
			return err
		})
		defer listener.Close()
		accepted := make(chan net.Conn, 1)
		go func() {
			if conn, err := listener.Accept(); err == nil {
				accepted <- conn
			}
		}()
		f.client = dial(t, client, network, listener.Addr().String())
		f.server = <-accepted
	} else {
		var socket *net.UDPConn
		server.Do(t, func() error {
			var err error
			socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
			return err
		})
		f.client = dial(t, client, network, socket.LocalAddr().String())
		connect(t, socket, f.client.LocalAddr().(*net.UDPAddr).AddrPort())
		f.server = socket
	}
	t.Cleanup(func() { f.client.Close(); f.server.Close() })
	// Who sends the first datagram opens the connection.
	if !f.there(patience) {
		t.Fatalf("nothing passes: %s", f.name)
	}
	return f
}

// connect connects a bound socket. To close it and bind another would race with commands
// that are just being started, which hold copies of all sockets for a moment.
func connect(t *testing.T, socket *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	addr := to.Addr().Unmap()
	var peer unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: addr.As16()}
	if addr.Is4() {
		peer = &unix.SockaddrInet4{Port: int(to.Port()), Addr: addr.As4()}
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Connect(int(fd), peer) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, from *pod, network, to string) net.Conn {
	t.Helper()
	var conn net.Conn
	from.Do(t, func() error {
		var err error
		conn, err = net.Dial(network, to)
		return err
	})
	return conn
}

// there reports whether something gets to the server, and back to the client.
func (f *flow) there(within time.Duration) bool { return f.pass(f.client, f.server, within) }
func (f *flow) back(within time.Duration) bool  { return f.pass(f.server, f.client, within) }

// pass sends a byte and waits until it comes out. What TCP sends again late is not
// taken for it.
func (f *flow) pass(from, to net.Conn, within time.Duration) bool {
	f.sent++
	deadline := time.Now().Add(within)
	if err := to.SetReadDeadline(deadline); err != nil {
		return false
	}
	for one := make([]byte, 1); ; {
		if _, err := from.Write([]byte{f.sent}); err != nil {
			return false
		}
		for {
			n, err := to.Read(one)
			if err != nil {
				return false
			}
			if n == 1 && one[0] == f.sent {
				return true
			}
		}
	}
}
