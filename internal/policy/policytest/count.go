package policytest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podnet/podnet/internal/model"
)

// CountAll has the packets of all policies counted.
func (w *World) CountAll() {
	for i := range w.Objects.NetworkPolicies {
		w.Objects.NetworkPolicies[i].Count = true
	}
	for i := range w.Objects.ClusterPolicies {
		w.Objects.ClusterPolicies[i].Count = true
	}
}

// Matched returns the rules that surely match a connection, of policies that are to be
// counted and surely select one of its ends, written as namespace/policy/ingress[0]. Which
// of them decides does not matter.
func (w World) Matched(c Connection) []string {
	var out []string
	for i, reading := range w.readings(c) {
		matched := reading.matched(c)
		if i == 0 {
			out = matched
			continue
		}
		// What matches surely does so whoever has the ends' addresses.
		out = slices.DeleteFunc(out, func(rule string) bool { return !slices.Contains(matched, rule) })
	}
	return out
}

func (w World) matched(c Connection) []string {
	var out []string
	for _, pod := range w.Attached {
		if c.Client == c.Server {
			// Nobody asks policies.
			break
		}
		if slices.Contains(pod.Addrs, c.Client) {
			out = append(out, w.matchedOf(pod, c, model.PolicyEgress)...)
		}
		if slices.Contains(pod.Addrs, c.Server) {
			out = append(out, w.matchedOf(pod, c, model.PolicyIngress)...)
		}
	}
	slices.Sort(out)
	return out
}

func (w World) matchedOf(pod model.Pod, c Connection, direction model.PolicyType) []string {
	var out []string
	self, known := w.object(pod)
	for _, p := range w.Objects.NetworkPolicies {
		// What pods have with their own node is not theirs to say.
		if !p.Count || c.ToHost || p.Namespace != pod.Namespace || !known || !appliesTo(p, direction) || !selects(p.Pods, self.Labels) {
			continue
		}
		rules, other := p.Ingress, c.Client
		if direction == model.PolicyEgress {
			rules, other = p.Egress, c.Server
		}
		for i, r := range rules {
			if w.anyPeer(p.Namespace, r.Peers, other) && w.anyPort(r.Ports, c) {
				out = append(out, fmt.Sprintf("%s/%s/%s[%d]", p.Namespace, p.Name, strings.ToLower(string(direction)), i))
			}
		}
	}
	for _, p := range w.Objects.ClusterPolicies {
		if !p.Count || w.isSubject(p, pod) != yes {
			continue
		}
		rules := p.Ingress
		if direction == model.PolicyEgress {
			rules = p.Egress
		}
		for _, r := range rules {
			if min(w.peersMatch(r.Peers, c, direction), w.portsMatch(r.Ports, pod, c, direction)) == yes {
				out = append(out, "/"+p.Name+"/"+r.Field)
			}
		}
	}
	return out
}
