package status

import (
	"net/netip"
	"testing"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestAddressesOfBlocksThatTheNodeDoesNotHoldAreTold(t *testing.T) {
	g := gomega.NewWithT(t)
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	is := func(r Report) *metav1.Condition {
		return meta.FindStatusCondition(Build(r, nil, 1, "v").Conditions, podnetv1alpha1.ConditionAddressesServed)
	}
	r := Report{
		InForce: true,
		Plan:    model.Plan{Blocks: []model.Block{{CIDR: prefix("10.244.3.0/24"), State: model.BlockActive}}},
		Pods: []model.Pod{
			{Namespace: "blue", Name: "here", Addrs: []netip.Addr{addr("10.244.3.7")}, Blocks: []netip.Prefix{prefix("10.244.3.0/24")}},
		},
		Used: map[netip.Prefix]int64{prefix("10.244.3.0/24"): 1},
	}
	g.Expect(is(r)).To(gomega.HaveField("Status", metav1.ConditionTrue))

	r.Pods = append(r.Pods, model.Pod{
		Namespace: "blue", Name: "lost", Addrs: []netip.Addr{addr("10.244.9.7"), addr("fd00::7")},
		Blocks: []netip.Prefix{prefix("10.244.9.0/24"), prefix("fd00::/64")},
	})
	r.Used[prefix("10.244.9.0/24")], r.Used[prefix("fd00::/64")] = 1, 1
	g.Expect(is(r)).To(gomega.And(
		gomega.HaveField("Status", metav1.ConditionFalse), gomega.HaveField("Reason", podnetv1alpha1.ReasonAddressesUnserved),
		gomega.HaveField("Message", gomega.And(gomega.HavePrefix("2 addresses of pods"),
			gomega.ContainSubstring("blue/lost (10.244.9.7)"), gomega.ContainSubstring("blue/lost (fd00::7)"), gomega.Not(gomega.ContainSubstring("here"))))))

	// Deleting pods helps nobody while the node cannot serve IPv6 at all.
	withheld := r
	withheld.Plan.Withheld[1] = true
	g.Expect(is(withheld).Message).To(gomega.And(gomega.HavePrefix("1 addresses"), gomega.Not(gomega.ContainSubstring("fd00::7"))))

	// A block whose object vanished is served on.
	r.Plan.Blocks = append(r.Plan.Blocks, model.Block{CIDR: prefix("10.244.9.0/24"), Vanished: true}, model.Block{CIDR: prefix("fd00::/64"), Vanished: true})
	g.Expect(is(r)).To(gomega.HaveField("Status", metav1.ConditionTrue))

	// Without a network nothing is known of blocks, and the node stays as it is.
	r.Plan.Blocks, r.Problems = nil, []model.Problem{{Reason: model.ReasonNoNetwork, Fatal: true}}
	g.Expect(is(r)).To(gomega.BeNil())
}
