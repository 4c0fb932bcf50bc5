package controllers

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/allocation"
	"github.com/podnet/podnet/controllers/objects/objectstest"
)

// summing is a reconciler of a cluster whose agents have all answered the roll call.
func summing(t *testing.T, objects ...client.Object) *PodNetworkReconciler {
	t.Helper()
	c := objectstest.Client(objects...)
	r := &PodNetworkReconciler{Client: c, Clock: clock.RealClock{}, Allocator: allocation.New(allocation.Config{Client: c, Clock: clock.RealClock{}})}
	for _, o := range objects {
		if report, is := o.(*podnetv1alpha1.NodeNetwork); is {
			report.Status.RollCall = r.Allocator.RollCall()
			if err := c.Update(t.Context(), report); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// An agent that lies, or whose pods use what is another's, must not fill others' blocks.
func TestAgentSaysNothingOfBlocksOfOthers(t *testing.T) {
	says := func(cidr string, n int64) podnetv1alpha1.BlockStatus {
		return podnetv1alpha1.BlockStatus{CIDR: cidr, State: podnetv1alpha1.SubnetActive, AddressesUsed: ptr.To(n)}
	}
	held := []*podnetv1alpha1.NodeSubnet{objectstest.Subnet("10.244.0.0/24", "a"), objectstest.Subnet("10.244.1.0/24", "b")}
	objects := slices.Concat(
		objectstest.Answering("a", "", says("10.244.0.0/24", 3)),
		objectstest.Answering("b", "", says("10.244.1.0/24", 5), says("10.244.0.0/24", 200)),
	)
	for _, s := range held {
		s.Spec.State = podnetv1alpha1.SubnetActive
		objects = append(objects, s)
	}
	r := summing(t, objects...)
	_, v, err := r.look(t.Context(), podnetv1alpha1.DefaultPodNetwork)
	if err != nil {
		t.Fatal(err)
	}
	v.Ranges[0].Draining = true
	is := v.rangeStatus(v.Ranges[0])
	if *is.BlocksAllocated != 2 || *is.AddressesAllocated != 8 {
		t.Errorf("%d blocks and %d addresses are allocated, and 2 and 8 should be", *is.BlocksAllocated, *is.AddressesAllocated)
	}
	remain := map[string]int64{}
	for _, n := range is.Remaining {
		remain[n.Node] = *n.Pods
	}
	if remain["a"] != 3 || remain["b"] != 5 {
		t.Errorf("the pods that remain are %v, and a should have 3 and b 5", remain)
	}
}

// A block counts as allocated while its node is still to get it back, and only then: an answer
// that nobody will ever deal with would keep it from being free for ever.
func TestBlockThatNobodyWillGetBackIsFree(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(*corev1.Node)
		allocated int64
	}{
		"its node gets it back":         {func(*corev1.Node) {}, 1},
		"podnet does not serve Windows": {func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelOSStable: "windows"} }, 0},
		"the report is a former node's": {func(n *corev1.Node) { n.UID = "another" }, 0},
		"the node is being deleted": {func(n *corev1.Node) {
			n.DeletionTimestamp, n.Finalizers = ptr.To(metav1.Now()), []string{"example.com/waits"}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			objects := objectstest.Answering("node", "", podnetv1alpha1.BlockStatus{
				CIDR: "10.244.3.0/24", State: podnetv1alpha1.SubnetActive, AddressesUsed: ptr.To[int64](1),
			})
			c.change(objects[0].(*corev1.Node))
			r := summing(t, objects...)
			_, v, err := r.look(t.Context(), podnetv1alpha1.DefaultPodNetwork)
			if err != nil {
				t.Fatal(err)
			}
			if n := *v.rangeStatus(v.Ranges[0]).BlocksAllocated; n != c.allocated {
				t.Errorf("%d blocks are allocated, and %d should be", n, c.allocated)
			}
		})
	}
}
