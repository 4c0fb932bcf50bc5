package controllers

import (
	"slices"
	"sync"
	"testing"

	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// An agent that lies, or whose pods use what is another's, must not fill others' blocks.
func TestAgentSaysNothingOfBlocksOfOthers(t *testing.T) {
	call := &RollCall{Clock: clock.RealClock{}}
	says := func(cidr string, n int64) podnetv1alpha1.BlockStatus {
		return podnetv1alpha1.BlockStatus{CIDR: cidr, State: podnetv1alpha1.SubnetActive, AddressesUsed: ptr.To(n)}
	}
	held := []*podnetv1alpha1.NodeSubnet{heldBlock("10.244.0.0/24", "a"), heldBlock("10.244.1.0/24", "b")}
	objects := slices.Concat(
		answering("a", call.ID(), says("10.244.0.0/24", 3)),
		answering("b", call.ID(), says("10.244.1.0/24", 5), says("10.244.0.0/24", 200)),
	)
	for _, s := range held {
		s.Spec.State = podnetv1alpha1.SubnetActive
		objects = append(objects, s)
	}
	r := &PodNetworkReconciler{Client: reader(t, objects...), Allocation: &sync.RWMutex{}, RollCall: call, Clock: clock.RealClock{}}
	_, v, err := r.look(t.Context(), podnetv1alpha1.DefaultPodNetwork)
	if err != nil {
		t.Fatal(err)
	}
	v.ranges[0].draining = true
	is := v.rangeStatus(v.ranges[0])
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
