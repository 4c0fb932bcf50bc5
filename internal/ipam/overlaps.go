package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// ClaimKind says what claims a prefix.
type ClaimKind int

// The kinds, in the order in which overlaps are told.
const (
	// ClaimServices is a ServiceCIDR, from which services get their addresses.
	ClaimServices ClaimKind = iota
	// ClaimReserved is what every IP network keeps for something.
	ClaimReserved
	// ClaimNode is an address of a node.
	ClaimNode
	// ClaimInterface is what a node has on an interface of its own: a network on the
	// link, or an address.
	ClaimInterface
)

// Claim is a prefix that is used for something else than pods.
type Claim struct {
	CIDR netip.Prefix
	Kind ClaimKind
	// By is the name of the ServiceCIDR or of the node; for ClaimReserved it says
	// what the prefix is kept for.
	By string
}

// reserved are the prefixes that no range can use, whatever the cluster is like
// (RFC 6890 and the registries that it made).
var reserved = []Claim{
	{netip.MustParsePrefix("0.0.0.0/8"), ClaimReserved, `"this network", RFC 1122`},
	{netip.MustParsePrefix("127.0.0.0/8"), ClaimReserved, "loopback, RFC 1122"},
	{netip.MustParsePrefix("169.254.0.0/16"), ClaimReserved, "link-local, RFC 3927"},
	{netip.MustParsePrefix("224.0.0.0/4"), ClaimReserved, "multicast, RFC 5771"},
	{netip.MustParsePrefix("240.0.0.0/4"), ClaimReserved, "class E and the broadcast address, RFC 1112"},
	{netip.MustParsePrefix("::/128"), ClaimReserved, "the unspecified address, RFC 4291"},
	{netip.MustParsePrefix("::1/128"), ClaimReserved, "loopback, RFC 4291"},
	{netip.MustParsePrefix("::ffff:0.0.0.0/96"), ClaimReserved, "IPv4-mapped, RFC 4291"},
	{netip.MustParsePrefix("fe80::/10"), ClaimReserved, "link-local, RFC 4291"},
	{netip.MustParsePrefix("ff00::/8"), ClaimReserved, "multicast, RFC 4291"},
}

// OverlapKey tells overlaps apart. Two with one key differ only in who uses the
// prefix.
type OverlapKey struct {
	Kind  ClaimKind
	Range netip.Prefix
	// CIDR is what the range overlaps. It is invalid for ClaimNode: every node has
	// another address, and those in one range are one overlap.
	CIDR netip.Prefix
}

// Overlap is a range and something else that uses addresses of it.
type Overlap struct {
	OverlapKey
	// By names the first few users, sorted; of ClaimNode with their addresses.
	By []string
	// Users is the number of all users.
	Users int
}

// namedUsers is how many users an Overlap names.
const namedUsers = 5

// Overlaps returns what overlaps the ranges, of the claims and of what is reserved
// in any network, by kind, range and prefix, in an order that does not depend on
// that of the arguments. It costs steps in the number of claims, and hardly more
// for many ranges.
func Overlaps(ranges []netip.Prefix, claims []Claim) []Overlap {
	index := newRangeIndex(ranges)
	users := map[OverlapKey][]string{}
	add := func(cidr netip.Prefix, c Claim) {
		for _, r := range index.overlapping(cidr) {
			key, by := OverlapKey{Kind: c.Kind, Range: r, CIDR: cidr}, c.By
			if c.Kind == ClaimNode {
				key.CIDR = netip.Prefix{}
				by = fmt.Sprintf("%s has %s", c.By, cidr.Addr())
			}
			users[key] = append(users[key], by)
		}
	}
	for _, c := range claims {
		if cidr := unmapped(c.CIDR); cidr.IsValid() {
			add(cidr, c)
		}
	}
	for _, c := range reserved {
		add(c.CIDR, c)
	}
	out := make([]Overlap, 0, len(users))
	for key, by := range users {
		slices.Sort(by)
		by = slices.Compact(by)
		out = append(out, Overlap{OverlapKey: key, By: by[:min(len(by), namedUsers)], Users: len(by)})
	}
	slices.SortFunc(out, func(a, b Overlap) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), model.ComparePrefix(a.Range, b.Range), model.ComparePrefix(a.CIDR, b.CIDR))
	})
	return out
}

// String names both sides in a sentence, says what comes of it, and what to do.
func (o Overlap) String() string {
	by := strings.Join(o.By, ", ")
	if more := o.Users - len(o.By); more > 0 {
		by += fmt.Sprintf(" and %d more", more)
	}
	switch o.Kind {
	case ClaimServices:
		return fmt.Sprintf("Range %s overlaps the service CIDR %s (ServiceCIDR %s): a pod and a service may get the same address,"+
			" and packets to it go to the service. Add another range and drain this one.", o.Range, o.CIDR, by)
	case ClaimNode:
		return fmt.Sprintf("Range %s overlaps addresses of nodes (%s): other nodes are not told to send to"+
			" such an address. Add another range and drain this one, or choose other addresses for the nodes.", o.Range, by)
	case ClaimInterface:
		nodes := "1 node has"
		if o.Users > 1 {
			nodes = fmt.Sprintf("%d nodes have", o.Users)
		}
		return fmt.Sprintf("Range %s overlaps %s, which %s on an interface (%s): an address of both leads from there to the one or to the other."+
			" Add another range and drain this one, or take %s off the nodes; their NodeNetworks name the interface.",
			o.Range, o.CIDR, nodes, by, o.CIDR)
	default:
		return fmt.Sprintf("Range %s overlaps %s, which is reserved (%s): pods with such addresses are not reached from everywhere."+
			" Add another range and drain this one.", o.Range, o.CIDR, by)
	}
}

// rangeIndex finds the ranges that overlap a prefix. They do so only by
// containing it or lying in it.
type rangeIndex struct {
	// sorted are the ranges by address and then by length.
	sorted []netip.Prefix
	// known holds the same ranges, and lengths the prefix lengths that occur, the
	// shortest first.
	known   map[netip.Prefix]bool
	lengths []int
}

func newRangeIndex(ranges []netip.Prefix) rangeIndex {
	x := rangeIndex{known: make(map[netip.Prefix]bool, len(ranges))}
	for _, r := range ranges {
		if r = r.Masked(); !r.IsValid() || x.known[r] {
			continue
		}
		x.known[r] = true
		x.sorted = append(x.sorted, r)
		x.lengths = append(x.lengths, r.Bits())
	}
	slices.SortFunc(x.sorted, model.ComparePrefix)
	slices.Sort(x.lengths)
	x.lengths = slices.Compact(x.lengths)
	return x
}

// overlapping returns the ranges that overlap a prefix, which is masked.
func (x rangeIndex) overlapping(p netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, bits := range x.lengths {
		if bits >= p.Bits() {
			break
		}
		if above := shortened(p, bits); x.known[above] {
			out = append(out, above)
		}
	}
	// What lies in the prefix follows where it would stand itself.
	start, _ := slices.BinarySearchFunc(x.sorted, p, model.ComparePrefix)
	for _, r := range x.sorted[start:] {
		if !p.Overlaps(r) {
			break
		}
		out = append(out, r)
	}
	return out
}

// unmapped is the prefix, masked, and as IPv4 where it is written as IPv4-mapped.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
