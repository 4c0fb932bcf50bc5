package controllers

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

func TestDisputesAreKnownByBlockAndToldOnce(t *testing.T) {
	g := gomega.NewWithT(t)
	subnet := func(name, cidr string) *podnetv1alpha1.NodeSubnet {
		return &podnetv1alpha1.NodeSubnet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: podnetv1alpha1.NodeSubnetSpec{CIDR: cidr}}
	}
	d := newDisputes()
	a, b := subnet("a", "10.0.1.0/24"), subnet("b", "fd00::/64")
	d.set("m", []*podnetv1alpha1.NodeSubnet{a, b})
	d.set("n", []*podnetv1alpha1.NodeSubnet{a})
	g.Expect(d.claimants("10.0.1.0/24")).To(gomega.Equal([]string{"m", "n"}))
	g.Expect(d.claimants("10.0.1.128/25")).To(gomega.Equal([]string{"m", "n"}), "a part of it")
	g.Expect(d.claimants("10.0.2.0/24")).To(gomega.BeEmpty())
	g.Expect(d.claimants("fd00::/64")).To(gomega.Equal([]string{"m"}))
	g.Expect(d.subnets).To(gomega.HaveLen(3))
	d.set("m", []*podnetv1alpha1.NodeSubnet{a})
	g.Expect(d.subnets).To(gomega.HaveLen(3), "nothing is new")
	g.Expect(d.holders).To(gomega.HaveLen(3))
	d.set("m", nil)
	g.Expect(d.claimants("10.0.1.0/24")).To(gomega.Equal([]string{"n"}))
	g.Expect(d.claimants("fd00::/64")).To(gomega.BeEmpty())
}

func TestABlockIsMadeAgainThoughTheLedgerHasNotHeardThatItIsGone(t *testing.T) {
	g := gomega.NewWithT(t)
	api := fake.NewClientBuilder().WithScheme(Scheme()).Build()
	r := &NodeReconciler{
		Client: api, Events: silent{}, Allocation: &sync.RWMutex{}, Ledger: newLedger(func(*podnetv1alpha1.NodeSubnet) {}),
	}
	r.Ledger.add("10.0.1.0-24", "10.0.1.0/24")
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u"}}
	g.Expect(r.reclaim(t.Context(), node, &podnetv1alpha1.PodNetwork{}, netip.MustParsePrefix("10.0.1.0/24"))).To(gomega.Succeed())
	made := &podnetv1alpha1.NodeSubnet{}
	g.Expect(api.Get(t.Context(), client.ObjectKey{Name: "10.0.1.0-24"}, made)).To(gomega.Succeed())
	g.Expect(made.Spec.Node).To(gomega.Equal("n"))
	// What another object really takes is not taken from it.
	g.Expect(r.reclaim(t.Context(), node, &podnetv1alpha1.PodNetwork{}, netip.MustParsePrefix("10.0.1.128/25"))).To(gomega.Succeed())
	g.Expect(api.Get(t.Context(), client.ObjectKey{Name: "10.0.1.128-25"}, made)).NotTo(gomega.Succeed())
}
