package dump

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// members are those of a JSON object, in their order.
type members []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (m members) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, one := range m {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(one.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(one.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		out.Write(name)
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// encode returns what encoding/json is to write of a value: names of fields begin with a small
// letter, as the API's do, what is empty is left out, and what has a text is that text.
func encode(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Invalid:
		return nil
	case reflect.Pointer, reflect.Interface:
		return encode(v.Elem())
	default:
	}
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		return text
	}
	switch v.Kind() {
	case reflect.Struct:
		return fields(v)
	case reflect.Map:
		return entries(v)
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = encode(v.Index(i))
		}
		return out
	default:
	}
	if text, ok := v.Interface().(fmt.Stringer); ok {
		return text.String()
	}
	return v.Interface()
}

func fields(v reflect.Value) members {
	out := members{}
	for _, f := range reflect.VisibleFields(v.Type()) {
		if value := v.FieldByIndex(f.Index); f.IsExported() && !f.Anonymous && !isEmpty(value) {
			out = append(out, member{nameOf(f.Name), encode(value)})
		}
	}
	return out
}

// isEmpty reports whether there is nothing to say of a value.
func isEmpty(v reflect.Value) bool {
	if k := v.Kind(); k == reflect.Slice || k == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

// entries are those of a map, sorted by their keys.
func entries(v reflect.Value) members {
	out := members{}
	for _, key := range v.MapKeys() {
		out = append(out, member{fmt.Sprint(key.Interface()), encode(v.MapIndex(key))})
	}
	slices.SortFunc(out, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return out
}

// nameOf is the name of a field: capitals that it begins with, as in CIDR and VXLANPort, are
// written small.
func nameOf(field string) string {
	if rest, ok := strings.CutPrefix(field, "IPv"); ok {
		return "ipv" + rest
	}
	capitals := strings.IndexFunc(field, func(r rune) bool { return !unicode.IsUpper(r) })
	switch {
	case capitals < 0:
		return strings.ToLower(field)
	case capitals > 1 && field[capitals:] != "s":
		// The last one begins the next word.
		capitals--
	}
	return strings.ToLower(field[:capitals]) + field[capitals:]
}
