package plan

import (
	"net/netip"
	"slices"

	"github.com/podnet/podnet/internal/model"
)

// family is what differs between the IP families. Its index in families is that
// of arrays which hold something for each.
type family struct {
	is4 bool
	// name is the family's name in sentences.
	name string
	// digit ends the names of the family's sets.
	digit string
	// header is nft's keyword for the family's header and for its translations,
	// and address the type of an address.
	header  string
	address string
	// ipHeader is the length of the family's header in bytes.
	ipHeader int
	// vxlan is the name of the VXLAN device whose outer packets are of the family.
	vxlan string
	// multicast are the destinations that have no single receiver.
	multicast string
	// all is the prefix of all addresses, and ones the address of all ones.
	all  netip.Prefix
	ones netip.Addr
}

var families = model.PerFamily[family]{
	{
		is4: true, name: "IPv4", digit: "4", header: "ip", address: "ipv4_addr",
		ipHeader: 20, vxlan: model.VXLANLink4, multicast: "224.0.0.0/4",
		all: netip.PrefixFrom(netip.IPv4Unspecified(), 0), ones: netip.AddrFrom4([4]byte{255, 255, 255, 255}),
	},
	{
		is4: false, name: "IPv6", digit: "6", header: "ip6", address: "ipv6_addr",
		ipHeader: 40, vxlan: model.VXLANLink6, multicast: "ff00::/8",
		all:  netip.PrefixFrom(netip.IPv6Unspecified(), 0),
		ones: netip.AddrFrom16([16]byte(slices.Repeat([]byte{255}, 16))),
	},
}

// fits reports whether a link of an MTU carries packets of the family at all.
func (f family) fits(mtu int) bool { return f.is4 || mtu >= model.MinIPv6MTU }

// host is the prefix that holds one address alone.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// linkLocal is the IPv6 link-local address that a link with a MAC gives itself (RFC 4291,
// appendix A).
func linkLocal(mac model.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: mac[0] ^ 0x02, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	})
}

// sorted returns a sorted copy without repetitions.
func sorted(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}
