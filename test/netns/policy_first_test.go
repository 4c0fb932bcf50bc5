package netns

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/test/netns/topology"
)

const (
	// policedPods come under policies that allow nothing, and freePods, among them, under none.
	policedPods = 200
	freePods    = 20
	// runtimeRequests is how many pods start or end at a time.
	runtimeRequests = 6
	// shoutInterval is the time between two datagrams to each address.
	shoutInterval = 200 * time.Microsecond
	// shoutsOn is how long it goes on after ADD.
	shoutsOn = 50 * time.Millisecond
)

// Pods shout, and are shouted at, from before they have a link. Of those that policies
// isolate nothing is heard, and they hear nothing, not even while they start; of the
// others everybody hears, and they hear everybody.
func TestNoPacketBeforeThePolicies(t *testing.T) {
	t.Attr("budget", "40s")
	t.Parallel()
	c := newPoliced(t, options{nodes: 1, attachment: model.PointToPoint, mode: model.ModeRouted, families: dual})
	c.objects.NetworkPolicies = []model.NetworkPolicy{{
		Namespace: "red", Name: "deny", Types: []model.PolicyType{model.PolicyIngress, model.PolicyEgress},
	}}
	s := newShouting(t, newCNINode(t, c))
	began := time.Now()
	atATime(policedPods+freePods, s.start)
	t.Logf("%d pods started in %s", len(s.pods), time.Since(began).Round(time.Millisecond))
	s.judge()
	s.end()
}

// atATime does something so many times, but only a few of them at a time.
func atATime(times int, do func(i int)) {
	var all sync.WaitGroup
	numbers := make(chan int)
	for range runtimeRequests {
		all.Go(func() {
			for i := range numbers {
				do(i)
			}
		})
	}
	for i := range times {
		numbers <- i
	}
	close(numbers)
	all.Wait()
}

// shouting is a node whose pods shout, and are shouted at.
type shouting struct {
	*cniNode
	t *testing.T
	// others shout at pods, and pods at them: a pod that no policy selects, and a host
	// outside of the cluster.
	others []*shouter

	mu   sync.Mutex
	pods map[string]*shouter
}

// shouter has a socket by which it shouts, and another by which it hears.
type shouter struct {
	*topology.Namespace
	namespace   string
	addrs       []netip.Addr
	mouth, ears *net.UDPConn
	// quiet is closed when it shall not shout any more, and nobody shall shout at it; then
	// loud waits for all of them.
	quiet chan struct{}
	loud  sync.WaitGroup

	mu sync.Mutex
	// heard counts what it heard, and said what it said, by words.
	heard, said map[string]int
}

func newShouting(t *testing.T, n *cniNode) *shouting {
	t.Helper()
	s := &shouting{cniNode: n, t: t, pods: map[string]*shouter{}}
	host := n.underlay.AddHost(t, "outside", dual)
	outside := s.shouter(host.Namespace, "")
	outside.addrs = []netip.Addr{host.IPv4.Addr(), host.IPv6.Addr()}
	for _, b := range n.blocks {
		host.Run(t, "ip", "route", "add", b.CIDR.String(), "via", n.Address(b.CIDR.Addr().Is4()).String())
	}
	inside := s.shouter(topology.NewNamespace(t, "inside"), "blue")
	var err error
	if inside.addrs, err = n.add(t.Context(), inside.Namespace, inside.namespace); err != nil {
		t.Fatal(err)
	}
	s.others = []*shouter{outside, inside}
	n.attaching = s.shoutAt
	return s
}

// shouter makes one that hears.
func (s *shouting) shouter(in *topology.Namespace, namespace string) *shouter {
	p := &shouter{Namespace: in, namespace: namespace, quiet: make(chan struct{}), heard: map[string]int{}, said: map[string]int{}}
	if err := in.Try(func() error {
		var err, failed error
		p.mouth, err = net.ListenUDP("udp", &net.UDPAddr{})
		p.ears, failed = net.ListenUDP("udp", &net.UDPAddr{Port: sinkPort})
		return errors.Join(err, failed)
	}); err != nil {
		s.t.Error(err)
		return p
	}
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for buffer := make([]byte, 100); ; {
			size, _, err := p.ears.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.heard[string(buffer[:size])]++
			p.mu.Unlock()
		}
	})
	s.t.Cleanup(func() { p.mouth.Close(); p.ears.Close(); hearing.Wait() })
	return p
}

// words are what a shouter says to an address.
func (p *shouter) words(to netip.Addr) string {
	if to.Is4() {
		return p.Name + " by IPv4"
	}
	return p.Name + " by IPv6"
}

// shout shouts at addresses until it shall be quiet.
func (p *shouter) shout(at []netip.Addr, quiet <-chan struct{}) {
	ticker := time.NewTicker(shoutInterval)
	defer ticker.Stop()
	for {
		for _, a := range at {
			words := p.words(a)
			// Before there is a link there is no way.
			if _, err := p.mouth.WriteToUDPAddrPort([]byte(words), netip.AddrPortFrom(a, sinkPort)); err == nil {
				p.mu.Lock()
				p.said[words]++
				p.mu.Unlock()
			}
		}
		select {
		case <-quiet:
			return
		case <-ticker.C:
		}
	}
}

// start starts the i-th pod as a runtime does, in whose namespace it is loud already.
func (s *shouting) start(i int) {
	p := s.shouter(topology.NewNamespace(s.t, fmt.Sprint("pod", i)), "red")
	if i%((policedPods+freePods)/freePods) == 0 {
		p.namespace = "green"
	}
	s.mu.Lock()
	s.pods[p.Name] = p
	s.mu.Unlock()
	for _, other := range s.others {
		p.loud.Go(func() { p.shout(other.addrs, p.quiet) })
	}
	// The API server reports the pod a moment before the runtime starts it, or after.
	p.loud.Go(func() {
		time.Sleep(rand.N(50 * time.Millisecond))
		s.change(func(o *model.PolicyObjects) {
			o.Pods = append(o.Pods, model.ClusterPod{Namespace: p.namespace, Name: p.Name, UID: p.Name, Node: s.node.Name})
		})
	})
	time.Sleep(rand.N(10 * time.Millisecond))
	addrs, err := s.add(s.t.Context(), p.Namespace, p.namespace)
	for tries := 1; err != nil && tries < 4; tries++ {
		// On a busy machine the agent may not know of the pod in time, and then asks for another ADD.
		var asked *cnitypes.Error
		if !errors.As(err, &asked) || asked.Code != cnitypes.ErrTryAgainLater {
			break
		}
		s.t.Log("trying again: ", err)
		if err = s.del(s.t.Context(), p.Namespace, p.namespace); err == nil {
			addrs, err = s.add(s.t.Context(), p.Namespace, p.namespace)
		}
	}
	if err != nil {
		s.t.Error(err)
	}
	p.addrs = addrs
	time.Sleep(shoutsOn)
	// Who may hear it, does in the end: the kernel may take its time to say that a link is up.
	for late := time.Now().Add(10 * time.Second); p.namespace == "green" && !s.understood(p) && time.Now().Before(late); {
		time.Sleep(time.Millisecond)
	}
	close(p.quiet)
	p.loud.Wait()
}

// shoutAt lets the others shout at a pod that has its addresses, and no link yet.
func (s *shouting) shoutAt(pod model.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pods[pod.Name]
	for _, other := range s.others {
		p.loud.Go(func() { other.shout(pod.Addrs, p.quiet) })
	}
}

// understood says whether a pod and the others have heard each other by all addresses.
func (s *shouting) understood(p *shouter) bool {
	for _, other := range s.others {
		for _, a := range slices.Concat(p.addrs, other.addrs) {
			if other.hears(p.words(a)) == 0 || p.hears(other.words(a)) == 0 {
				return false
			}
		}
	}
	return true
}

// hears returns how often it has heard something.
func (p *shouter) hears(words string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard[words]
}

// judge compares what was heard with what should be.
func (s *shouting) judge() {
	s.t.Helper()
	said, free := 0, 0
	for name, p := range s.pods {
		for _, other := range s.others {
			for _, a := range other.addrs {
				if p.said[p.words(a)] == 0 {
					s.t.Errorf("%s never said anything to %s", name, a)
				}
				said += p.said[p.words(a)]
				s.compare(p, other, p.words(a))
				s.compare(other, p, other.words(a))
			}
		}
		if p.namespace == "green" {
			free++
		}
	}
	if len(s.pods) != policedPods+freePods || free != freePods {
		s.t.Errorf("%d pods, of which %d under no policy", len(s.pods), free)
	}
	s.t.Logf("they said something %d times", said)
}

// compare says whether one end may have heard words of the other: where one of them is
// red it may not, and otherwise it must.
func (s *shouting) compare(from, to *shouter, words string) {
	s.t.Helper()
	forbidden := from.namespace == "red" || to.namespace == "red"
	if heard := to.hears(words); heard > 0 == forbidden {
		s.t.Errorf("%s (%s) heard %d times %q of %s (%s)", to.Name, to.namespace, heard, words, from.Name, from.namespace)
	}
}

// end detaches all pods, and checks that nothing is left of them.
func (s *shouting) end() {
	s.t.Helper()
	going := append(slices.Collect(maps.Values(s.pods)), s.others[1])
	atATime(len(going), func(i int) {
		if err := s.del(s.t.Context(), going[i].Namespace, going[i].namespace); err != nil {
			s.t.Error(err)
		}
	})
	becomes(s.t, "the tables forget the pods", func() bool {
		return !strings.Contains(s.Run(s.t, "nft", "list", "table", "inet", model.PolicyTable), "10.244.1.")
	})
	if left := s.book.Recorded(); len(left) > 0 {
		s.t.Errorf("left are %v", left)
	}
	for line := range strings.Lines(s.Run(s.t, "ip", "-brief", "link")) {
		if strings.HasPrefix(line, model.PodLinkPrefix) {
			s.t.Errorf("left is the link %s", line)
		}
	}
}
