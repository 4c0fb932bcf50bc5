package nft

// Notice is what the kernel says of a change of a table.
type Notice struct {
	Family Family
	// Set is that of which an element came or went; empty where the table itself, or something
	// of its structure, did or was changed.
	Set string
	// Key is the element's key as the kernel holds it (Set.KernelKey).
	Key string
	// Gone says that the element went, or the table.
	Gone bool
}
