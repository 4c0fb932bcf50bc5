package netfilter

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

// ipv4 and ipv6 are packets from 10.0.0.1 to 10.0.0.2, and from fd00::1 to fd00::2.
func ipv4(protocol byte, rest ...byte) []byte {
	return slices.Concat([]byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, rest)
}

func ipv6(next byte, rest ...byte) []byte {
	from, to := netip.MustParseAddr("fd00::1").As16(), netip.MustParseAddr("fd00::2").As16()
	return slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, next, 64}, from[:], to[:], rest)
}

func TestPacketsAreRead(t *testing.T) {
	ports := []byte{0x9c, 0x40, 0, 80, 0, 0, 0, 0}
	four := model.DeniedPacket{From: netip.MustParseAddr("10.0.0.1"), To: netip.MustParseAddr("10.0.0.2")}
	six := model.DeniedPacket{From: netip.MustParseAddr("fd00::1"), To: netip.MustParseAddr("fd00::2")}
	with := func(p model.DeniedPacket, protocol string, ports bool) model.DeniedPacket {
		p.Protocol = protocol
		if ports {
			p.FromPort, p.ToPort = 40000, 80
		}
		return p
	}
	options := ipv4(6, append([]byte{1, 1, 1, 0}, ports...)...)
	options[0] = 0x46
	fragment := ipv4(17, ports...)
	fragment[7] = 9
	for name, c := range map[string]struct {
		packet []byte
		want   model.DeniedPacket
	}{
		"TCP":                         {ipv4(6, ports...), with(four, "tcp", true)},
		"TCP after options":           {options, with(four, "tcp", true)},
		"UDP that is cut off":         {ipv4(17, ports[:3]...), with(four, "udp", false)},
		"a later fragment":            {fragment, with(four, "udp", false)},
		"ICMP":                        {ipv4(1, ports...), with(four, "icmp", false)},
		"GRE":                         {ipv4(47, ports...), with(four, "47", false)},
		"IPv6 and SCTP":               {ipv6(132, ports...), with(six, "sctp", true)},
		"ICMPv6":                      {ipv6(58, ports...), with(six, "ipv6-icmp", false)},
		"IPv6 with extensions":        {ipv6(0, slices.Concat([]byte{60, 0, 0, 0, 0, 0, 0, 0, 6, 1}, make([]byte, 14), ports)...), with(six, "tcp", true)},
		"IPv6, authenticated":         {ipv6(51, slices.Concat([]byte{6, 1}, make([]byte, 10), ports)...), with(six, "tcp", true)},
		"the first IPv6 fragment":     {ipv6(44, slices.Concat([]byte{17, 0, 0, 1, 0, 0, 0, 0}, ports)...), with(six, "udp", true)},
		"a later IPv6 fragment":       {ipv6(44, slices.Concat([]byte{17, 0, 0, 8, 0, 0, 0, 0}, ports)...), with(six, "udp", false)},
		"an extension that is cut":    {ipv6(60, 6, 9, 0, 0, 0, 0, 0, 0), with(six, "60", false)},
		"no more than an IPv6 header": {ipv6(17), with(six, "udp", false)},
	} {
		got, err := parsePacket(c.packet)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v (%v), want %+v", name, got, err, c.want)
		}
	}
	for name, packet := range map[string][]byte{"nothing": nil, "half of an IPv4 header": ipv4(6)[:10], "half of an IPv6 header": ipv6(6)[:30]} {
		if got, err := parsePacket(packet); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(ipv4(6, 1, 2, 3, 4))
	f.Add(ipv6(0, 60, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if p, err := parsePacket(packet); err == nil && (!p.From.IsValid() || !p.To.IsValid() || p.Protocol == "") {
			t.Errorf("got %+v", p)
		}
	})
}
