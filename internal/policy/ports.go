package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// protocols are those that policies have ports of, as nft writes them.
var protocols = [...]string{"tcp", "udp", "sctp"}

// protocolIndex returns the index of a protocol in protocols, and false for one
// that policies have no ports of.
func protocolIndex(protocol string) (int, bool) {
	if protocol == "" {
		return 0, true
	}
	i := slices.Index(protocols[:], strings.ToLower(protocol))
	return i, i >= 0
}

// maxPort is the largest number of a port.
const maxPort = 1<<16 - 1

// portRange holds the ports from first to last.
type portRange struct{ first, last uint16 }

// ports is a set of protocols and their ports. Its zero value is empty.
type ports struct {
	// of holds sorted ranges of each protocol that neither overlap nor touch.
	of [len(protocols)][]portRange
	// others holds all protocols that have no ports here.
	others bool
}

// allPorts holds everything.
func allPorts() ports {
	out := ports{others: true}
	for i := range out.of {
		out.of[i] = []portRange{{0, maxPort}}
	}
	return out
}

func (p ports) all() bool {
	return p.others && !slices.ContainsFunc(p.of[:], func(ranges []portRange) bool {
		return len(ranges) != 1 || ranges[0] != portRange{0, maxPort}
	})
}

func (p ports) empty() bool {
	return !p.others && !slices.ContainsFunc(p.of[:], func(ranges []portRange) bool { return len(ranges) > 0 })
}

// union returns what is in the set or in one of others.
func (p ports) union(others ...ports) ports {
	out := ports{others: p.others}
	for i := range p.of {
		out.of[i] = slices.Clone(p.of[i])
	}
	for _, q := range others {
		out.others = out.others || q.others
		for i := range q.of {
			out.of[i] = append(out.of[i], q.of[i]...)
		}
	}
	for i := range out.of {
		out.of[i] = merge(out.of[i])
	}
	return out
}

// minus returns what is in the set and not in another.
func (p ports) minus(q ports) ports {
	out := ports{others: p.others && !q.others}
	for i := range out.of {
		out.of[i] = subtract(p.of[i], q.of[i])
	}
	return out
}

// both returns what is in both sets.
func (p ports) both(q ports) ports { return p.minus(p.minus(q)) }

// subtract takes sorted ranges out of sorted ranges.
func subtract(from, ranges []portRange) []portRange {
	var out []portRange
	for _, f := range from {
		// next is the first port that is not decided yet; it may be behind the last there is.
		next := int(f.first)
		for _, r := range ranges {
			if int(r.last) < next || r.first > f.last {
				continue
			}
			if int(r.first) > next {
				out = append(out, portRange{uint16(next), r.first - 1}) //nolint:gosec // It is less than another port.
			}
			next = int(r.last) + 1
		}
		if next <= int(f.last) {
			out = append(out, portRange{uint16(next), f.last}) //nolint:gosec // It is not greater than another port.
		}
	}
	return out
}

// merge sorts ranges and joins those that overlap or touch: nft refuses elements
// that overlap.
func merge(ranges []portRange) []portRange {
	slices.SortFunc(ranges, func(a, b portRange) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last)) })
	var out []portRange
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// key tells the set from others.
func (p ports) key() string {
	if p.all() {
		return "all"
	}
	var key strings.Builder
	if p.others {
		key.WriteString("others,")
	}
	for i, ranges := range p.of {
		for _, r := range ranges {
			fmt.Fprintf(&key, "%s %s,", protocols[i], r)
		}
	}
	return key.String()
}

// String writes the range as nft does.
func (r portRange) String() string {
	if r.first == r.last {
		return strconv.Itoa(int(r.first))
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

// write returns an nft set of protocols and ports, and the chain of its name that
// lets through what it holds.
func (p ports) write(name string) (nft.Set, nft.Chain) {
	s := nft.Set{Name: name, Key: "inet_proto . inet_service"}
	for i, ranges := range p.of {
		for _, r := range ranges {
			s.Interval = s.Interval || r.first != r.last
			s.Elements = append(s.Elements, nft.Element{Key: []string{protocols[i], r.String()}})
		}
	}
	c := chain(name,
		"ct direction original meta l4proto . th dport @"+name+" return",
		"ct direction reply meta l4proto . th sport @"+name+" return")
	if p.others {
		c.Rules = append(c.Rules, nft.Rule{Text: "meta l4proto != { " + strings.Join(protocols[:], ", ") + " } return"})
	}
	// An ICMP error names the ports of its connection where no rule finds them: it is accepted
	// between ends that may have any connection.
	c.Rules = append(c.Rules, nft.Rule{Text: acceptErrors}, nft.Rule{Text: toDenied})
	return s, c
}

// acceptErrors accepts ICMP errors about a connection that the kernel knows.
const acceptErrors = "ct state related meta l4proto { icmp, ipv6-icmp } return"

// portName is a port that each pod may have a number of its own for.
type portName struct {
	protocol int
	name     string
}

// portSpec is what a rule says of ports: numbers, and names that are still to be
// looked up.
type portSpec struct {
	fixed ports
	// names are sorted.
	names []portName
}

// parsePorts reads the ports of a rule. What is no port, such as a range that ends
// before it begins, allows nothing.
func parsePorts(list []model.PolicyPort) portSpec {
	if len(list) == 0 {
		return portSpec{fixed: allPorts()}
	}
	var spec portSpec
	var numbers ports
	for _, p := range list {
		i, ok := protocolIndex(p.Protocol)
		switch {
		case !ok:
		case p.Name != "":
			spec.names = append(spec.names, portName{i, p.Name})
		default:
			if r, ok := rangeOf(p); ok {
				numbers.of[i] = append(numbers.of[i], r)
			}
		}
	}
	slices.SortFunc(spec.names, comparePortNames)
	spec.names = slices.Compact(spec.names)
	spec.fixed = ports{}.union(numbers)
	return spec
}

func comparePortNames(a, b portName) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), strings.Compare(a.name, b.name))
}

func rangeOf(p model.PolicyPort) (portRange, bool) {
	if p.Port == nil {
		return portRange{0, maxPort}, true
	}
	first, last := *p.Port, *p.Port
	if p.EndPort != nil {
		last = *p.EndPort
	}
	if first < 1 || last > maxPort || first > last {
		return portRange{}, false
	}
	return portRange{uint16(first), uint16(last)}, true
}

// resolve looks up the names among the ports of a pod.
func (s portSpec) resolve(named []model.NamedPort) ports {
	out := s.fixed
	for _, n := range s.names {
		if number, ok := n.lookup(named); ok {
			var one ports
			one.of[n.protocol] = []portRange{{number, number}}
			out = out.union(one)
		}
	}
	return out
}

// lookup returns the number of the port among those of a pod. Two containers may
// give one name to different ports: the first counts, as it does for Services.
func (n portName) lookup(named []model.NamedPort) (uint16, bool) {
	for _, p := range named {
		if i, ok := protocolIndex(p.Protocol); ok && i == n.protocol && p.Name == n.name {
			return p.Port, true
		}
	}
	return 0, false
}

// key tells what a rule says of ports from what others say.
func (s portSpec) key() string {
	key := s.fixed.key()
	for _, n := range s.names {
		key += fmt.Sprintf("%s %q,", protocols[n.protocol], n.name)
	}
	return key
}
