package controllers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// beating is a cluster whose agents renew Leases or do not.
type beating struct {
	*gomega.WithT
	t     *testing.T
	api   client.Client
	clock *clocktesting.FakeClock
	looks *Heartbeats
	// away says that the API server cannot be reached.
	away bool
	said *events.FakeRecorder
}

func newBeating(t *testing.T, nodes ...string) *beating {
	b := &beating{WithT: gomega.NewWithT(t), t: t, clock: clocktesting.NewFakeClock(time.Unix(1_700_000_000, 0)), said: events.NewFakeRecorder(20)}
	builder := fake.NewClientBuilder().WithScheme(Scheme()).WithStatusSubresource(&podnetv1alpha1.NodeNetwork{})
	for _, name := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "of-node"}}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		report := &podnetv1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID, Controller: ptr.To(true)},
		}}}
		for _, kind := range []string{podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionPathsProven, podnetv1alpha1.ConditionHostUnobstructed} {
			apimeta.SetStatusCondition(&report.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: kind, Message: "By the agent."})
		}
		report.Status.Summary.Message, report.Status.Endpoints = "By the agent.", []string{"192.0.2.1"}
		builder = builder.WithObjects(node, report)
	}
	b.api = builder.WithInterceptorFuncs(interceptor.Funcs{Get: func(
		ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption,
	) error {
		if b.away {
			return errors.New("the API server is away")
		}
		return c.Get(ctx, key, o, options...)
	}}).Build()
	b.looks = &Heartbeats{Client: b.api, Live: b.api, Events: b.said, Clock: b.clock, Namespace: "podnet-system"}
	return b
}

// beat renews the Leases of nodes.
func (b *beating) beat(nodes ...string) {
	for _, name := range nodes {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: name}}
		b.Expect(client.IgnoreNotFound(b.api.Get(b.t.Context(), client.ObjectKeyFromObject(lease), lease))).To(gomega.Succeed())
		lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(b.clock.Now()))
		if lease.ResourceVersion == "" {
			b.Expect(b.api.Create(b.t.Context(), lease)).To(gomega.Succeed())
		} else {
			b.Expect(b.api.Update(b.t.Context(), lease)).To(gomega.Succeed())
		}
	}
}

// pass lets time pass, in which these nodes renew their Leases.
func (b *beating) pass(d time.Duration, nodes ...string) {
	for end := b.clock.Now().Add(d); b.clock.Now().Before(end); {
		b.clock.Step(heartbeatsInterval)
		if b.away {
			b.Expect(b.looks.look(b.t.Context())).NotTo(gomega.Succeed())
			continue
		}
		b.beat(nodes...)
		b.Expect(b.looks.look(b.t.Context())).To(gomega.Succeed())
	}
}

func (b *beating) report(node string) *podnetv1alpha1.NodeNetwork {
	report := &podnetv1alpha1.NodeNetwork{}
	b.Expect(b.api.Get(b.t.Context(), client.ObjectKey{Name: node}, report)).To(gomega.Succeed())
	return report
}

func (b *beating) silent(nodes ...string) []string {
	var out []string
	for _, name := range nodes {
		if !responds(b.report(name)) {
			out = append(out, name)
		}
	}
	return out
}

func TestAgentThatStopsRenewingItsLeaseIsUnknown(t *testing.T) {
	b := newBeating(t, "a", "b")
	b.pass(5*time.Minute, "a", "b")
	b.Expect(b.silent("a", "b")).To(gomega.BeEmpty())
	last := b.clock.Now().UTC().Format(time.RFC3339)
	b.pass(podnetv1alpha1.HeartbeatPatience, "a")
	b.Expect(b.silent("a", "b")).To(gomega.BeEmpty(), "it may just be restarted")
	b.pass(heartbeatsInterval, "a")
	b.Expect(b.silent("a", "b")).To(gomega.ConsistOf("b"))

	status := b.report("b").Status
	for _, kind := range []string{podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionPathsProven} {
		c := apimeta.FindStatusCondition(status.Conditions, kind)
		b.Expect(c.Status).To(gomega.Equal(metav1.ConditionUnknown))
		b.Expect(c.Reason).To(gomega.Equal(podnetv1alpha1.ReasonAgentNotResponding))
		b.Expect(c.Message).To(gomega.And(gomega.ContainSubstring("since "+last), gomega.ContainSubstring("kubectl -n podnet-system get pods")))
		b.Expect(c.LastTransitionTime.Time.Equal(b.clock.Now())).To(gomega.BeTrue())
	}
	b.Expect(apimeta.IsStatusConditionTrue(status.Conditions, podnetv1alpha1.ConditionHostUnobstructed)).To(gomega.BeTrue(), "what it found is still there")
	b.Expect(status.Endpoints).To(gomega.ConsistOf("192.0.2.1"), "all else is as the agent wrote it")
	b.Expect(status.Summary.Problem).To(gomega.Equal(podnetv1alpha1.ReasonAgentNotResponding))
	b.Expect(status.Summary.Message).To(gomega.HavePrefix("The agent of this node has not responded"))
	b.pass(5*time.Minute, "a")
	b.Expect(b.said.Events).To(gomega.HaveLen(1), "it is reported once")
	b.Expect(carriesPods(b.report("b"))).To(gomega.BeFalse())
}

func TestOutageOfTheAPIServerMakesNoAgentUnknown(t *testing.T) {
	b := newBeating(t, "a", "b")
	b.pass(time.Minute, "a", "b")
	b.away = true
	b.pass(10 * time.Minute)
	b.away = false
	b.pass(podnetv1alpha1.HeartbeatPatience)
	b.Expect(b.silent("a", "b")).To(gomega.BeEmpty(), "they have not had the time to renew their Leases")
	// Nor does the time in which the manager itself did not run.
	b.clock.Step(10 * time.Minute)
	b.pass(heartbeatsInterval)
	b.Expect(b.silent("a", "b")).To(gomega.BeEmpty())
	b.pass(2*podnetv1alpha1.HeartbeatPatience, "b")
	b.Expect(b.silent("a", "b")).To(gomega.ConsistOf("a"))
}

func TestAgentWithoutLeaseGoesByItsKubelet(t *testing.T) {
	b := newBeating(t, "a")
	b.pass(5 * time.Minute)
	b.Expect(b.silent("a")).To(gomega.BeEmpty(), "an agent of the version before has no Lease")
	node := &corev1.Node{}
	b.Expect(b.api.Get(b.t.Context(), client.ObjectKey{Name: "a"}, node)).To(gomega.Succeed())
	node.Status.Conditions[0].Status = corev1.ConditionUnknown
	b.Expect(b.api.Status().Update(b.t.Context(), node)).To(gomega.Succeed())
	b.pass(heartbeatsInterval)
	b.Expect(b.silent("a")).To(gomega.ConsistOf("a"))
	b.Expect(b.report("a").Status.Summary.Message).To(gomega.ContainSubstring("the node is down or cut off"))
}

// write writes the status of a node as its agent does.
func (b *beating) write(node string) {
	report := b.report(node)
	for _, kind := range []string{podnetv1alpha1.ConditionProgrammed, podnetv1alpha1.ConditionPathsProven} {
		apimeta.SetStatusCondition(&report.Status.Conditions, metav1.Condition{
			Type: kind, Status: metav1.ConditionTrue, Reason: kind, Message: "Written at " + b.clock.Now().String(),
		})
	}
	b.Expect(b.api.Status().Update(b.t.Context(), report)).To(gomega.Succeed())
}

// The agent was taken back to a version without Leases, or may not renew its own.
func TestAgentThatWritesLivesThoughItsLeaseIsOld(t *testing.T) {
	b := newBeating(t, "a", "b")
	b.pass(time.Minute, "a", "b")
	b.pass(podnetv1alpha1.HeartbeatPatience)
	b.write("a")
	b.pass(heartbeatsInterval)
	b.Expect(b.silent("a", "b")).To(gomega.ConsistOf("b"), "a has just written")
	// b's agent takes back what the manager said of it.
	b.write("b")
	b.pass(30 * time.Minute)
	b.Expect(b.silent("a", "b")).To(gomega.BeEmpty(), "they live, and their Leases do not say so")
	b.Expect(b.said.Events).To(gomega.HaveLen(1))

	// Once renewed, a Lease says again whether its agent lives.
	b.pass(heartbeatsInterval, "a", "b")
	b.pass(podnetv1alpha1.HeartbeatPatience+heartbeatsInterval, "b")
	b.Expect(b.silent("a", "b")).To(gomega.ConsistOf("a"))
	b.pass(30*time.Minute, "b")
	b.Expect(b.silent("a", "b")).To(gomega.ConsistOf("a"), "the manager's own mark is no sign of life")
}

func TestWriteCountsAsLongAsARenewal(t *testing.T) {
	b := newBeating(t, "a")
	b.pass(time.Minute, "a")
	b.pass(podnetv1alpha1.HeartbeatPatience / 2)
	b.write("a")
	b.pass(heartbeatsInterval)
	last := b.clock.Now().UTC().Format(time.RFC3339)
	b.pass(podnetv1alpha1.HeartbeatPatience)
	b.Expect(b.silent("a")).To(gomega.BeEmpty())
	b.pass(heartbeatsInterval)
	b.Expect(b.silent("a")).To(gomega.ConsistOf("a"))
	b.Expect(b.report("a").Status.Summary.Message).To(gomega.ContainSubstring("since " + last))
}

// The cache may lag: what the API server says of the Lease counts.
func TestRenewalThatTheCacheHasNotSeenCounts(t *testing.T) {
	b := newBeating(t, "a")
	b.pass(time.Minute, "a")
	stale := &coordinationv1.LeaseList{}
	b.Expect(b.api.List(b.t.Context(), stale)).To(gomega.Succeed())
	b.looks.Client = interceptor.NewClient(b.api.(client.WithWatch), interceptor.Funcs{List: func(
		ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption,
	) error {
		if leases, ok := list.(*coordinationv1.LeaseList); ok {
			stale.DeepCopyInto(leases)
			return nil
		}
		return c.List(ctx, list, options...)
	}})
	b.pass(10*time.Minute, "a")
	b.Expect(b.silent("a")).To(gomega.BeEmpty())
}
