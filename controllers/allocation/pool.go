package allocation

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/convert"
	"github.com/podnet/podnet/internal/ipam"
)

// Pool is the ranges of a PodNetwork as values.
type Pool []Range

// Range is a range of a PodNetwork.
type Range struct {
	ipam.Range
	Draining bool
	// selector is nil where any node may draw from the range.
	selector labels.Selector
	// unreadable says that the range's selector does not parse: no node gets a block of
	// the range, and none is to leave it.
	unreadable bool
}

// leftBy reports whether the range is not for nodes with these labels, as its selector has it.
func (r Range) leftBy(nodeLabels map[string]string) bool {
	return r.selector != nil && !r.unreadable && !r.selector.Matches(labels.Set(nodeLabels))
}

// Addresses is the number of addresses of one of its blocks that pods can have.
func (r Range) Addresses() int64 {
	return ipam.AddressCount(netip.PrefixFrom(r.CIDR.Addr(), r.BlockBits))
}

// PoolOf returns the ranges of a network. A range whose selector does not parse
// selects no node and is named in the error.
func PoolOf(network *podnetv1alpha1.PodNetwork) (Pool, error) {
	var ranges Pool
	var errs []error
	for _, r := range network.Spec.Ranges {
		of, err := convert.Range(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("range %s: %w", r.CIDR, err))
			continue
		}
		out := Range{Range: of, Draining: r.State == podnetv1alpha1.RangeDraining}
		if r.NodeSelector != nil {
			out.selector, err = metav1.LabelSelectorAsSelector(r.NodeSelector)
			if err != nil {
				errs = append(errs, fmt.Errorf("nodeSelector of range %s: %w", r.CIDR, err))
				out.selector, out.unreadable = labels.Nothing(), true
			}
		}
		ranges = append(ranges, out)
	}
	return ranges, errors.Join(errs...)
}

// eligible returns the ranges of a family from which a node with these labels
// may get a new block: first those that select it, then those that take any.
func (p Pool) eligible(is4 bool, nodeLabels map[string]string) Pool {
	var selected, open Pool
	for _, r := range p {
		switch {
		case r.Draining || r.CIDR.Addr().Is4() != is4:
		case r.selector == nil:
			open = append(open, r)
		case r.selector.Matches(labels.Set(nodeLabels)):
			selected = append(selected, r)
		}
	}
	return append(selected, open...)
}

// families returns, as whether it is IPv4, each family of which a node with
// these labels is to hold a block.
func (p Pool) families(nodeLabels map[string]string) []bool {
	return slices.DeleteFunc([]bool{true, false}, func(is4 bool) bool { return len(p.eligible(is4, nodeLabels)) == 0 })
}

// CIDRs returns the ranges' prefixes.
func (p Pool) CIDRs() []netip.Prefix {
	out := make([]netip.Prefix, len(p))
	for i, r := range p {
		out[i] = r.CIDR
	}
	return out
}

// containing returns the range that a block lies in.
func (p Pool) containing(block netip.Prefix) (Range, bool) {
	i := slices.IndexFunc(p, func(r Range) bool {
		return r.CIDR.Bits() <= block.Bits() && r.CIDR.Contains(block.Addr())
	})
	if i < 0 {
		return Range{}, false
	}
	return p[i], true
}

// exhaustion says in a sentence that none of the ranges has a block left, and how many each has.
func (p Pool) exhaustion() string {
	counts := make([]string, len(p))
	for i, r := range p {
		counts[i] = fmt.Sprintf("%s has %d of /%d", r.CIDR, r.Total(), r.BlockBits)
	}
	return fmt.Sprintf("No free block is left: %s, and all are taken. Add a range to PodNetwork %s.",
		strings.Join(counts, ", "), podnetv1alpha1.DefaultPodNetwork)
}

// unselected says in a sentence that no range is there for a node.
func unselected() string {
	return fmt.Sprintf("No Active range of PodNetwork %s takes this node: its labels match no nodeSelector of the ranges."+
		" Add a range for it, or one without a nodeSelector.", podnetv1alpha1.DefaultPodNetwork)
}
