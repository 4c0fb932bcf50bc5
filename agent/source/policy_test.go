package source

import (
	"net/netip"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/podnet/podnet/internal/convert"
	"github.com/podnet/podnet/internal/model"
)

// fullPod is a pod with more than policy goes by.
func fullPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "red", Name: "p", UID: "1", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"long": "text"},
			DeletionTimestamp: ptr.To(metav1.NewTime(time.Unix(1_700_000_000, 0))), ResourceVersion: "7",
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
		},
		Spec: corev1.PodSpec{
			NodeName:       "n",
			Containers:     []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {ContainerPort: 9}}}},
			InitContainers: []corev1.Container{{Name: "sidecar", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.2", PodIPs: []corev1.PodIP{{IP: "10.244.1.2"}, {IP: "fd44::2"}}},
	}
}

func TestStrippedPodKeepsWhatPolicyGoesBy(t *testing.T) {
	g := gomega.NewWithT(t)
	stripped, err := stripPod(fullPod())
	g.Expect(err).NotTo(gomega.HaveOccurred())
	p := stripped.(*corev1.Pod)
	g.Expect(p.ManagedFields).To(gomega.BeNil())
	g.Expect(p.Annotations).To(gomega.BeNil())
	g.Expect(p.ResourceVersion).To(gomega.Equal("7"))
	g.Expect(convert.Pod(p)).To(gomega.Equal(model.ClusterPod{
		Namespace: "red", Name: "p", UID: "1", Labels: map[string]string{"app": "a"}, Node: "n", Terminating: true,
		Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd44::2")},
		Ports: []model.NamedPort{{Name: "web", Protocol: "TCP", Port: 8080}, {Name: "metrics", Port: 9090}},
	}))
	gone := toolscache.DeletedFinalStateUnknown{Key: "red/p"}
	g.Expect(stripPod(gone)).To(gomega.Equal(gone))
}

// The runtime knows a static pod by its own UID, and the API by that of its mirror.
func TestStaticPodHasTheUIDThatTheRuntimeKnows(t *testing.T) {
	g := gomega.NewWithT(t)
	p := fullPod()
	p.Annotations[convert.MirrorHash] = "hash"
	stripped, err := stripPod(p)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(convert.Pod(stripped.(*corev1.Pod)).UID).To(gomega.Equal("hash"))
}

func TestPodsThatChangeNothingForPolicyAreNotTold(t *testing.T) {
	g := gomega.NewWithT(t)
	told := 0
	keeps := &pods{byID: map[types.NamespacedName]model.ClusterPod{}}
	h := keeps.handler(func() { told++ })
	h.OnAdd(fullPod(), true)
	g.Expect(told).To(gomega.Equal(1))
	later := fullPod()
	later.ResourceVersion, later.Status.Phase, later.Annotations = "8", corev1.PodPending, nil
	h.OnUpdate(fullPod(), later)
	g.Expect(told).To(gomega.Equal(1))
	later.Labels = map[string]string{"app": "b"}
	h.OnUpdate(fullPod(), later)
	g.Expect(told).To(gomega.Equal(2))
	staying := fullPod()
	staying.Labels, staying.DeletionTimestamp = later.Labels, nil
	h.OnUpdate(later, staying)
	g.Expect(told).To(gomega.Equal(3), "that a pod is being deleted decides whose its address is")
	g.Expect(keeps.list()).To(gomega.HaveLen(1))
	h.OnDelete(toolscache.DeletedFinalStateUnknown{Obj: staying})
	g.Expect(told).To(gomega.Equal(4))
	g.Expect(keeps.list()).To(gomega.BeEmpty())
}
