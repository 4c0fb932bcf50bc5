package hack

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// schema is what a CRD's schema and that of the chart's values have in common.
type schema struct {
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
}

// fields are the paths of all fields, in any order. Those of a list's items have the list's path before theirs; labels, whose
// names are the user's, have none below them.
func (s schema) fields(prefix string) []string {
	var found []string
	for name, property := range s.Properties {
		found = append(found, prefix+name)
		found = append(found, property.fields(prefix+name+".")...)
	}
	if s.Items != nil {
		found = append(found, s.Items.fields(prefix)...)
	}
	return found
}

// specFields are those of a PodNetwork's spec.
func specFields(t *testing.T) []string {
	t.Helper()
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../config/crd/bases/podnet.dev_podnetworks.yaml")), &crd); err != nil {
		t.Fatal(err)
	}
	found := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].fields("")
	if len(found) < 20 {
		t.Fatalf("the CRD has only the fields %q: they are looked for in the wrong place", found)
	}
	return found
}

func TestSampleOfAllFieldsHasEveryField(t *testing.T) {
	var sample struct {
		Spec any `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../config/samples/podnetwork_all_fields.yaml")), &sample); err != nil {
		t.Fatal(err)
	}
	for _, field := range specFields(t) {
		if !has(sample.Spec, strings.Split(field, ".")) {
			t.Errorf("config/samples/podnetwork_all_fields.yaml lacks %s", field)
		}
	}
}

// has looks into every item of a list.
func has(value any, path []string) bool {
	if list, ok := value.([]any); ok && len(path) > 0 {
		for _, item := range list {
			if has(item, path) {
				return true
			}
		}
		return false
	}
	if len(path) == 0 {
		return true
	}
	object, ok := value.(map[string]any)
	if !ok {
		return false
	}
	inner, ok := object[path[0]]
	return ok && has(inner, path[1:])
}

func TestValuesHaveEveryFieldOfAPodNetwork(t *testing.T) {
	var values schema
	if err := json.Unmarshal([]byte(read(t, "../charts/podnet/values.schema.json")), &values); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, field := range values.Properties["network"].fields("") {
		have[field] = true
	}
	for _, field := range specFields(t) {
		if !have[field] {
			t.Errorf("values.schema.json has no network.%s", field)
		}
	}
}
