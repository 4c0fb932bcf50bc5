package allocation

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// poolWith returns the pool of ranges that are each written as a CIDR, behind it
// the labels that it selects nodes by, and "draining" where it drains:
// "10.0.0.0/16 zone=a,disk=ssd draining".
func poolWith(t *testing.T, written ...string) Pool {
	t.Helper()
	network := &podnetv1alpha1.PodNetwork{}
	for _, w := range written {
		cidr, rest, _ := strings.Cut(w, " ")
		r := podnetv1alpha1.Range{CIDR: cidr, State: podnetv1alpha1.RangeActive}
		for word := range strings.FieldsSeq(rest) {
			if word == "draining" {
				r.State = podnetv1alpha1.RangeDraining
				continue
			}
			r.NodeSelector = &metav1.LabelSelector{MatchLabels: labelsOfWord(word)}
		}
		network.Spec.Ranges = append(network.Spec.Ranges, r)
	}
	p, err := PoolOf(network)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// labelsOfWord reads labels that are written like zone=a,disk=ssd.
func labelsOfWord(word string) map[string]string {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(word, ",") {
		if key, value, found := strings.Cut(pair, "="); found {
			labels[key] = value
		}
	}
	return labels
}

// TestRangesThatSelectANodeComeFirstInTheOrderWritten has the tie breaks of the
// multi-range allocator that Kubernetes dropped: here what is written decides,
// after whether a range selects the node at all.
func TestRangesThatSelectANodeComeFirstInTheOrderWritten(t *testing.T) {
	for name, c := range map[string]struct {
		ranges []string
		node   string
		want   []string
	}{
		"open ranges take any node": {
			[]string{"10.0.0.0/16", "10.1.0.0/16"}, "", []string{"10.0.0.0/16", "10.1.0.0/16"}},
		"a range that selects the node comes before an open one": {
			[]string{"10.0.0.0/16", "10.1.0.0/16 zone=a"}, "zone=a", []string{"10.1.0.0/16", "10.0.0.0/16"}},
		"a range that selects others is none for the node": {
			[]string{"10.0.0.0/16 zone=b", "10.1.0.0/16"}, "zone=a", []string{"10.1.0.0/16"}},
		"all labels of a selector have to match": {
			[]string{"10.0.0.0/16 zone=a,disk=ssd"}, "zone=a", nil},
		"a node without labels gets none of a range with a selector": {
			[]string{"10.0.0.0/16 zone=a"}, "", nil},
		"more labels that match do not count for more": {
			[]string{"10.0.0.0/16 zone=a", "10.1.0.0/16 zone=a,disk=ssd"}, "zone=a,disk=ssd", []string{"10.0.0.0/16", "10.1.0.0/16"}},
		"fewer blocks do not count for more": {
			[]string{"10.0.0.0/16 zone=a", "10.1.0.0/24 zone=a"}, "zone=a", []string{"10.0.0.0/16", "10.1.0.0/24"}},
		"the selector's text does not count": {
			[]string{"10.0.0.0/16 zone=a", "10.1.0.0/16 disk=ssd"}, "zone=a,disk=ssd", []string{"10.0.0.0/16", "10.1.0.0/16"}},
		"the lower address does not count": {
			[]string{"10.1.0.0/16", "10.0.0.0/16"}, "", []string{"10.1.0.0/16", "10.0.0.0/16"}},
		"a draining range gives nothing, though it selects the node": {
			[]string{"10.0.0.0/16 zone=a draining", "10.1.0.0/16"}, "zone=a", []string{"10.1.0.0/16"}},
		"a draining range gives nothing, though there is no other": {
			[]string{"10.0.0.0/16 draining"}, "", nil},
		"the other family's ranges are not looked at": {
			[]string{"fd00::/48 zone=a", "10.0.0.0/16", "fd01::/48"}, "zone=a", []string{"10.0.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range poolWith(t, c.ranges...).eligible(true, labelsOfWord(c.node)) {
				got = append(got, r.CIDR.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestNodeHoldsTheFamiliesThatRangesHaveForIt(t *testing.T) {
	for name, c := range map[string]struct {
		ranges []string
		node   string
		want   []bool
	}{
		"IPv4 alone":                               {[]string{"10.0.0.0/16"}, "", []bool{true}},
		"IPv6 alone":                               {[]string{"fd00::/48"}, "", []bool{false}},
		"both":                                     {[]string{"10.0.0.0/16", "fd00::/48"}, "", []bool{true, false}},
		"both, IPv6 written first":                 {[]string{"fd00::/48", "10.0.0.0/16"}, "", []bool{true, false}},
		"several of each are one of each":          {[]string{"10.0.0.0/16", "10.1.0.0/16", "fd00::/48", "fd01::/48"}, "", []bool{true, false}},
		"IPv6 for those that are selected":         {[]string{"10.0.0.0/16", "fd00::/48 dual=yes"}, "dual=yes", []bool{true, false}},
		"IPv6 for those that are selected, others": {[]string{"10.0.0.0/16", "fd00::/48 dual=yes"}, "", []bool{true}},
		"none of a family that drains":             {[]string{"10.0.0.0/16", "fd00::/48 draining"}, "", []bool{true}},
		"none for a node that nothing selects":     {[]string{"10.0.0.0/16 zone=a", "fd00::/48 zone=a"}, "zone=b", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := poolWith(t, c.ranges...).families(labelsOfWord(c.node)); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestSelectorThatDoesNotParseSelectsNoNode(t *testing.T) {
	network := &podnetv1alpha1.PodNetwork{Spec: podnetv1alpha1.PodNetworkSpec{Ranges: []podnetv1alpha1.Range{
		{CIDR: "10.0.0.0/16", NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "zone", Operator: "Near", Values: []string{"a"}},
		}}},
		{CIDR: "10.1.0.0/16"},
	}}}
	p, err := PoolOf(network)
	if err == nil || !strings.Contains(err.Error(), "10.0.0.0/16") {
		t.Errorf("got the error %v, want one that names the range", err)
	}
	if got := p.eligible(true, map[string]string{"zone": "a"}); len(got) != 1 || got[0].CIDR.String() != "10.1.0.0/16" {
		t.Errorf("got %v, want the other range alone", got)
	}
}

func TestBlockSizesOfTheFamiliesAreIndependent(t *testing.T) {
	network := &podnetv1alpha1.PodNetwork{Spec: podnetv1alpha1.PodNetworkSpec{Ranges: []podnetv1alpha1.Range{
		{CIDR: "10.0.0.0/16"}, {CIDR: "10.1.0.0/16", NodePrefixLength: 26}, {CIDR: "fd00::/48"}, {CIDR: "fd01::/48", NodePrefixLength: 120},
	}}}
	p, err := PoolOf(network)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range p {
		got = append(got, r.BlockBits)
	}
	if want := []int{24, 26, 64, 120}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestABlockIsLeftWhereItsRangeIsNotForItsNode(t *testing.T) {
	for name, c := range map[string]struct {
		ranges []string
		node   string
		want   bool
	}{
		"the range takes any node":                       {[]string{"10.0.0.0/16", "10.1.0.0/16"}, "zone=a", false},
		"it selects the node":                            {[]string{"10.0.0.0/16 zone=a", "10.1.0.0/16"}, "zone=a", false},
		"it takes any, and another selects the node":     {[]string{"10.0.0.0/16", "10.1.0.0/16 zone=a"}, "zone=a", false},
		"it selects others, and one takes any":           {[]string{"10.0.0.0/16 zone=b", "10.1.0.0/16"}, "zone=a", true},
		"it selects others, and one selects the node":    {[]string{"10.0.0.0/16 zone=b", "10.1.0.0/16 zone=a"}, "zone=a", true},
		"it selects others, and no other takes the node": {[]string{"10.0.0.0/16 zone=b", "10.1.0.0/16 zone=b"}, "zone=a", false},
		"the one that takes any drains":                  {[]string{"10.0.0.0/16 zone=b", "10.1.0.0/16 draining"}, "zone=a", false},
		"the one that takes any is of another family":    {[]string{"10.0.0.0/16 zone=b", "fd00::/48"}, "zone=a", false},
		"it drains, and no other takes the node":         {[]string{"10.0.0.0/16 draining", "10.1.0.0/16 zone=b"}, "zone=a", true},
	} {
		t.Run(name, func(t *testing.T) {
			has := Holdings{
				node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: labelsOfWord(c.node)}}, ranges: poolWith(t, c.ranges...),
				subnets: []podnetv1alpha1.NodeSubnet{{Spec: podnetv1alpha1.NodeSubnetSpec{CIDR: "10.0.3.0/24", State: podnetv1alpha1.SubnetActive}}},
			}
			need, _ := has.Need(true, func(types.UID) time.Duration { return 0 })
			if len(need.Held) != 1 || need.Held[0].Leaving != c.want {
				t.Errorf("got %+v", need.Held)
			}
		})
	}
}

func TestASelectorThatDoesNotParseDrivesNobodyAway(t *testing.T) {
	ranges, err := PoolOf(&podnetv1alpha1.PodNetwork{Spec: podnetv1alpha1.PodNetworkSpec{Ranges: []podnetv1alpha1.Range{{
		CIDR: "10.0.0.0/16", NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "zone", Operator: "Is"}}},
	}}}})
	if err == nil || len(ranges) != 1 || ranges[0].leftBy(nil) {
		t.Errorf("%v, %+v", err, ranges)
	}
}
