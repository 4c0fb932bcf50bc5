package model

// Rule sends the packets of a family to one of podnet's tables.
type Rule struct {
	// IPv6 is the family: false for IPv4.
	IPv6     bool
	Priority int
	Table    int
	// Mark restricts the rule to packets with this mark; 0 for all packets.
	Mark uint32
	// In restricts it to packets that come in by this link; empty for all packets.
	In string
}
