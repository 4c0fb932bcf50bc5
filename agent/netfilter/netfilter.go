// Package netfilter talks with the parts of netfilter that are no tables: it receives the
// packets that rules give to the agent (Log), and makes the kernel forget connections
// (Conntrack). Which packets rules give is left to internal/policy.
package netfilter
