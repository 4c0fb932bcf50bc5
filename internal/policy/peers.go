package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/podnet/podnet/internal/model"
)

// peers are the other ends that a rule names. Rules that name the same ones, in
// whatever order, share one value.
type peers struct {
	// key says who they are.
	key       string
	selectors []podSelector
	// blocks are the addresses of all blocks; nil where there are none.
	blocks *netipx.IPSet
	nodes  []model.Selector
}

// selects reports whether it takes objects to know who the peers are, and not their
// addresses alone.
func (p *peers) selects() bool { return len(p.selectors) > 0 || len(p.nodes) > 0 }

// selectsNode reports whether a node is one of the peers, whatever its addresses are.
func (p *peers) selectsNode(n nodeAddress) bool {
	return slices.ContainsFunc(p.nodes, func(s model.Selector) bool { return s.Matches(n.labels) })
}

// podSelector selects pods of namespaces.
type podSelector struct {
	// namespace is the name of the only one, or empty where namespaces selects them.
	namespace  string
	namespaces model.Selector
	pods       model.Selector
}

// everything are all addresses.
var everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// everybody are the peers of a rule that names none: also those that no selector can
// select.
var everybody = []model.PolicyPeer{{Block: &model.IPBlock{CIDR: everything[0]}}, {Block: &model.IPBlock{CIDR: everything[1]}}}

// parsePeers reads the peers of a rule of a policy in a namespace.
func parsePeers(namespace string, list []model.PolicyPeer) *peers {
	p := &peers{}
	var keys []string
	var blocks netipx.IPSetBuilder
	for _, peer := range list {
		switch {
		case peer.Block != nil:
			addBlock(&blocks, *peer.Block)
		case peer.Nodes != nil:
			if key := "nodes " + selectorKey(*peer.Nodes); !slices.Contains(keys, key) {
				keys = append(keys, key)
				p.nodes = append(p.nodes, *peer.Nodes)
			}
		case peer.Namespaces != nil || peer.Pods != nil:
			s := podSelector{namespace: namespace}
			key := fmt.Sprintf("namespace %q", namespace)
			if peer.Namespaces != nil {
				s.namespace, s.namespaces = "", *peer.Namespaces
				key = "namespaces " + selectorKey(s.namespaces)
			}
			if peer.Pods != nil {
				s.pods = *peer.Pods
			}
			key += " pods " + selectorKey(s.pods)
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
				p.selectors = append(p.selectors, s)
			}
		}
	}
	// The set's errors are of prefixes that are not valid, which are left out before.
	if set, err := blocks.IPSet(); err == nil && len(set.Ranges()) > 0 {
		p.blocks = set
		for _, r := range set.Ranges() {
			keys = append(keys, "block "+r.String())
		}
	}
	slices.Sort(keys)
	p.key = strings.Join(keys, "\n")
	return p
}

// addBlock adds what is in a block and not excepted. Exceptions hold within their
// block alone: another block may hold the same addresses.
func addBlock(to *netipx.IPSetBuilder, b model.IPBlock) {
	cidr, ok := canonical(b.CIDR)
	if !ok {
		return
	}
	var one netipx.IPSetBuilder
	one.AddPrefix(cidr)
	for _, e := range b.Except {
		if except, ok := canonical(e); ok {
			one.RemovePrefix(except)
		}
	}
	if set, err := one.IPSet(); err == nil {
		to.AddSet(set)
	}
}

// canonical returns a block without bits of the host, and one of IPv4-mapped IPv6
// addresses as the IPv4 block that it stands for, as Go's net package reads it.
func canonical(p netip.Prefix) (netip.Prefix, bool) {
	if !p.IsValid() {
		return netip.Prefix{}, false
	}
	const mapped = 96 // the bits before the IPv4 address
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()).Masked(), true
}

// selectorKey writes a selector, the same way whatever the order of its parts.
func selectorKey(s model.Selector) string {
	requirements := make([]string, 0, len(s))
	for _, r := range s {
		values := slices.Sorted(slices.Values(r.Values))
		requirements = append(requirements, fmt.Sprintf("%q %s %q", r.Key, r.Operator, slices.Compact(values)))
	}
	slices.Sort(requirements)
	return "[" + strings.Join(slices.Compact(requirements), " ") + "]"
}

// nameLength is the number of hexadecimal digits in names that stand for contents:
// enough that nobody finds two contents of one name.
const nameLength = 32

// nameOf returns a name that stands for contents.
func nameOf(prefix, contents string) string {
	sum := sha256.Sum256([]byte(contents))
	return prefix + "-" + hex.EncodeToString(sum[:])[:nameLength]
}

// selects reports whether a namespace is selected. What selects all selects one whose labels
// are unknown.
func (s podSelector) selects(x *Index, namespace string) bool {
	if s.namespace != "" {
		return namespace == s.namespace
	}
	labels, known := x.namespaces[namespace]
	return len(s.namespaces) == 0 || known && s.namespaces.Matches(labels)
}

// members calls f with every group of pods that one of the peers' selectors selects.
// It may do so more than once for one group.
func (p *peers) members(x *Index, f func(*podGroup)) {
	for _, s := range p.selectors {
		in := func(namespace string) {
			for _, g := range x.groups[namespace] {
				if s.pods.Matches(g.labels) {
					f(g)
				}
			}
		}
		if s.namespace != "" {
			in(s.namespace)
			continue
		}
		for name := range x.groups {
			if s.selects(x, name) {
				in(name)
			}
		}
	}
}
