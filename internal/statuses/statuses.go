// Package statuses writes the status of podnet's objects by server-side apply, also where
// the CRDs on the API server are older than the program and know some of its fields not. What
// a status says is left to others.
package statuses

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// undeclared is in the error by which the API server refuses to apply fields that the CRD
// does not have (structured-merge-diff, typed/validate.go). It has no code of its own: it
// comes as an internal error.
const undeclared = "field not declared in schema"

// Apply applies the status of an object, forcing it upon other owners, and returns the status
// as it was applied, also where that failed.
//
// Fields that the CRD does not have are left out. The API server itself says which these
// are: of a merge patch, which it is asked to try, it drops what it does not know. The patch is not
// made, since fields that were written by one would stay when they are not applied any more.
func Apply(ctx context.Context, c client.Client, object runtime.ApplyConfiguration, owner client.FieldOwner) (map[string]any, error) {
	content, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	sent := &unstructured.Unstructured{}
	if err := sent.UnmarshalJSON(content); err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	status, _, err := unstructured.NestedMap(sent.Object, "status")
	if err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	err = c.Status().Apply(ctx, object, owner, client.ForceOwnership)
	if err == nil || !strings.Contains(err.Error(), undeclared) {
		return status, err
	}
	log.FromContext(ctx).V(1).Info("the CRD is older than this program: applying what it knows of the status", "reason", err.Error())
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return status, fmt.Errorf("encode the status: %w", err)
	}
	// Consistent reads would make an informer for objects without a type.
	const direct = client.DisableReadYourWritesConsistency
	tried := sent.DeepCopy()
	if err := c.Status().Patch(ctx, tried, client.RawPatch(types.MergePatchType, patch), owner, client.DryRunAll, direct); err != nil {
		return status, fmt.Errorf("ask which fields the CRD has: %w", err)
	}
	knows, _, err := unstructured.NestedMap(tried.Object, "status")
	if err != nil {
		return status, fmt.Errorf("read which fields the CRD has: %w", err)
	}
	status, _ = common(status, knows).(map[string]any)
	sent.Object["status"] = runtime.DeepCopyJSON(status)
	return status, c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(sent), owner, client.ForceOwnership, direct)
}

// common returns what of a value is in another one, which was made from it: fields were dropped
// and added, and lists have the same items.
func common(value, other any) any {
	switch v := value.(type) {
	case map[string]any:
		o, _ := other.(map[string]any)
		out := map[string]any{}
		for key := range v {
			if of, has := o[key]; has {
				out[key] = common(v[key], of)
			}
		}
		return out
	case []any:
		o, _ := other.([]any)
		out := []any{}
		for i := range v[:min(len(v), len(o))] {
			out = append(out, common(v[i], o[i]))
		}
		return out
	}
	return value
}
