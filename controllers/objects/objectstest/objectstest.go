// Package objectstest makes the objects of a small cluster for tests.
package objectstest

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/controllers/objects"
)

// Answering is a node that is ready, and the report of its agent, which has
// answered a roll call and names blocks.
func Answering(name, rollCall string, blocks ...podnetv1alpha1.BlockStatus) []client.Object {
	return []client.Object{
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-of-" + name)},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		},
		&podnetv1alpha1.NodeNetwork{
			ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID("uid-of-" + name)}}},
			Status: podnetv1alpha1.NodeNetworkStatus{RollCall: rollCall, Blocks: blocks},
		},
	}
}

// Subnet is a NodeSubnet of a block of /24, in no state.
func Subnet(cidr, node string) *podnetv1alpha1.NodeSubnet {
	return &podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: cidr[:len(cidr)-3] + "-24"},
		Spec:       podnetv1alpha1.NodeSubnetSpec{Network: podnetv1alpha1.DefaultPodNetwork, Node: node, CIDR: cidr},
	}
}

// Held is a block of /24 that a node holds.
func Held(cidr, node string) *podnetv1alpha1.NodeSubnet {
	s := Subnet(cidr, node)
	s.Spec.NodeUID, s.Spec.State = types.UID("uid-of-"+node), podnetv1alpha1.SubnetActive
	return s
}

// Client reads and writes these objects, and the served PodNetwork, which gives blocks of /24 of
// 10.244.0.0/16 unless it is among them.
func Client(of ...client.Object) client.Client {
	network := &podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec:       podnetv1alpha1.PodNetworkSpec{Ranges: []podnetv1alpha1.Range{{CIDR: "10.244.0.0/16", NodePrefixLength: 24}}},
	}
	if !slices.ContainsFunc(of, func(o client.Object) bool { return o.GetName() == network.Name }) {
		of = append(of, network)
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(podnetv1alpha1.AddToScheme(scheme))
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(of...).
		WithIndex(&podnetv1alpha1.NodeSubnet{}, objects.NodeField, func(o client.Object) []string {
			return []string{o.(*podnetv1alpha1.NodeSubnet).Spec.Node}
		}).Build()
}
