package state

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/podnet/podnet/internal/model"
)

// api is what the API holds.
type api struct {
	objects Objects
	err     error
	reads   int
}

func (a *api) Objects(context.Context) (Objects, error) {
	a.reads++
	return a.objects, a.err
}

func (a *api) Policies(context.Context) (Policies, error) {
	return Policies{Objects: model.PolicyObjects{NetworkPolicies: []model.NetworkPolicy{{Name: "p"}}}}, nil
}

// What was there until lately is remembered once for each time that the API is read, however
// many go by it, and those hear of what has changed alone.
func TestObjectsAreReadOnceAndPublished(t *testing.T) {
	g := gomega.NewWithT(t)
	clock := clocktesting.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	after := func(d time.Duration) { clock.SetTime(clock.Now().Add(d)) }
	a, changes := &api{err: errors.New("away")}, 0
	k := NewKeeper(KeeperConfig{Source: a, Clock: clock, Changed: func() { changes++ }})
	g.Expect(k.Build(t.Context())).To(gomega.MatchError("away"))
	_, err := k.Objects()
	g.Expect(err).To(gomega.MatchError(errUnheard))
	_, err = k.Policies(t.Context())
	g.Expect(err).To(gomega.MatchError(errUnheard), "unknown is not empty")
	g.Expect(k.Built()).NotTo(gomega.BeClosed())

	a.err = nil
	a.objects = Objects{Network: &model.Network{Denied: model.DeniedEvents}, Blocks: []model.Block{held("a", "192.0.2.1"), {Name: "lost", Node: "b"}}}
	g.Expect(k.Build(t.Context())).To(gomega.Succeed())
	g.Expect(k.Built()).To(gomega.BeClosed())
	g.Expect(changes).To(gomega.Equal(1))
	a.objects.Blocks = []model.Block{held("a", "192.0.2.11")}
	g.Expect(k.Build(t.Context())).To(gomega.Succeed())
	g.Expect(changes).To(gomega.Equal(2))
	reads := a.reads
	for range 3 {
		after(freshGrace / 4)
		objects, err := k.Objects()
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(objects.Blocks).To(gomega.HaveLen(2), "one vanished")
		policies, err := k.Policies(t.Context())
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(policies.Blocks).To(gomega.Equal(objects.Blocks))
		g.Expect(policies.Denied).To(gomega.Equal(model.DeniedEvents))
		g.Expect(policies.Objects.NetworkPolicies).To(gomega.HaveLen(1))
	}
	objects, err := k.Objects()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(objects.Former).To(gomega.HaveExactElements(formerOf("a", "192.0.2.1", freshGrace/4)), "it gets old by itself")
	g.Expect(a.reads).To(gomega.Equal(reads))

	g.Expect(k.Build(t.Context())).To(gomega.Succeed())
	g.Expect(changes).To(gomega.Equal(2), "nothing has changed")
	a.objects.RouteModes = []model.RouteMode{{Name: "x"}, {Name: "y"}}
	g.Expect(k.Build(t.Context())).To(gomega.Succeed())
	g.Expect(changes).To(gomega.Equal(3))
	// Caches list in any order.
	a.objects.RouteModes = []model.RouteMode{{Name: "y"}, {Name: "x"}}
	g.Expect(k.Build(t.Context())).To(gomega.Succeed())
	g.Expect(changes).To(gomega.Equal(3), "nothing but the order has changed")
	after(formerGrace + time.Second)
	g.Expect(k.Build(t.Context())).To(gomega.Succeed())
	g.Expect(changes).To(gomega.Equal(4), "what was remembered is forgotten")
	objects, err = k.Objects()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(objects.Blocks).To(gomega.HaveLen(1))
	g.Expect(objects.Former).To(gomega.BeEmpty())
}
