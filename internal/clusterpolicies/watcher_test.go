package clusterpolicies

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// What an API server without the kind answers: the client knows no such kind, or knew it once.
var (
	errNoMatch  = &apimeta.NoKindMatchError{GroupKind: schema.GroupKind{Group: policyv1alpha2.GroupName, Kind: "ClusterNetworkPolicy"}}
	errNotFound = apierrors.NewNotFound(schema.GroupResource{}, "")
)

// apiServer is an API server and a cache of it.
type apiServer struct {
	client.Reader

	mu sync.Mutex
	// err is its answer to those who ask for ClusterNetworkPolicies; names are those that there are.
	err   error
	names []string
	// asked counts those who ask.
	asked int
	// hangs says that informers are not filled.
	hangs bool
	// informer is the one that the cache has; nil where it has none.
	informer *controllertest.FakeInformer
}

// cacheOf is the cache of an API server.
type cacheOf struct{ *apiServer }

func (s *apiServer) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	for _, name := range s.names {
		out := list.(*policyv1alpha2.ClusterNetworkPolicyList)
		out.Items = append(out.Items, policyv1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return s.err
}

func (c cacheOf) List(ctx context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if c.informer == nil {
		return errors.New("a read has made an informer")
	}
	return c.apiServer.List(ctx, list)
}

func (c cacheOf) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.informer = controllertest.NewFakeInformer()
	if !c.hangs {
		c.informer.Synced()
	}
	return c.informer, nil
}

func (c cacheOf) RemoveInformer(context.Context, client.Object) error {
	c.informer = nil
	return nil
}

// becomes changes what the API server answers.
func (s *apiServer) becomes(err error, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.names = err, names
}

// looks is how often it was asked.
func (s *apiServer) looks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// play runs a Watcher in a time of its own; told counts what it told.
func play(t *testing.T, s *apiServer, history func(g *gomega.WithT, w *Watcher, told *int)) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		w := New(s, cacheOf{s}, func() { told++ })
		go w.Run(t.Context())
		synctest.Wait()
		history(gomega.NewWithT(t), w, &told)
	})
}

// later is when every Watcher has looked once more.
func later() {
	time.Sleep(interval + interval/5 + doubt)
	synctest.Wait()
}

func names(g *gomega.WithT, w *Watcher) []string {
	list, err := w.List(context.Background())
	g.Expect(err).NotTo(gomega.HaveOccurred())
	var out []string
	for _, p := range list {
		out = append(out, p.Name)
	}
	return out
}

func TestKindMayComeAndGo(t *testing.T) {
	s := &apiServer{err: errNoMatch}
	play(t, s, func(g *gomega.WithT, w *Watcher, told *int) {
		g.Expect(w.known).NotTo(gomega.BeClosed(), "it is asked twice")
		time.Sleep(doubt)
		synctest.Wait()
		g.Expect(w.known).To(gomega.BeClosed())
		g.Expect(names(g, w)).To(gomega.BeEmpty())
		g.Expect(*told).To(gomega.Equal(1))

		s.becomes(nil, "a", "b")
		later()
		g.Expect(names(g, w)).To(gomega.Equal([]string{"a", "b"}))
		g.Expect(*told).To(gomega.Equal(2))

		s.becomes(errNotFound)
		later()
		g.Expect(names(g, w)).To(gomega.BeEmpty())
		g.Expect(s.informer).To(gomega.BeNil())
		g.Expect(*told).To(gomega.Equal(3))

		s.becomes(nil, "a", "b")
		later()
		g.Expect(names(g, w)).To(gomega.Equal([]string{"a", "b"}))
		later()
		g.Expect(*told).To(gomega.Equal(4), "nothing has changed since")
	})
}

// A CRD that is replaced is gone for a moment, and the policies are not.
func TestKindThatIsGoneForAMomentStays(t *testing.T) {
	s := &apiServer{names: []string{"a"}}
	play(t, s, func(g *gomega.WithT, w *Watcher, told *int) {
		s.becomes(errNotFound)
		before := s.looks()
		for s.looks() == before {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		s.becomes(nil, "a")
		later()
		g.Expect(s.looks()).To(gomega.BeNumerically(">=", before+2))
		g.Expect(names(g, w)).To(gomega.Equal([]string{"a"}))
		g.Expect(*told).To(gomega.Equal(1), "they were there all the time")
	})
}

func TestNoAnswerIsNotNone(t *testing.T) {
	s := &apiServer{err: errors.New("connection refused")}
	play(t, s, func(g *gomega.WithT, w *Watcher, told *int) {
		later()
		g.Expect(w.known).NotTo(gomega.BeClosed())
		_, err := w.List(context.Background())
		g.Expect(err).To(gomega.MatchError("the ClusterNetworkPolicies are still unknown"))
		g.Expect(*told).To(gomega.BeZero())

		s.becomes(nil, "a")
		time.Sleep(2 * retry)
		synctest.Wait()
		g.Expect(names(g, w)).To(gomega.Equal([]string{"a"}))

		s.becomes(apierrors.NewForbidden(schema.GroupResource{}, "", nil))
		later()
		g.Expect(s.informer).NotTo(gomega.BeNil(), "what is known stays known")
	})
}

func TestKindThatGoesWhileTheCacheIsFilledIsNotWaitedFor(t *testing.T) {
	s := &apiServer{hangs: true, names: []string{"a"}}
	play(t, s, func(g *gomega.WithT, w *Watcher, _ *int) {
		time.Sleep(patience + time.Second)
		synctest.Wait()
		g.Expect(w.known).NotTo(gomega.BeClosed())
		s.becomes(errNotFound)
		later()
		g.Expect(w.known).To(gomega.BeClosed())
		g.Expect(names(g, w)).To(gomega.BeEmpty())
	})
}

func TestOnlyChangesOfTheSpecAndOfAnnotationsAreTold(t *testing.T) {
	s := &apiServer{}
	play(t, s, func(g *gomega.WithT, _ *Watcher, told *int) {
		policy := func(generation int64) *policyv1alpha2.ClusterNetworkPolicy {
			return &policyv1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "a", Generation: generation}}
		}
		before := *told
		s.informer.Add(policy(1))
		s.informer.Update(policy(1), policy(1))
		g.Expect(*told).To(gomega.Equal(before + 1))
		s.informer.Update(policy(1), policy(2))
		s.informer.Delete(policy(2))
		g.Expect(*told).To(gomega.Equal(before + 3))
		annotated := policy(2)
		annotated.Annotations = map[string]string{"podnet.dev/count": "true"}
		s.informer.Update(policy(2), annotated)
		g.Expect(*told).To(gomega.Equal(before + 4))
	})
}
