// Package policyapi turns the API's policies into values, and says what of them podnet
// cannot enforce as they stand. Agents enforce the values; the manager tells users what
// is said of them. What follows from the values is left to internal/policy.
package policyapi

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podnet/podnet/internal/model"
)

// Selector turns a label selector into a value. It fails where the selector is not
// valid: the schemas of objects check no operators.
func Selector(s *metav1.LabelSelector) (model.Selector, error) {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return nil, err
	}
	var out model.Selector
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		out = append(out, model.Requirement{Key: k, Operator: model.In, Values: []string{s.MatchLabels[k]}})
	}
	for _, e := range s.MatchExpressions {
		out = append(out, model.Requirement{Key: e.Key, Operator: model.Operator(e.Operator), Values: e.Values})
	}
	return out, nil
}

// nobody selects nothing: no label is there and absent.
var nobody = model.Selector{{Key: "podnet.dev/nobody", Operator: model.Exists}, {Key: "podnet.dev/nobody", Operator: model.DoesNotExist}}

// parseBlock reads a CIDR as the API server does, which lets numbers have leading
// zeros in objects that are old.
func parseBlock(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err == nil {
		return p, nil
	}
	addr, bits, ok := strings.Cut(text, "/")
	if !ok || strings.Contains(addr, ":") {
		return p, err
	}
	var numbers []string
	for number := range strings.SplitSeq(addr, ".") {
		trimmed := strings.TrimLeft(number, "0")
		if trimmed == "" {
			trimmed = "0"
		}
		numbers = append(numbers, trimmed)
	}
	if sloppy, again := netip.ParsePrefix(strings.Join(numbers, ".") + "/" + bits); again == nil {
		return sloppy, nil
	}
	return p, err
}
