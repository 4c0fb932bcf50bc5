package hack

import (
	"reflect"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// A version of Kubernetes that adds a field to the status of Nodes must not open it to the manager.
func TestManagerIsHeldToEveryFieldOfANodesStatus(t *testing.T) {
	manifest, _, _ := strings.Cut(read(t, "../config/admission/manager-node-status.yaml"), "\n---\n")
	var policy admissionregistrationv1.ValidatingAdmissionPolicy
	if err := yaml.Unmarshal([]byte(manifest), &policy); err != nil {
		t.Fatal(err)
	}
	compared := map[string]bool{}
	for _, v := range policy.Spec.Validations {
		for comparison := range strings.SplitSeq(v.Expression, "&&") {
			compared[strings.TrimSpace(comparison)] = true
		}
	}
	status := reflect.TypeFor[corev1.NodeStatus]()
	for i := range status.NumField() {
		name, _, _ := strings.Cut(status.Field(i).Tag.Get("json"), ",")
		want := "object.status.?" + name + " == oldObject.status.?" + name
		if name == "conditions" { // Of these one is the manager's.
			want = "variables.before == variables.after"
		}
		if !compared[want] {
			t.Errorf("nothing keeps the manager from writing status.%s of a Node: the policy lacks %q", name, want)
		}
	}
}
