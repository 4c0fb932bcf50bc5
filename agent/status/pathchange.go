package status

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// PathChange says that another path to a block was taken.
type PathChange struct {
	Node     string
	Block    netip.Prefix
	Was, Is  model.Path
	Diverges bool
	Why      string
}

// PathChanges returns where the choice of a path is another one than before, sorted as
// these are. A block that came or went is none.
func PathChanges(before, after []model.PathChoice) []PathChange {
	was := make(map[netip.Prefix]model.PathChoice, len(before))
	for _, p := range before {
		was[p.Block] = p
	}
	var changes []PathChange
	for _, p := range after {
		if old, known := was[p.Block]; known && old.Node == p.Node && old.Path != p.Path {
			changes = append(changes, PathChange{Node: p.Node, Block: p.Block, Was: old.Path, Is: p.Path, Diverges: p.Diverges, Why: p.Message})
		}
	}
	return changes
}

// Divergent reports whether any of the changes leads away from what is asked for.
func Divergent(changes []PathChange) bool {
	return slices.ContainsFunc(changes, func(c PathChange) bool { return c.Diverges })
}

// pathsNote says which paths changed.
func pathsNote(first []PathChange, more int) string {
	var texts []string
	for _, c := range first {
		text := fmt.Sprintf("to %s of node %s it was %s and is %s", c.Block, c.Node, c.Was, c.Is)
		if c.Why != "" {
			text += fmt.Sprintf(" (%s)", c.Why)
		}
		texts = append(texts, text)
	}
	return "The path of packets has changed: " + enumerate(texts, more) + "."
}
