package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	podnetv1alpha1ac "github.com/podnet/podnet/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/podnet/podnet/internal/statuses"
)

// A cluster is upgraded piece by piece: agents and the manager run with CRDs that are a
// version older or newer than they are.
var _ = Describe("Programs and CRDs of different versions", Serial, func() {
	const owner = client.FieldOwner("podnet-agent")

	BeforeEach(cleanAfterwards)

	for kind, plural := range map[string]string{"NodeNetwork": "nodenetworks", "PodNetwork": "podnetworks", "RouteMode": "routemodes"} {
		It("write what an older CRD knows of the status of a "+kind, func(ctx context.Context) {
			makeObject(ctx, kind)
			condition := func(message string) map[string]any {
				return map[string]any{
					"type": "Accepted", "status": "True", "reason": "Accepted", "message": message,
					"lastTransitionTime": time.Now().UTC().Format(time.RFC3339), "newer": "field of a condition",
				}
			}
			apply := func(status map[string]any) map[string]any {
				GinkgoHelper()
				written, err := statuses.Apply(ctx, api, client.ApplyConfigurationFromUnstructured(objectOf(kind, status)), owner)
				Expect(err).NotTo(HaveOccurred())
				return written
			}

			By("being refused without that")
			newer := map[string]any{"newer": "field", "conditions": []any{condition("one")}}
			Expect(api.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(objectOf(kind, newer)), owner, client.ForceOwnership)).
				To(MatchError(ContainSubstring("field not declared in schema")))

			By("leaving out what it does not know, in lists too")
			written := apply(newer)
			Expect(written).NotTo(HaveKey("newer"))
			has := readStatus(ctx, kind)
			Expect(has).To(Equal(written))
			Expect(has["conditions"]).To(ConsistOf(And(HaveKeyWithValue("message", "one"), Not(HaveKey("newer")))))

			By("taking away what is not said any more, as the fields have no other owner")
			apply(map[string]any{"newer": "field", "conditions": []any{}})
			Expect(readStatus(ctx, kind)).To(Or(BeNil(), HaveKeyWithValue("conditions", BeEmpty()), Not(HaveKey("conditions"))))
		})

		It("write the status of a "+kind+" of which the CRD knows more", func(ctx context.Context) {
			makeObject(ctx, kind)
			withNewerField(ctx, plural+".podnet.dev")
			condition := metav1ac.Condition().WithType("Accepted").WithStatus(metav1.ConditionTrue).WithReason("Accepted").
				WithMessage("Written by a test.").WithLastTransitionTime(metav1.Now())
			var object runtime.ApplyConfiguration
			switch kind {
			case "NodeNetwork":
				object = podnetv1alpha1ac.NodeNetwork("default").WithStatus(podnetv1alpha1ac.NodeNetworkStatus().WithConditions(condition))
			case "PodNetwork":
				object = podnetv1alpha1ac.PodNetwork("default").WithStatus(podnetv1alpha1ac.PodNetworkStatus().WithConditions(condition))
			case "RouteMode":
				object = podnetv1alpha1ac.RouteMode("default").WithStatus(podnetv1alpha1ac.RouteModeStatus().WithConditions(condition))
			}
			_, err := statuses.Apply(ctx, api, object, owner)
			Expect(err).NotTo(HaveOccurred())
			Expect(readStatus(ctx, kind)["conditions"]).To(HaveLen(1))
		})
	}
})

// makeObject makes an object of a kind that is named default.
func makeObject(ctx context.Context, kind string) {
	GinkgoHelper()
	var object client.Object
	switch kind {
	case "NodeNetwork":
		object = &podnetv1alpha1.NodeNetwork{}
	case "PodNetwork":
		object = podNetwork(blockRange("10.244.0.0/16", 24))
	case "RouteMode":
		object = &podnetv1alpha1.RouteMode{Spec: podnetv1alpha1.RouteModeSpec{
			Mode: podnetv1alpha1.ModeOverlay, Between: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}},
		}}
	}
	object.SetName("default")
	Expect(api.Create(ctx, object)).To(Succeed())
	DeferCleanup(func(ctx context.Context) { Expect(client.IgnoreNotFound(api.Delete(ctx, object))).To(Succeed()) })
}

func objectOf(kind string, status map[string]any) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	object.SetGroupVersionKind(podnetv1alpha1.GroupVersion.WithKind(kind))
	object.SetName("default")
	return object
}

func readStatus(ctx context.Context, kind string) map[string]any {
	GinkgoHelper()
	object := objectOf(kind, nil)
	Expect(api.Get(ctx, client.ObjectKey{Name: "default"}, object)).To(Succeed())
	status, _, err := unstructured.NestedMap(object.Object, "status")
	Expect(err).NotTo(HaveOccurred())
	return status
}

// withNewerField gives the status of a kind a field more, as a newer version may, until the
// spec ends.
func withNewerField(ctx context.Context, name string) {
	GinkgoHelper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	crd.SetName(name)
	const field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/newer"
	change := func(ctx context.Context, patch string) {
		GinkgoHelper()
		Expect(api.Patch(ctx, crd, client.RawPatch(types.JSONPatchType, []byte(patch)))).To(Succeed())
	}
	change(ctx, `[{"op": "add", "path": "`+field+`", "value": {"type": "string"}}]`)
	DeferCleanup(func(ctx context.Context) { change(ctx, `[{"op": "remove", "path": "`+field+`"}]`) })
}
