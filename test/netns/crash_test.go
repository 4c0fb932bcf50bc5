package netns

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/podnet/podnet/agent/cni"
	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/plan"
	"github.com/podnet/podnet/test/netns/topology"
)

var (
	crashSeed = flag.Uint64("crash-seed", 0, "seed of the crash test; 0: any")
	crashOps  = flag.Int64("crash-ops", 2000, "ADDs and DELs of the crash test")
)

const (
	// crashWorkers is how many pods are attached or detached at a time, crashPods how
	// many each worker lets live.
	crashWorkers, crashPods = 8, 5
	// crashLimit is how long a runtime tries.
	crashLimit = time.Minute
	// leastRest is how long an address rests before another pod has it.
	leastRest = 5 * time.Second
)

// crash is a node whose agent is killed again and again, and its runtime.
type crash struct {
	t     *testing.T
	agent crashAgent
	host  *topology.Host

	mu sync.Mutex
	// holders are the live pods by their addresses: from the answer to ADD until
	// DEL is asked for.
	holders map[netip.Addr]string
	live    map[string]*crashPod
	given   map[netip.Addr]int
	// left is when the last pod of an address was about to be deleted.
	left map[netip.Addr]time.Time

	process *exec.Cmd
	stdin   io.Closer

	ops, kills, answers, failures, vanished atomic.Int64
}

// crashPod is a pod of the crash test.
type crashPod struct {
	*topology.Namespace
	id    string
	netns string
	addrs []netip.Addr
	// asked is the ADD that made it.
	asked protocol.Request
}

// An address is never lost and never given twice, wherever the agent is killed.
func TestAgentKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: run it again with -args -crash-seed=%d", seed, seed)
	c := newCrash(t)
	begin := time.Now()
	done := make(chan struct{})
	var workers, killer sync.WaitGroup
	for i := range uint64(crashWorkers) {
		workers.Go(func() { c.work(rand.New(rand.NewPCG(seed, i))) })
	}
	killer.Go(func() { c.kill(rand.New(rand.NewPCG(seed, 1000)), done) })
	workers.Wait()
	close(done)
	killer.Wait()
	c.settle()
	again := 0
	for _, times := range c.given {
		if times > 1 {
			again++
		}
	}
	t.Logf("%d operations, %d errors on the way; %d kills; %d pods gone without a DEL; "+
		"%d addresses given, %d of them more than once; %d pods live; seed %d; %s",
		c.ops.Load(), c.failures.Load(), c.kills.Load(), c.vanished.Load(), len(c.given), again, len(c.live), seed, time.Since(begin).Round(time.Second))
	c.checkLive()
	c.empty()
}

func newCrash(t *testing.T) *crash {
	t.Helper()
	// On a tmpfs, as /run is; and t.TempDir is too long for a socket's path.
	dir, err := os.MkdirTemp("/dev/shm", "podnet-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &crash{
		t: t, host: topology.NewUnderlay(t, 1500).AddHost(t, crashNode, dual),
		holders: map[netip.Addr]string{}, live: map[string]*crashPod{}, given: map[netip.Addr]int{}, left: map[netip.Addr]time.Time{},
		agent: crashAgent{
			StateDir: dir,
			// Of two blocks, of which the second has what the first has not.
			Blocks: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/27"), netip.MustParsePrefix("10.244.2.0/27"), netip.MustParsePrefix("fd44:0:0:1::/122")},
			Network: model.Network{
				Ranges:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd44::/48")},
				Attachment: model.PointToPoint, Mode: model.ModeOverlay, VNI: 7466, Port: 4789, Masquerade: true,
			},
		},
	}
	if _, c.agent.kernel, c.agent.host, err = rooms(dir); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(c.stop)
	return c
}

// start starts the agent in the node's namespace.
func (c *crash) start() {
	text, err := json.Marshal(c.agent)
	if err != nil {
		c.t.Error(err)
		return
	}
	log, err := os.OpenFile(c.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer log.Close()
	c.process = exec.Command("/proc/self/exe")
	c.process.Env = append(os.Environ(), agentVariable+"="+string(text))
	c.process.Stderr = log
	if c.stdin, err = c.process.StdinPipe(); err == nil {
		err = c.host.Try(c.process.Start)
	}
	if err != nil {
		c.t.Error(err)
	}
}

func (c *crash) log() string { return filepath.Join(c.agent.StateDir, "log") }

// stop kills the agent.
func (c *crash) stop() {
	if c.process.Process == nil {
		return
	}
	if err := c.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.t.Error(err)
	}
	var exit *exec.ExitError
	if err := c.process.Wait(); !errors.As(err, &exit) || exit.Exited() {
		c.t.Errorf("the agent ended by itself: %v", err)
	}
}

// kill kills the agent at random instants until done: now and then while it starts,
// else after some answers, however long they take on a busy machine.
func (c *crash) kill(random *rand.Rand, done <-chan struct{}) {
	for {
		enough := c.answers.Load() + random.Int64N(60)
		if random.IntN(4) == 0 {
			enough = 0
		}
		time.Sleep(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
		for c.answers.Load() < enough {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
		select {
		case <-done:
			return
		default:
		}
		c.stop()
		c.kills.Add(1)
		c.start()
	}
}

// work does what kubelet and a runtime do, until there were enough operations.
func (c *crash) work(random *rand.Rand) {
	var mine []*crashPod
	for c.ops.Load() < *crashOps && !c.t.Failed() {
		if len(mine) == 0 || len(mine) < crashPods && random.IntN(2) == 0 {
			if p := c.add(random); p != nil {
				mine = append(mine, p)
			}
			continue
		}
		i := random.IntN(len(mine))
		p := mine[i]
		switch random.IntN(20) {
		case 0:
			mine = slices.Delete(mine, i, i+1)
			c.forget(p)
			c.vanish(p)
		case 1, 2:
			c.checkOne(p)
		default:
			mine = slices.Delete(mine, i, i+1)
			c.forget(p)
			c.del(p)
		}
	}
}

var crashCount atomic.Int64

// add makes a pod, and returns nil where the runtime gave up on it.
func (c *crash) add(random *rand.Rand) *crashPod {
	name := fmt.Sprintf("crash%d", crashCount.Add(1))
	p := &crashPod{id: fmt.Sprintf("%x", sha256.Sum256([]byte(name))), Namespace: topology.NewNamespace(c.t, name)}
	p.netns = filepath.Join(c.agent.StateDir, name)
	if err := os.Symlink(p.Path(), p.netns); err != nil {
		c.t.Error(err)
		return nil
	}
	p.asked = protocol.Request{
		ContainerID: p.id, IfName: "eth0", Netns: p.netns, Config: json.RawMessage(`{"cniVersion": "1.1.0", "name": "podnet", "type": "podnet-cni"}`),
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=" + name,
	}
	c.ops.Add(1)
	for deadline := time.Now().Add(crashLimit); ; {
		var result types100.Result
		err := c.call(protocol.Add, p.asked, &result)
		if err == nil {
			return c.enter(p, &result)
		}
		c.passing(err)
		switch random.IntN(12) {
		default: // The runtime asks again.
		case 0: // It was killed too, and the node's init took the pod away.
			c.vanish(p)
			return nil
		case 1, 2: // It gives up, and kubelet begins anew with another sandbox.
			c.del(p)
			return nil
		}
		if time.Now().After(deadline) {
			c.t.Errorf("ADD of %s: %v", p.Name, err)
			return nil
		}
	}
}

// enter notes that a pod lives, and that nobody else has its addresses.
func (c *crash) enter(p *crashPod, result *types100.Result) *crashPod {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ip := range result.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		addr = addr.Unmap()
		if other, taken := c.holders[addr]; taken {
			c.t.Errorf("%s has the address %s of %s, which lives", p.Name, addr, other)
		}
		if rested := time.Since(c.left[addr]); rested < leastRest {
			c.t.Errorf("%s has the address %s of a pod that was there until %s ago", p.Name, addr, rested)
		}
		c.holders[addr] = p.Name
		c.given[addr]++
		p.addrs = append(p.addrs, addr)
	}
	if len(p.addrs) != 2 {
		c.t.Errorf("%s has addresses %v", p.Name, p.addrs)
	}
	c.live[p.id] = p
	return p
}

// forget notes that a pod no longer lives.
func (c *crash) forget(p *crashPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, addr := range p.addrs {
		c.left[addr] = time.Now()
		delete(c.holders, addr)
	}
	delete(c.live, p.id)
}

// del asks until it is granted, as runtimes do.
func (c *crash) del(p *crashPod) {
	c.ops.Add(1)
	for deadline := time.Now().Add(crashLimit); ; {
		err := c.call(protocol.Del, p.asked, nil)
		if err == nil {
			break
		}
		c.passing(err)
		if time.Now().After(deadline) {
			c.t.Errorf("DEL of %s: %v", p.Name, err)
			break
		}
	}
	c.closeNamespace(p)
}

// vanish takes a pod away without a word to the agent.
func (c *crash) vanish(p *crashPod) {
	c.vanished.Add(1)
	c.closeNamespace(p)
}

func (c *crash) closeNamespace(p *crashPod) {
	if err := os.Remove(p.netns); err != nil {
		c.t.Error(err)
	}
	p.Close(c.t)
}

// checkOne checks that a live pod has all of its attachment.
func (c *crash) checkOne(p *crashPod) {
	for deadline := time.Now().Add(crashLimit); ; {
		err := c.call(protocol.Check, p.asked, nil)
		if err == nil {
			return
		}
		var e *types.Error
		if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || time.Now().After(deadline) {
			c.t.Errorf("CHECK of %s, which lives: %v", p.Name, err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *crash) call(verb protocol.Verb, request protocol.Request, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), crashLimit)
	defer cancel()
	err := protocol.Call(ctx, c.agent.socket(), verb, request, result)
	if err == nil {
		c.answers.Add(1)
	}
	return err
}

// passing checks that an error is one of an agent that is away or just started.
func (c *crash) passing(err error) {
	c.failures.Add(1)
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater {
		c.t.Errorf("the agent said: %v", err)
	}
	time.Sleep(20 * time.Millisecond)
}

// records returns the attachments that have a record.
func (c *crash) records() map[string]bool {
	entries, err := os.ReadDir(c.agent.attachments())
	if err != nil {
		c.t.Fatal(err)
	}
	records := map[string]bool{}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "cursors", name == "released":
		case strings.HasPrefix(name, "."): // which is being written
		default:
			records[name] = true
		}
	}
	return records
}

// settle waits until the agent has taken back what was left behind, by itself, and
// checks that it keeps all of what lives.
func (c *crash) settle() {
	want := map[string]bool{}
	for _, p := range c.live {
		want[cni.Key{ContainerID: p.id, IfName: "eth0"}.HostLink()+".json"] = true
	}
	for deadline := time.Now().Add(crashLimit); ; time.Sleep(50 * time.Millisecond) {
		have := c.records()
		if maps.Equal(have, want) {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%d pods live, recorded are %d: want %v, have %v\n%s", len(want), len(have), want, have, c.tail())
		}
	}
	// A few more sweeps take nothing more.
	time.Sleep(2 * time.Second)
	if have := c.records(); !maps.Equal(have, want) {
		c.t.Errorf("later %d of %d pods are recorded", len(have), len(want))
	}
}

// checkLive checks that those who live do, and reach each other.
func (c *crash) checkLive() {
	var last *crashPod
	for _, p := range c.live {
		c.checkOne(p)
		if last != nil {
			for _, addr := range last.addrs {
				if err := p.Ping(addr); err != nil {
					c.t.Error(err)
				}
			}
		}
		last = p
	}
	if c.t.Failed() {
		c.t.Log(c.tail())
	}
}

// empty deletes all pods and checks that nothing of them is left.
func (c *crash) empty() {
	for _, p := range slices.Collect(maps.Values(c.live)) {
		c.forget(p)
		c.del(p)
	}
	if left := c.records(); len(left) > 0 {
		c.t.Errorf("records are left: %v", left)
	}
	c.host.Do(c.t, func() error {
		ctx := context.Background()
		host, _, err := c.agent.Host(ctx)
		if err != nil {
			return err
		}
		want := plan.Build(model.Cluster{Network: &c.agent.Network, Blocks: c.agent.blocks(), Host: host}).State
		// The agent may be at it still.
		for deadline := time.Now().Add(crashLimit); ; time.Sleep(50 * time.Millisecond) {
			have, err := c.agent.kernel.Observe(ctx, want)
			if err != nil {
				return err
			}
			ops := diff.Diff(want, have)
			if len(ops) == 0 {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the kernel is not as it was before the first pod: %s", printOps(ops))
			}
		}
	})
	for _, command := range []string{"ip -o link", "ip route show table all", "ip -6 route show table all", "ip neigh", "nft list ruleset"} {
		for line := range strings.Lines(c.host.Run(c.t, strings.Fields(command)...)) {
			if podLink.MatchString(line) {
				c.t.Errorf("%s shows the link of a pod: %s", command, line)
			}
		}
	}
}

// podLink finds names of pods' links: not the pattern that stands for all of them.
var podLink = regexp.MustCompile(`\b` + model.PodLinkPrefix + `[0-9a-f]{11}\b`)

// tail is the end of what the agents said.
func (c *crash) tail() string {
	text, err := os.ReadFile(c.log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
