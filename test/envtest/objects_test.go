package envtest

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/ipam"
)

// podNetwork returns the PodNetwork named default with ranges of blocks of the
// given lengths; a length of 0 leaves it to the default.
func podNetwork(ranges ...podnetv1alpha1.Range) *podnetv1alpha1.PodNetwork {
	return &podnetv1alpha1.PodNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: podnetv1alpha1.DefaultPodNetwork},
		Spec:       podnetv1alpha1.PodNetworkSpec{Ranges: ranges},
	}
}

func blockRange(cidr string, length int32) podnetv1alpha1.Range {
	return podnetv1alpha1.Range{CIDR: cidr, NodePrefixLength: length}
}

// nodeSubnet returns a NodeSubnet of a node as a user would write it by hand.
func nodeSubnet(name, cidr, node string) *podnetv1alpha1.NodeSubnet {
	return &podnetv1alpha1.NodeSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: podnetv1alpha1.NodeSubnetSpec{
			Network: podnetv1alpha1.DefaultPodNetwork, Node: node, CIDR: cidr,
		},
	}
}

// removeAll deletes every object of podnet's kinds, finalizers notwithstanding.
func removeAll(ctx context.Context) {
	networks := &podnetv1alpha1.PodNetworkList{}
	Expect(api.List(ctx, networks)).To(Succeed())
	for i := range networks.Items {
		meant := networks.Items[i].DeepCopy()
		metav1.SetMetaDataAnnotation(&meant.ObjectMeta, podnetv1alpha1.AllowDeletionAnnotation, "true")
		Expect(client.IgnoreNotFound(api.Patch(ctx, meant, client.MergeFrom(&networks.Items[i])))).To(Succeed())
	}
	for _, list := range []client.ObjectList{
		&podnetv1alpha1.PodNetworkList{}, &podnetv1alpha1.RouteModeList{}, &podnetv1alpha1.NodeNetworkList{},
	} {
		removeEach(ctx, list)
	}
	subnets := &podnetv1alpha1.NodeSubnetList{}
	Expect(api.List(ctx, subnets)).To(Succeed())
	for i := range subnets.Items {
		stripped := subnets.Items[i].DeepCopy()
		stripped.Finalizers = nil
		Expect(client.IgnoreNotFound(api.Patch(ctx, stripped, client.MergeFrom(&subnets.Items[i])))).To(Succeed())
	}
	removeEach(ctx, &podnetv1alpha1.NodeSubnetList{})
}

func removeEach(ctx context.Context, list client.ObjectList) {
	Expect(api.List(ctx, list)).To(Succeed())
	for _, object := range items(list) {
		Expect(client.IgnoreNotFound(api.Delete(ctx, object))).To(Succeed())
	}
}

// named returns the name under which a block must be created.
func named(cidr string) string {
	name, err := ipam.BlockName(mustPrefix(cidr))
	Expect(err).NotTo(HaveOccurred())
	return name
}

// beRefusedWith matches the error of a request that the API server refused as invalid
// or forbidden, with the given words.
func beRefusedWith(words string) OmegaMatcher {
	return And(
		Satisfy(func(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) }),
		MatchError(ContainSubstring(words)),
	)
}

// items returns the objects of a list.
func items(list client.ObjectList) []client.Object {
	GinkgoHelper()
	raw, err := apimeta.ExtractList(list)
	Expect(err).NotTo(HaveOccurred())
	objects := make([]client.Object, len(raw))
	for i, o := range raw {
		object, ok := o.(client.Object)
		Expect(ok).To(BeTrue())
		objects[i] = object
	}
	return objects
}
