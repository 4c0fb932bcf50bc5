// Package messages keeps what users read as short as the API wants it. What a message says is
// left to others.
package messages

import (
	"fmt"
	"slices"
	"strings"
)

// How long texts may be, in bytes: the message of a condition, and the note of an Event.
const (
	Condition = 32768
	Note      = 1024
)

// Named is how many nodes or NodeSubnets a message names before it counts the rest.
const Named = 5

// Some names the first few, sorted, and counts the rest. It sorts the names in place.
func Some(names []string) string {
	slices.Sort(names)
	if len(names) <= Named {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:Named], ", "), len(names)-Named)
}

// Clip cuts a text to at most so many bytes.
func Clip(most int, text string) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}
