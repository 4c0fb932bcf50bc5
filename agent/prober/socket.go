package prober

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// portOf is the UDP port from which messages of a kind are sent by one of model.Ways: the
// node gives what is sent to it the mark of that way.
func portOf(kind byte, way int) uint16 {
	if kind == request {
		return model.Ways[way].Source
	}
	return model.Ways[way].Port
}

// datagrams is what a socket does.
type datagrams interface {
	ReadFromUDPAddrPort(buffer []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(datagram []byte, to netip.AddrPort) (int, error)
	Close() error
}

// socket sends messages of one kind and way from one address, and takes those of the
// other kind.
type socket struct {
	conn datagrams
	kind byte
	way  int
	// checksums turns the checksums of what is sent on or off.
	checksums func(on bool) error
}

// other returns the kind of messages that a socket takes.
func (s *socket) other() byte { return request + answer - s.kind }

// listen opens a socket in the calling thread's network namespace.
func listen(addr netip.Addr, kind byte, way int) (*socket, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, portOf(kind, way))))
	if err != nil {
		return nil, fmt.Errorf("listen for probes at %s: %w", addr, err)
	}
	set := func(level, option, value int) error { return setOption(conn, level, option, value) }
	s := &socket{conn: conn, kind: kind, way: way}
	// The kernel sends packets whole, whatever it has heard about the path's MTU
	// (ip(7), IP_PMTUDISC_PROBE), and takes IPv6 packets that have no checksum.
	if addr.Is4() {
		s.checksums = func(on bool) error { return set(unix.SOL_SOCKET, unix.SO_NO_CHECK, number(!on)) }
		err = set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	} else {
		s.checksums = func(on bool) error { return set(unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, number(!on)) }
		err = errors.Join(
			set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
			set(unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for probes at %s: %w", addr, err), conn.Close())
	}
	return s, nil
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func setOption(conn *net.UDPConn, level, option, value int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(err, failed)
}

// send sends a message to another address. It is for one caller at a time.
func (s *socket) send(m message, to netip.Addr, buffer []byte) error {
	m.kind, m.way = s.kind, s.way
	if m.bare {
		if err := s.checksums(false); err != nil {
			return err
		}
	}
	_, err := s.conn.WriteToUDPAddrPort(m.encode(buffer, to), netip.AddrPortFrom(to, portOf(s.other(), s.way)))
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
			// The kernel reports what became of packets that were sent: that they do not
			// come back is seen.
			continue
		}
		addr := from.Addr().Unmap()
		m, ok := decode(buffer[:size], addr)
		if !ok || m.kind != s.other() || m.way != s.way || from.Port() != portOf(m.kind, m.way) {
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
