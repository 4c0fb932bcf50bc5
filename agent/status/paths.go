package status

import (
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
func paths(choices []model.PathChoice) podnetv1alpha1.PathsStatus {
	var routed, overlay, down, proven int32
	var out podnetv1alpha1.PathsStatus
	for _, p := range choices {
		switch p.Path {
		case model.PathRouted:
			routed++
		case model.PathOverlay:
			overlay++
		case model.PathDown:
			down++
		}
		if isProven(p) {
			proven++
		}
		if p.Message != "" && len(out.Exceptions) < maxExceptions {
			out.Exceptions = append(out.Exceptions, podnetv1alpha1.PathException{
				Node: p.Node, CIDR: p.Block.String(), RouteMode: p.RouteMode, Path: string(p.Path), Message: clip(p.Message),
			})
		}
	}
	out.Routed, out.Overlay, out.Down, out.Proven = &routed, &overlay, &down, &proven
	return out
}

// isProven says whether probes come back by the path in force. A path that is suspect
// has lost its last probes, which is no more than a beginning.
func isProven(p model.PathChoice) bool {
	return p.Path != model.PathDown && p.Proof.Holds() && !p.Proof.Silent
}

// isDown says whether there is no path, or none by which probes come back.
func isDown(p model.PathChoice) bool { return p.Path == model.PathDown || p.Proof.Silent }

func pathsProven(choices []model.PathChoice) metav1.Condition {
	down, unproven, beginning := listing{}, listing{}, listing{}
	for _, p := range choices {
		switch {
		case p.Forced && p.Path != model.PathDown:
			// What its probes say is of no account.
		case isDown(p):
			down.add(p.Node)
		case !isProven(p) && p.Proof.New:
			beginning.add(p.Node)
		case !isProven(p):
			unproven.add(p.Node)
		}
	}
	c := metav1.Condition{Type: podnetv1alpha1.ConditionPathsProven, Status: metav1.ConditionFalse}
	switch {
	case down.paths > 0:
		c.Reason = podnetv1alpha1.ReasonPathDown
		c.Message = fmt.Sprintf("No probe has come back from %s for a minute, or there is no path: paths that worked are kept. See status.paths.exceptions.", down)
	case unproven.paths > 0:
		c.Reason = podnetv1alpha1.ReasonUnproven
		c.Message = fmt.Sprintf("Not proven yet: the paths in force to %s.", unproven)
	default:
		c.Status, c.Reason = metav1.ConditionTrue, podnetv1alpha1.ReasonPathsProven
		c.Message = provenMessage(choices)
		if beginning.paths > 0 {
			c.Message += fmt.Sprintf(" Those to %s have only begun to be probed.", beginning)
		}
	}
	c.Message = clip(c.Message)
	return c
}

// provenMessage says why paths are not those that are preferred although they work.
func provenMessage(choices []model.PathChoice) string {
	second := listing{}
	why := ""
	for _, p := range choices {
		if p.Message != "" && p.Proof.MTU == 0 {
			second.add(p.Node)
			if why == "" {
				why = p.Message
			}
		}
	}
	if second.paths == 0 {
		return "Probes come back by every path in force."
	}
	return fmt.Sprintf("Probes come back by every path in force. To %s it is not the preferred one: %s", second, why)
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
