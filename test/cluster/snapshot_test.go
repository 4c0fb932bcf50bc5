package cluster

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// snapshot is what can be seen of a node that a pod network changes: sorted lines, by the question that they answer.
type snapshot map[string][]string

// questions are asked on the node. The rules of kube-proxy come and go with services, so of nftables only the tables count.
var questions = map[string][]string{
	"links":     {"ip", "-oneline", "link"},
	"addresses": {"ip", "-oneline", "address"},
	"routes":    {"ip", "-4", "route", "show", "table", "all"},
	"routes6":   {"ip", "-6", "route", "show", "table", "all"},
	"rules":     {"ip", "-4", "rule"},
	"rules6":    {"ip", "-6", "rule"},
	"bridges":   {"bridge", "link"},
	"nftables":  {"nft", "list", "tables"},
	"files":     {"find", "/etc/cni", "/opt/cni", "/run/podnet", "!", "-type", "d"},
	"settings":  {"sysctl", "net.ipv4.conf", "net.ipv6.conf", "net.ipv4.ip_forward", "net.ipv4.neigh", "net.ipv6.neigh", "net.bridge"},
}

// volatile is what changes by itself: the seconds that an address or a route has left.
var volatile = regexp.MustCompile(` (expires|valid_lft|preferred_lft) \d+sec`)

func takeSnapshot(ctx context.Context, node string) (snapshot, error) {
	s := snapshot{}
	for name, question := range questions {
		// find fails where a folder is not there, which is an answer as well.
		output, err := local.onNode(ctx, node, "bash", "-c", strings.Join(question, " ")+" 2>/dev/null || true")
		if err != nil {
			return nil, err
		}
		lines := strings.Split(strings.TrimSpace(volatile.ReplaceAllString(output, "")), "\n")
		slices.Sort(lines)
		s[name] = lines
	}
	return s, nil
}

// differences lists what an earlier snapshot has and this one has not, and the other way round.
func (s snapshot) differences(before snapshot) []string {
	var out []string
	for name := range questions {
		for _, line := range s[name] {
			if !slices.Contains(before[name], line) {
				out = append(out, "new in "+name+": "+line)
			}
		}
		for _, line := range before[name] {
			if !slices.Contains(s[name], line) {
				out = append(out, "gone from "+name+": "+line)
			}
		}
	}
	slices.Sort(out)
	return out
}
