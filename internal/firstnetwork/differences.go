package firstnetwork

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// differences says in a phrase each where the wanted spec, of which only some fields may be set, differs from the live one.
// Both are JSON.
func differences(wanted, live []byte) ([]string, error) {
	var want, have map[string]any
	if err := json.Unmarshal(wanted, &want); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(live, &have); err != nil {
		return nil, err
	}
	found := differentRanges(byCIDR(want["ranges"]), byCIDR(have["ranges"]))
	delete(want, "ranges")
	return append(found, differentFields("network.", want, have)...), nil
}

func byCIDR(ranges any) map[string]map[string]any {
	found := map[string]map[string]any{}
	list, _ := ranges.([]any)
	for _, item := range list {
		if r, ok := item.(map[string]any); ok {
			found[fmt.Sprint(r["cidr"])] = r
		}
	}
	return found
}

func differentRanges(want, have map[string]map[string]any) []string {
	var found []string
	for _, cidr := range slices.Sorted(maps.Keys(want)) {
		r, ok := have[cidr]
		if !ok {
			found = append(found, fmt.Sprintf("the values have the range %s, and the network has not", cidr))
			continue
		}
		found = append(found, differentFields("range "+cidr+": ", want[cidr], r)...)
	}
	for _, cidr := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[cidr]; !ok {
			found = append(found, fmt.Sprintf("the network has the range %s, and the values have not", cidr))
		}
	}
	return found
}

// differentFields compares the fields that are set in want. Their names follow the prefix.
func differentFields(prefix string, want, have map[string]any) []string {
	var found []string
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if inner, ok := want[key].(map[string]any); ok {
			live, _ := have[key].(map[string]any)
			found = append(found, differentFields(prefix+key+".", inner, live)...)
			continue
		}
		if w, h := text(want[key]), text(have[key]); w != h {
			found = append(found, fmt.Sprintf("%s is %s in the values, and %s in the network", prefix+key, w, h))
		}
	}
	return found
}

// text is how a value is shown; alike values have the same.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return "unset"
	case string:
		return v
	default:
		written, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(written)
	}
}
