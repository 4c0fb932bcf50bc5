package nft

import "fmt"

// Step is what one transaction does. It names itself in words. There are a Put, a Change,
// a DeleteParts, a DeleteTable and a ChangeElements.
type Step interface{ fmt.Stringer }

// Put makes a table, or replaces all of it.
type Put struct{ Table }

// DeleteParts deletes parts that nothing leads to.
type DeleteParts struct{ Parts }

// DeleteTable deletes a table, and is content where it is gone already.
type DeleteTable struct {
	Family Family
	Name   string
}

// ChangeElements changes elements of any tables. What goes does so before what comes, and
// may be gone already.
type ChangeElements struct{ Delete, Add []Elements }

// String implements Step.
func (p Put) String() string { return "put " + p.Table.String() }

// String implements Step.
func (d DeleteParts) String() string { return "delete " + d.Parts.String() }

// String implements Step.
func (d DeleteTable) String() string {
	return "delete " + Table{Family: d.Family, Name: d.Name}.String()
}

// String implements Step.
func (c ChangeElements) String() string {
	return fmt.Sprintf("change of the elements of %d nft sets", len(c.Delete)+len(c.Add))
}
