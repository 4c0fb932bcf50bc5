package status

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

func TestWriterNoticesThatItsStatusWasPutBack(t *testing.T) {
	g := gomega.NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(podnetv1alpha1.AddToScheme(scheme)).To(gomega.Succeed())
	object := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	refuse, answerless := false, false
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(object).WithStatusSubresource(object).
		WithInterceptorFuncs(interceptor.Funcs{SubResourceApply: func(
			ctx context.Context, c client.Client, sub string, o runtime.ApplyConfiguration, options ...client.SubResourceApplyOption,
		) error {
			if refuse {
				return errors.New("too many requests")
			}
			err := c.SubResource(sub).Apply(ctx, o, options...)
			if answerless {
				return errors.New("no answer")
			}
			return err
		}}).Build()
	restored := 0
	w := NewWriter(Writer{
		Reader: api, Client: api, Recorder: events.NewFakeRecorder(10), Node: "a", Version: "v", Restored: func() { restored++ },
	})
	get := func() *podnetv1alpha1.NodeNetwork {
		nn := &podnetv1alpha1.NodeNetwork{}
		g.Expect(api.Get(t.Context(), client.ObjectKey{Name: "a"}, nn)).To(gomega.Succeed())
		return nn
	}

	write := func(report Report, read bool) {
		t.Helper()
		g.Expect(w.write(t.Context(), report, read)).To(gomega.Succeed())
	}
	putBack := func(status podnetv1alpha1.NodeNetworkStatus) {
		t.Helper()
		now := get()
		now.Status = status
		g.Expect(api.Status().Update(t.Context(), now)).To(gomega.Succeed())
	}

	write(Report{RollCall: "one"}, true)
	backup := get().Status
	write(Report{RollCall: "two"}, true)
	write(Report{RollCall: "two"}, true)
	g.Expect(restored).To(gomega.BeZero(), "what was written is there")

	marked := *get().Status.DeepCopy()
	for i := range marked.Conditions {
		if marked.Conditions[i].Type == podnetv1alpha1.ConditionProgrammed {
			marked.Conditions[i].Status, marked.Conditions[i].Reason = metav1.ConditionUnknown, podnetv1alpha1.ReasonAgentNotResponding
		}
	}
	marked.Summary.Problem, marked.Summary.Message = podnetv1alpha1.ReasonAgentNotResponding, "Gone."
	putBack(marked)
	write(Report{RollCall: "two"}, true)
	g.Expect(restored).To(gomega.BeZero(), "the manager said that the agent did not respond")
	g.Expect(get().Status.Summary.Message).NotTo(gomega.Equal("Gone."), "it was overwritten")

	putBack(backup)
	write(Report{RollCall: "two"}, false)
	g.Expect(restored).To(gomega.BeZero(), "nobody looked")
	write(Report{RollCall: "two"}, true)
	g.Expect(restored).To(gomega.Equal(1))
	g.Expect(get().Status.RollCall).To(gomega.Equal("two"), "it was written again")

	putBack(backup)
	refuse = true
	for range 3 {
		g.Expect(w.write(t.Context(), Report{RollCall: "two"}, true)).NotTo(gomega.Succeed())
	}
	g.Expect(restored).To(gomega.Equal(2), "it is told once, however often the write fails")

	refuse, answerless = false, true
	g.Expect(w.write(t.Context(), Report{RollCall: "three"}, true)).NotTo(gomega.Succeed())
	answerless = false
	write(Report{RollCall: "three"}, true)
	g.Expect(get().Status.RollCall).To(gomega.Equal("three"))
	g.Expect(restored).To(gomega.Equal(2), "a write whose answer was lost is no restore")
}

func TestReportNeverBlocks(*testing.T) {
	w := NewWriter(Writer{})
	for range 3 {
		w.Report(Report{})
		w.again(Report{})
	}
}

// All nodes see at once that one fails: in a large cluster they do not all report it at once.
func TestOtherPathsAreWrittenLessOften(t *testing.T) {
	g := gomega.NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(podnetv1alpha1.AddToScheme(scheme)).To(gomega.Succeed())
	object := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(object).WithStatusSubresource(object).Build()
	w := NewWriter(Writer{Reader: api, Client: api, Recorder: events.NewFakeRecorder(10), Node: "a", Version: "v"})
	down := func() int32 {
		g.Expect(api.Get(t.Context(), client.ObjectKey{Name: "a"}, object)).To(gomega.Succeed())
		return *object.Status.Paths.Down
	}
	report := func(paths int, last model.Path) Report {
		choices := make([]model.PathChoice, paths)
		for i := range choices {
			choices[i].Path = model.PathOverlay
		}
		choices[paths-1].Path = last
		return Report{Plan: model.Plan{Paths: choices}}
	}
	for paths, want := range map[int]int32{1: 1, 20_000: 0} {
		g.Expect(w.write(t.Context(), report(paths, model.PathOverlay), true)).To(gomega.Succeed())
		w.written = time.Now().Add(-pathsInterval)
		g.Expect(w.write(t.Context(), report(paths, model.PathDown), false)).To(gomega.Succeed())
		g.Expect(down()).To(gomega.Equal(want), "of %d", paths)
	}
	r := report(20_000, model.PathDown)
	r.Waiting = [2]int64{1, 0}
	g.Expect(w.write(t.Context(), r, false)).To(gomega.Succeed())
	g.Expect(down()).To(gomega.BeEquivalentTo(1), "what else is new does not wait")
}
