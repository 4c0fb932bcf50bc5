package heartbeat

import (
	"testing"
	"time"

	"github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

func TestLeaseIsCreatedRenewedRecreatedAndDeleted(t *testing.T) {
	g := gomega.NewWithT(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "first"}}
	api := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(node).Build()
	clock := clocktesting.NewFakeClock(time.Unix(1_700_000_000, 0))
	removed := false
	h := New(Config{Reader: api, Client: api, Clock: clock, Namespace: "podnet-system", Node: "a", Removed: func() bool { return removed }})
	get := func() (*coordinationv1.Lease, error) {
		lease := &coordinationv1.Lease{}
		return lease, api.Get(t.Context(), client.ObjectKey{Namespace: "podnet-system", Name: "a"}, lease)
	}
	beats := func() *coordinationv1.Lease {
		t.Helper()
		clock.Step(podnetv1alpha1.HeartbeatInterval)
		done, err := h.beat(t.Context())
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(done).To(gomega.BeFalse())
		lease, err := get()
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(lease.Spec.RenewTime.Time.Equal(clock.Now())).To(gomega.BeTrue())
		return lease
	}

	lease := beats()
	g.Expect(lease.Labels).To(gomega.HaveKeyWithValue(podnetv1alpha1.HeartbeatLabel, podnetv1alpha1.HeartbeatOfAgent))
	g.Expect(lease.OwnerReferences).To(gomega.ConsistOf(gomega.HaveField("UID", node.UID)), "it goes with the Node")
	g.Expect(*lease.Spec.LeaseDurationSeconds).To(gomega.BeEquivalentTo(60))
	beats()

	// Another agent of the node, which this one follows, renewed it.
	g.Expect(api.Update(t.Context(), beats())).To(gomega.Succeed())
	beats()

	// The Node came back under its name, and the garbage collector took the Lease of the former one.
	lease, _ = get()
	g.Expect(api.Delete(t.Context(), lease)).To(gomega.Succeed())
	g.Expect(api.Delete(t.Context(), node)).To(gomega.Succeed())
	node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "second"}}
	g.Expect(api.Create(t.Context(), node)).To(gomega.Succeed())
	g.Expect(beats().OwnerReferences).To(gomega.ConsistOf(gomega.HaveField("UID", node.UID)))

	removed = true
	done, err := h.beat(t.Context())
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(done).To(gomega.BeTrue())
	_, err = get()
	g.Expect(apierrors.IsNotFound(err)).To(gomega.BeTrue(), "where podnet was taken off, nobody is to wait for its agent")
}
