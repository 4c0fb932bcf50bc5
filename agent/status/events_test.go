package status

import (
	"testing"
	"time"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// What comes first wherever a node starts is reported only where it lasts.
func TestWhatIsExpectedIsNoWarning(t *testing.T) {
	g := gomega.NewWithT(t)
	recorder := events.NewFakeRecorder(10)
	w := NewWriter(Writer{Recorder: recorder, Node: "a"})
	w.object = &podnetv1alpha1.NodeNetwork{}
	now := time.Unix(1_700_000_000, 0)
	report := func(status metav1.ConditionStatus, reason string) {
		w.recordChanges([]metav1.Condition{{Type: podnetv1alpha1.ConditionProgrammed, Status: status, Reason: reason, Message: "So it is."}}, now)
	}
	report(metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
	now = now.Add(30 * time.Second)
	report(metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
	report(metav1.ConditionTrue, podnetv1alpha1.ReasonProgrammed)
	g.Expect(recorder.Events).To(gomega.HaveLen(1))
	g.Expect(<-recorder.Events).To(gomega.HavePrefix("Normal Programmed"))

	report(metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
	now = now.Add(2 * time.Minute)
	report(metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
	report(metav1.ConditionFalse, podnetv1alpha1.ReasonNoBlock)
	g.Expect(recorder.Events).To(gomega.HaveLen(1), "it is told once")
	g.Expect(<-recorder.Events).To(gomega.HavePrefix("Warning NoBlock"))

	report(metav1.ConditionFalse, podnetv1alpha1.ReasonKernelError)
	g.Expect(<-recorder.Events).To(gomega.HavePrefix("Warning KernelError"), "what is not expected is reported at once")
}
