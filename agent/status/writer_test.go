package status

import (
	"testing"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

func TestWriterNoticesThatItsStatusWasPutBack(t *testing.T) {
	g := gomega.NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(podnetv1alpha1.AddToScheme(scheme)).To(gomega.Succeed())
	object := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(object).WithStatusSubresource(object).Build()
	restored := 0
	w := NewWriter(Writer{
		Reader: api, Client: api, Recorder: events.NewFakeRecorder(10), Node: "a", Version: "v", Restored: func() { restored++ },
	})
	get := func() *podnetv1alpha1.NodeNetwork {
		nn := &podnetv1alpha1.NodeNetwork{}
		g.Expect(api.Get(t.Context(), client.ObjectKey{Name: "a"}, nn)).To(gomega.Succeed())
		return nn
	}

	first, err := w.write(t.Context(), Report{RollCall: "one"}, nil, true)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	backup := get()
	second, err := w.write(t.Context(), Report{RollCall: "two"}, first, true)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	_, err = w.write(t.Context(), Report{RollCall: "two"}, second, true)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(restored).To(gomega.BeZero(), "what was written is there")

	now := get()
	now.Status = backup.Status
	g.Expect(api.Status().Update(t.Context(), now)).To(gomega.Succeed())
	_, err = w.write(t.Context(), Report{RollCall: "two"}, second, false)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(restored).To(gomega.BeZero(), "nobody looked")
	_, err = w.write(t.Context(), Report{RollCall: "two"}, second, true)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(restored).To(gomega.Equal(1))
	g.Expect(get().Status.RollCall).To(gomega.Equal("two"), "it was written again")
}
