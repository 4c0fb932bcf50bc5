package node

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/gomega"

	"github.com/podnet/podnet/internal/model"
)

// server is an API server that holds one Node.
type server struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	asked int
}

func (s *server) read(context.Context) ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.addrs, s.err
}

func (s *server) set(err error, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs, s.err = parse(addrs...), err
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func parse(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// eth0 is the node's one interface, with these addresses.
func eth0(addrs ...string) []model.Endpoint {
	var has []model.Endpoint
	for _, a := range parse(addrs...) {
		has = append(has, model.Endpoint{Addr: a, Link: "eth0", MTU: 1500})
	}
	return has
}

// follow runs a Known in a bubble of time. Each change is told by the channel.
func follow(t *testing.T, api *server, first ...string) (*Known, chan struct{}) {
	t.Helper()
	k := NewKnown(parse(first...), api.read)
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx, func() { changed <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return k, changed
}

// long is more than the longest time between two reads, which is random.
const long = 2*lastAsk + firstAsk

func TestKnownNodeIsReadOnceWhereNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		api := &server{addrs: parse("192.0.2.1")}
		k, changed := follow(t, api, "192.0.2.1")
		for range 50 {
			g.Expect(k.addresses(eth0("192.0.2.1"))).To(gomega.Equal(parse("192.0.2.1")))
			time.Sleep(firstAsk)
		}
		g.Expect(api.count()).To(gomega.Equal(1))
		g.Expect(changed).To(gomega.BeEmpty())
	})
}

func TestKubernetesIsFollowedWhenItComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		api := &server{addrs: parse("192.0.2.1")}
		k, changed := follow(t, api, "192.0.2.1")
		k.addresses(eth0("192.0.2.1"))
		synctest.Wait()
		g.Expect(api.count()).To(gomega.Equal(1))
		// The kubelet hears of the second address when it is told to.
		g.Expect(k.addresses(eth0("192.0.2.1", "192.0.2.11"))).To(gomega.Equal(parse("192.0.2.1")))
		time.Sleep(lastAsk)
		g.Expect(api.count()).To(gomega.BeNumerically(">", 4))
		g.Expect(changed).To(gomega.BeEmpty())
		api.set(nil, "192.0.2.11")
		time.Sleep(long)
		g.Expect(changed).To(gomega.Receive())
		g.Expect(k.addresses(eth0("192.0.2.1", "192.0.2.11"))).To(gomega.Equal(parse("192.0.2.11")))
		// Now it need not be asked any more.
		time.Sleep(long)
		asked := api.count()
		time.Sleep(10 * long)
		g.Expect(api.count()).To(gomega.Equal(asked))
	})
}

func TestNodeIsReadUntilItsAddressesAreOnAnInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		api := &server{addrs: parse("203.0.113.1")}
		k, changed := follow(t, api, "203.0.113.1")
		k.addresses(eth0("192.0.2.1"))
		time.Sleep(lastAsk)
		g.Expect(api.count()).To(gomega.BeNumerically(">", 4))
		api.set(nil, "192.0.2.1")
		time.Sleep(long)
		g.Expect(changed).To(gomega.Receive())
	})
}

func TestAPIServerThatIsAwayChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		api := &server{err: errors.New("away")}
		k, changed := follow(t, api, "192.0.2.1")
		k.addresses(eth0("192.0.2.1"))
		time.Sleep(lastAsk)
		g.Expect(api.count()).To(gomega.BeNumerically(">", 2))
		g.Expect(k.addresses(eth0("192.0.2.1"))).To(gomega.Equal(parse("192.0.2.1")))
		// A Node that says nothing, or is gone, is not known to have no address.
		api.set(nil)
		asked := api.count()
		time.Sleep(long)
		g.Expect(api.count()).To(gomega.BeNumerically(">", asked))
		g.Expect(k.addresses(eth0("192.0.2.1"))).To(gomega.Equal(parse("192.0.2.1")))
		g.Expect(changed).To(gomega.BeEmpty())
	})
}

func TestAddressesThatKeepChangingAreNoBurstOfReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gomega.NewWithT(t)
		api := &server{addrs: parse("192.0.2.1")}
		k, _ := follow(t, api, "192.0.2.1")
		const changes = 200
		for i := range changes {
			k.addresses(eth0([]string{"192.0.2.1", "192.0.2.2"}[i%2]))
			time.Sleep(firstAsk / 10)
		}
		g.Expect(api.count()).To(gomega.BeNumerically("<=", changes/10+1))
	})
}
func TestLossOfAnAddressIsTold(t *testing.T) {
	g := gomega.NewWithT(t)
	k := NewKnown(parse("192.0.2.1"), nil)
	lost := 0
	k.Lost = func() { lost++ }
	k.addresses(eth0("192.0.2.1"))
	k.addresses(eth0("192.0.2.1", "192.0.2.11"))
	g.Expect(lost).To(gomega.BeZero())
	k.addresses(eth0("192.0.2.11"))
	k.addresses(eth0("192.0.2.11"))
	g.Expect(lost).To(gomega.Equal(1))
}
