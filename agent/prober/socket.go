package prober

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// ports are the UDP ports from which messages of a kind are sent, by model.Ways: the
// node gives what is sent to them the mark of that way.
var ports = map[byte][2]uint16{
	request: {model.ProbeRoutedSource, model.ProbeOverlaySource},
	answer:  {model.ProbeRoutedPort, model.ProbeOverlayPort},
}

// socket sends messages of one kind and way from one address, and takes those of the
// other kind.
type socket struct {
	conn *net.UDPConn
	is4  bool
	kind byte
	way  int
}

// other returns the kind of messages that a socket takes.
func (s *socket) other() byte { return request + answer - s.kind }

// listen opens a socket in the calling thread's network namespace.
func listen(addr netip.Addr, kind byte, way int) (*socket, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, ports[kind][way])))
	if err != nil {
		return nil, fmt.Errorf("listen for probes at %s: %w", addr, err)
	}
	s := &socket{conn: conn, is4: addr.Is4(), kind: kind, way: way}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for probes at %s: %w", addr, err), conn.Close())
	}
	return s, nil
}

// prepare makes the kernel send packets whole, whatever it has heard about the path's
// MTU (ip(7), IP_PMTUDISC_PROBE), and take IPv6 packets that have no checksum.
func (s *socket) prepare() error {
	if s.is4 {
		return s.set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	return errors.Join(
		s.set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
		s.set(unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1))
}

// set sets an option of the socket.
func (s *socket) set(level, option, value int) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(err, failed)
}

// checksums turns the checksums of what is sent on or off.
func (s *socket) checksums(on bool) error {
	value := 1
	if on {
		value = 0
	}
	if s.is4 {
		return s.set(unix.SOL_SOCKET, unix.SO_NO_CHECK, value)
	}
	return s.set(unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, value)
}

// send sends a message to another address. It is for one caller at a time.
func (s *socket) send(m message, to netip.Addr, buffer []byte) error {
	m.kind, m.way = s.kind, s.way
	if m.bare {
		if err := s.checksums(false); err != nil {
			return err
		}
	}
	_, err := s.conn.WriteToUDPAddrPort(m.encode(buffer, to), netip.AddrPortFrom(to, ports[s.other()][s.way]))
	if m.bare {
		err = errors.Join(err, s.checksums(true))
	}
	return err
}

// maxPacket is the size of the largest IP packet in bytes.
const maxPacket = 65535

// serve answers the requests of those who may ask, and hands answers on, until the
// socket is closed.
func (s *socket) serve(p *Prober) {
	buffer, reply := make([]byte, maxPacket), make([]byte, maxPacket)
	for {
		size, from, err := s.conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// The kernel tells of what became of packets that were sent: that they do not
			// come back is seen.
			continue
		}
		addr := from.Addr().Unmap()
		m, ok := decode(buffer[:size], addr)
		if !ok || m.kind != s.other() || m.way != s.way || from.Port() != ports[m.kind][m.way] {
			continue
		}
		if m.kind == answer {
			p.answered(addr, m)
			continue
		}
		if p.mayAsk(addr, m.network) {
			//nolint:errcheck // Whoever asked sees what is missing.
			s.send(m, addr, reply)
		}
	}
}
