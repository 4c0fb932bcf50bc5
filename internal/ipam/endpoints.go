package ipam

import (
	"fmt"
	"net/netip"
)

// Foreign says why an address cannot be one of a node's own to which others send, given
// the ranges of pods and what else the cluster uses: a clause without a full stop. It is
// empty where nothing is in the way.
func Foreign(addr netip.Addr, ranges []netip.Prefix, services []Claim) string {
	for _, r := range reserved {
		if r.CIDR.Contains(addr) {
			return fmt.Sprintf("it lies in %s, which is reserved (%s)", r.CIDR, r.By)
		}
	}
	for _, r := range ranges {
		if r.Contains(addr) {
			return fmt.Sprintf("it lies in range %s, whose addresses are pods'", r)
		}
	}
	for _, s := range services {
		if s.CIDR.Contains(addr) {
			return fmt.Sprintf("it lies in the service CIDR %s (ServiceCIDR %s)", s.CIDR, s.By)
		}
	}
	return ""
}
