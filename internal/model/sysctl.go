package model

import (
	"fmt"
	"net/netip"
	"strings"
)

// Sysctl is a kernel parameter.
type Sysctl struct {
	// Key is its path below /proc/sys, such as net/ipv4/ip_forward.
	Key   string
	Value string
}

type sysctlKey string

// ObjectKind implements Object.
func (Sysctl) ObjectKind() ObjectKind { return KindSysctl }

// Identity implements Object.
func (s Sysctl) Identity() any { return sysctlKey(s.Key) }

// On implements Object: keys of links are net/<family>/conf/<link>/<parameter>, and the same with
// neigh.
func (s Sysctl) On() string {
	parts := strings.Split(s.Key, "/")
	if len(parts) != 5 || parts[0] != "net" || parts[2] != "conf" && parts[2] != "neigh" {
		return ""
	}
	return parts[3]
}

// IP implements Object.
func (Sysctl) IP() netip.Addr { return netip.Addr{} }

// Describe implements Object.
func (s Sysctl) Describe() string { return fmt.Sprintf("sysctl %s=%s", s.Key, s.Value) }

// Detail implements Object.
func (s Sysctl) Detail(Object) string { return s.Value }

// Compare orders parameters by their keys.
func (s Sysctl) Compare(other Sysctl) int { return strings.Compare(s.Key, other.Key) }
