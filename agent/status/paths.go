package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
	"github.com/podnet/podnet/internal/model"
)

// pathsNamed is how many paths a condition names; the others it counts.
const pathsNamed = 3

// paths counts the paths and names the first of those of which there is something to say.
func paths(r Report) podnetv1alpha1.PathsStatus {
	var routed, overlay, down, proven, diverging int32
	var out podnetv1alpha1.PathsStatus
	for _, p := range r.Plan.Paths {
		switch {
		case isUnreachable(p):
			down++
		case p.Path == model.PathRouted:
			routed++
		case p.Path == model.PathOverlay:
			overlay++
		}
		if isProven(p) {
			proven++
		}
		if p.Diverges {
			diverging++
		}
		reason, message := p.Reason, p.Message
		if reason == "" && p.Path != model.PathDown && isUnreachable(p) {
			reason, message = model.PathSilent, fmt.Sprintf("No probe has come back by any path for some seconds: %s is kept.", p.Path)
		}
		if reason != "" && len(out.Exceptions) < maxExceptions {
			out.Exceptions = append(out.Exceptions, podnetv1alpha1.PathException{
				Node: p.Node, CIDR: p.Block.String(), RouteMode: p.RouteMode, Path: string(p.Path), Diverging: &p.Diverges, Message: clip(message),
			})
		}
	}
	out.Routed, out.Overlay, out.Down, out.Proven = &routed, &overlay, &down, &proven
	// What the kernel refused is not in force, and nothing is said of it.
	if r.InForce && !r.Refused {
		out.Diverging, out.NetworkGeneration = &diverging, r.Plan.NetworkGeneration
	}
	return out
}

// isProven reports whether probes come back by the path in force. A path that is suspect
// has lost its last probes, which is no more than a beginning.
func isProven(p model.PathChoice) bool {
	return !isUnreachable(p) && p.Proof.Holds() && !p.Proof.Silent
}

// isDown reports whether there is no path, or for a minute none by which probes come back.
func isDown(p model.PathChoice) bool { return p.Path == model.PathDown || p.Proof.Silent }

// isUnreachable reports whether there is no path, or for some seconds none by which probes
// come back. Of a path that is to be taken without proof probes say nothing.
func isUnreachable(p model.PathChoice) bool {
	return p.Path == model.PathDown || !p.Forced && (p.Proof.Unheard || p.Proof.Silent)
}

// standing sorts the paths by what is to be said of them.
type standing struct {
	// down are those that nothing comes back by although the other node's agent runs, silent
	// those to nodes whose agent does not, and quiet those of which that is still unknown.
	down, silent, quiet listing
	unproven, beginning listing
	// other are those that work and are not what was asked for, and second those that work
	// and are not what Auto prefers.
	other, second listing
	whyOther      string
	whySecond     string
}

func standingOf(choices []model.PathChoice) standing {
	var s standing
	for _, p := range choices {
		switch {
		case p.Forced && p.Path != model.PathDown:
			// What its probes say is of no account.
		case p.Path != model.PathDown && p.NodeSilent && isUnreachable(p):
			s.silent.add(p.Node)
		case isDown(p):
			s.down.add(p.Node)
		case isUnreachable(p):
			s.quiet.add(p.Node)
		case !isProven(p) && p.Proof.New:
			s.beginning.add(p.Node)
		case !isProven(p):
			s.unproven.add(p.Node)
		case p.Diverges:
			s.other.add(p.Node)
			s.whyOther = cmp.Or(s.whyOther, p.Message)
		case p.Reason != "" && p.Proof.MTU == 0:
			s.second.add(p.Node)
			s.whySecond = cmp.Or(s.whySecond, p.Message)
		}
	}
	return s
}

// pathsProven reports whether probes come back by every path in force. That the agent of
// another node does not run is said there, by the manager, and not held against this one.
func pathsProven(choices []model.PathChoice) metav1.Condition {
	s := standingOf(choices)
	c := metav1.Condition{Type: podnetv1alpha1.ConditionPathsProven, Status: metav1.ConditionFalse}
	switch {
	case s.down.paths > 0:
		c.Reason = podnetv1alpha1.ReasonPathDown
		c.Message = fmt.Sprintf("No probe has come back from %s for a minute, or there is no path: paths that worked are kept. See status.paths.exceptions.", s.down)
	case s.unproven.paths > 0:
		c.Reason = podnetv1alpha1.ReasonUnproven
		c.Message = fmt.Sprintf("Not proven yet: the paths in force to %s.", s.unproven)
	case s.other.paths > 0:
		c.Status, c.Reason = metav1.ConditionTrue, podnetv1alpha1.ReasonOtherPath
		c.Message = fmt.Sprintf("Probes come back by every path in force. To %s it is not the one that is asked for: %s", s.other, s.whyOther)
	case s.second.paths > 0:
		c.Status, c.Reason = metav1.ConditionTrue, podnetv1alpha1.ReasonSecondPath
		c.Message = fmt.Sprintf("Probes come back by every path in force. To %s it is not the preferred one: %s", s.second, s.whySecond)
	default:
		c.Status, c.Reason = metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven
		c.Message = "Probes come back by every path in force."
	}
	if c.Status == metav1.ConditionTrue && s.beginning.paths > 0 {
		c.Message += fmt.Sprintf(" Those to %s have only begun to be probed.", s.beginning)
	}
	if s.silent.paths > 0 {
		c.Message += fmt.Sprintf(" None comes back from %s, whose agents do not respond: look at these nodes.", s.silent)
	}
	if s.quiet.paths > 0 {
		c.Message += fmt.Sprintf(" For some seconds none has come back from %s.", s.quiet)
	}
	c.Message = clip(c.Message)
	return c
}

func pathMTU(choices []model.PathChoice) metav1.Condition {
	reduced := listing{}
	for _, p := range choices {
		if p.Path != model.PathDown && p.Proof.MTU > 0 {
			reduced.add(fmt.Sprintf("%s (%d bytes)", p.Node, p.Proof.MTU))
		}
	}
	if reduced.paths == 0 {
		return metav1.Condition{
			Type: podnetv1alpha1.ConditionPathMTUReduced, Status: metav1.ConditionFalse,
			Reason: podnetv1alpha1.ReasonFullMTU, Message: "Every path in force carries packets as large as its interface does.",
		}
	}
	return metav1.Condition{
		Type: podnetv1alpha1.ConditionPathMTUReduced, Status: metav1.ConditionTrue, Reason: podnetv1alpha1.ReasonSmallerPathMTU,
		Message: clip(fmt.Sprintf("The network between the nodes drops larger packets although the interfaces carry them: to %s. "+
			"The routes have the smaller MTU. Correct the MTU between the nodes, or set spec.mtu of the PodNetwork.", reduced)),
	}
}

// listing names the first few of many.
type listing struct {
	first []string
	paths int
}

func (l *listing) add(name string) {
	l.paths++
	if len(l.first) < pathsNamed && !slices.Contains(l.first, name) {
		l.first = append(l.first, name)
	}
}

// names names the first, and counts the others.
func (l listing) names() string {
	out := strings.Join(l.first, ", ")
	if more := l.paths - len(l.first); more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}

// String names the first, and counts the paths, of which a node may have several.
func (l listing) String() string {
	return fmt.Sprintf("%s (%d paths)", strings.Join(l.first, ", "), l.paths)
}

// corrupted finds that packets in the tunnel have wrong checksums.
func corrupted(choices []model.PathChoice) []model.Finding {
	nodes, device := listing{}, ""
	for _, p := range choices {
		if p.Corrupter != "" {
			nodes.add(p.Node)
			device = p.Corrupter
		}
	}
	if nodes.paths == 0 {
		return nil
	}
	return []model.Finding{{Type: "ChecksumOffload", Message: fmt.Sprintf(
		"By the overlay between this node and %s come only packets without a checksum: an interface or a driver computes wrong ones for packets in the tunnel. "+
			"Turn that off on both nodes with `ethtool -K %s tx off`.", nodes, device)}}
}
