package controllers

import (
	"testing"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
