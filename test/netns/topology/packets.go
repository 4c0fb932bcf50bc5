package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hush is how long a test waits before it takes something for dropped. What a busy machine
// delivers later is found by whoever listens next.
const hush = 150 * time.Millisecond

// wait is how long to listen for what is to come, or is not to.
func wait(expected bool) time.Duration {
	if expected {
		return patience
	}
	return hush
}

// Sink remembers who sent datagrams to a port.
type Sink struct {
	conn *net.UDPConn
}

// NewSink opens a port that answers nobody.
func (n *Namespace) NewSink(t testing.TB, port uint16) *Sink {
	t.Helper()
	s := &Sink{}
	n.Do(t, func() error {
		var err error
		s.conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// Heard returns the source of the next datagram, and false where none comes. One that is
// expected is waited for as long as it takes.
func (s *Sink) Heard(t testing.TB, expected bool) (netip.Addr, bool) {
	t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(wait(expected))); err != nil {
		t.Fatal(err)
	}
	_, from, err := s.conn.ReadFromUDPAddrPort(make([]byte, 1500))
	if err != nil && !isTimeout(err) {
		t.Fatal(err)
	}
	return from.Addr().Unmap(), err == nil
}

// Send sends a datagram from the sink's port.
func (s *Sink) Send(t testing.TB, to netip.Addr, port uint16) {
	t.Helper()
	if _, err := s.conn.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(to, port)); err != nil {
		t.Fatal(err)
	}
}

// SendFrom sends a datagram with a source of the test's choice, whether or not
// the namespace has that address (IP_TRANSPARENT).
func (n *Namespace) SendFrom(from, to netip.Addr, port uint16, payload []byte) error {
	return n.SendSegmentsFrom(from, to, port, payload, 0)
}

// SendSegmentsFrom is SendFrom for several datagrams, of size bytes each but the last,
// that leave the namespace as one packet (UDP_SEGMENT). The size 0 stands for one datagram.
func (n *Namespace) SendSegmentsFrom(from, to netip.Addr, port uint16, payload []byte, size int) error {
	return n.Try(func() error {
		family := unix.AF_INET
		if to.Is6() {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		level, option := unix.SOL_IP, unix.IP_TRANSPARENT
		if to.Is6() {
			level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return fmt.Errorf("allow any source: %w", err)
		}
		if size > 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, size); err != nil {
				return fmt.Errorf("send segments: %w", err)
			}
		}
		if err := unix.Bind(fd, sockaddr(from, 0)); err != nil {
			return fmt.Errorf("bind to %s: %w", from, err)
		}
		return unix.Sendto(fd, payload, 0, sockaddr(to, port))
	})
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// SendFrame sends an Ethernet frame by an interface.
func (n *Namespace) SendFrame(t testing.TB, link string, frame []byte) {
	t.Helper()
	n.Do(t, func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Halen: 6})
	})
}

// MAC is the Ethernet address of an interface.
func (n *Namespace) MAC(t testing.TB, link string) [6]byte {
	t.Helper()
	var mac [6]byte
	n.Do(t, func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		copy(mac[:], i.HardwareAddr)
		return nil
	})
	return mac
}

// Frames are what comes in on an interface.
type Frames struct {
	fd int
}

// NewFrames begins to listen for frames of an Ethernet protocol on an interface.
func (n *Namespace) NewFrames(t testing.TB, link string, protocol uint16) *Frames {
	t.Helper()
	f := &Frames{}
	n.Do(t, func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		network := protocol<<8 | protocol>>8
		if f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(network)); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(hush.Nanoseconds())
		return errors.Join(
			unix.SetsockoptTimeval(f.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
			unix.Bind(f.fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: i.Index}))
	})
	t.Cleanup(func() { unix.Close(f.fd) })
	return f
}

// Heard reports whether a frame comes in that fulfils a predicate. One that is expected is
// waited for as long as it takes.
func (f *Frames) Heard(expected bool, match func(frame []byte) bool) bool {
	buffer := make([]byte, 65536)
	for deadline := time.Now().Add(wait(expected)); time.Now().Before(deadline); {
		size, _, err := unix.Recvfrom(f.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		if match(buffer[:size]) {
			return true
		}
	}
	return false
}

// Numbers of Ethernet protocols.
const (
	EtherIPv4 = 0x0800
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
)

// Frame puts an Ethernet header before a packet.
func Frame(to, from [6]byte, protocol uint16, packet []byte) []byte {
	return slices.Concat(to[:], from[:], binary.BigEndian.AppendUint16(nil, protocol), packet)
}

// Broadcast is the Ethernet address of all.
var Broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ARP is a gratuitous announcement (RFC 5227) that mac has addr.
func ARP(mac [6]byte, addr netip.Addr) []byte {
	ip := addr.AsSlice()
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac[:], ip, make([]byte, 6), ip)
}

// Datagram is a whole IP packet with a UDP datagram in it.
func Datagram(from, to netip.Addr, port uint16, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 40000)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(udp, 0, 0)
	udp = append(udp, payload...)
	if len(udp)%2 == 1 {
		udp = append(udp, 0)
	}
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], checksum(slices.Concat(pseudoHeader(from, to, unix.IPPROTO_UDP, len(udp)), udp)))
	return slices.Concat(header(from, to, unix.IPPROTO_UDP, len(udp)), udp)
}

// pseudoHeader is what checksums of a transport protocol include (RFC 8200, section 8.1;
// IPv4's sums up to the same).
func pseudoHeader(from, to netip.Addr, protocol byte, size int) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(size))
	return slices.Concat(from.AsSlice(), to.AsSlice(), length, []byte{0, 0, 0, protocol})
}

// header is the IP header of a packet with size bytes after it.
func header(from, to netip.Addr, protocol byte, size int) []byte {
	if from.Is4() {
		h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+size))
		h = slices.Concat(h, from.AsSlice(), to.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return h
	}
	h := []byte{0x60, 0, 0, 0, 0, 0, protocol, 64}
	binary.BigEndian.PutUint16(h[4:], uint16(size))
	return slices.Concat(h, from.AsSlice(), to.AsSlice())
}

// Fragments cuts an IP packet of Datagram in two, of which the first has that many bytes
// after the IP header. It must be a multiple of 8.
func Fragments(packet []byte, first int) [2][]byte {
	const id = 7
	var out [2][]byte
	for i := range out {
		offset, more := 0, 1
		size := 20
		if packet[0]>>4 == 6 {
			size = 40
		}
		body := packet[size : size+first]
		if i == 1 {
			offset, more, body = first/8, 0, packet[size+first:]
		}
		h := slices.Clone(packet[:size])
		if size == 20 {
			binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
			binary.BigEndian.PutUint16(h[4:], id)
			binary.BigEndian.PutUint16(h[6:], uint16(more<<13|offset))
			binary.BigEndian.PutUint16(h[10:], 0)
			binary.BigEndian.PutUint16(h[10:], checksum(h))
		} else {
			binary.BigEndian.PutUint16(h[4:], uint16(8+len(body)))
			h[6] = unix.IPPROTO_FRAGMENT
			fragment := []byte{unix.IPPROTO_UDP, 0}
			fragment = binary.BigEndian.AppendUint16(fragment, uint16(offset<<3|more))
			h = append(h, binary.BigEndian.AppendUint32(fragment, id)...)
		}
		out[i] = append(h, body...)
	}
	return out
}

// PortUnreachable is an ICMP error that says of a packet that nobody takes it.
func PortUnreachable(from, to netip.Addr, packet []byte) []byte {
	if from.Is4() {
		return icmpError(from, to, []byte{3, 3, 0, 0, 0, 0, 0, 0}, packet)
	}
	return icmpError(from, to, []byte{1, 4, 0, 0, 0, 0, 0, 0}, packet)
}

// TooBig is an ICMP error that says of a packet that the path carries none of its size.
func TooBig(from, to netip.Addr, mtu uint16, packet []byte) []byte {
	start := []byte{2, 0, 0, 0, 0, 0}
	if from.Is4() {
		start = []byte{3, 4, 0, 0, 0, 0}
	}
	return icmpError(from, to, binary.BigEndian.AppendUint16(start, mtu), packet)
}

// icmpError is a whole IP packet with an ICMP error of these first bytes about a packet.
func icmpError(from, to netip.Addr, start, packet []byte) []byte {
	icmp := slices.Concat(start, packet)
	if len(icmp)%2 == 1 {
		icmp = append(icmp, 0)
	}
	protocol, sum := byte(unix.IPPROTO_ICMP), icmp
	if from.Is6() {
		protocol = unix.IPPROTO_ICMPV6
		sum = slices.Concat(pseudoHeader(from, to, protocol, len(icmp)), icmp)
	}
	binary.BigEndian.PutUint16(icmp[2:], checksum(sum))
	return slices.Concat(header(from, to, protocol, len(icmp)), icmp)
}

// VXLAN puts the header of RFC 7348 before a frame.
func VXLAN(vni uint32, frame []byte) []byte {
	return slices.Concat([]byte{0x08, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, vni<<8), frame)
}
