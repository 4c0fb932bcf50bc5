package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// portPrefix begins the names of the variables that say what is served, as in agnhost.
const portPrefix = "SERVE_SCTP_PORT_"

// portsOf returns what an environment asks for: the text that is sent to each client of a port.
func portsOf(environ []string) (map[uint16]string, error) {
	texts := map[uint16]string{}
	for _, variable := range environ {
		name, text, _ := strings.Cut(variable, "=")
		number, ok := strings.CutPrefix(name, portPrefix)
		if !ok {
			continue
		}
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if text == "" {
			return nil, fmt.Errorf("%s is empty: give it the text to send, SCTP has no empty messages", name)
		}
		texts[uint16(port)] = text
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("nothing to serve: set %sPORT=TEXT", portPrefix)
	}
	return texts, nil
}

// server sends a text to whoever connects to a port, and is done with them.
//
// It remembers no association. Its cookie holds all that it needs of a client, and the tag that it chooses
// authenticates the cookie, so that a COOKIE ECHO is answered the same whenever it comes: a client that misses the
// answer asks again. What comes later on an association is not answered. Nor is a port that it does not serve, for
// it may be another server's in the same network namespace.
type server struct {
	texts  map[uint16]string
	secret []byte
}

func newServer(texts map[uint16]string) *server {
	s := &server{texts: texts, secret: make([]byte, sha256.Size)}
	rand.Read(s.secret) // never fails
	return s
}

// answer returns what a packet from a peer is answered with, and false where that is nothing.
func (s *server) answer(peer netip.Addr, in packet) (packet, bool) {
	text, ok := s.texts[in.destination]
	if !ok || len(in.chunks) == 0 {
		return packet{}, false
	}
	out := packet{source: in.destination, destination: in.source}
	switch c := in.chunks[0]; c.kind {
	case typeInit:
		client, err := parseStart(c.value)
		if err != nil || in.tag != 0 {
			return packet{}, false
		}
		cookie := binary.BigEndian.AppendUint32(nil, client.tag)
		tag := s.tag(peer, in, cookie)
		out.tag = client.tag
		out.chunks = []chunk{start{tag: tag, tsn: tag, cookie: cookie}.chunk()}
	case typeCookieEcho:
		if len(c.value) != 4 || in.tag != s.tag(peer, in, c.value) {
			return packet{}, false
		}
		out.tag = binary.BigEndian.Uint32(c.value)
		out.chunks = []chunk{{kind: typeCookieAck}, data(in.tag, text)}
	default:
		return packet{}, false
	}
	return out, true
}

// tag is the server's tag in the association that the peer asks for by a packet: a code that only the server can
// compute. It is never 0, which is the tag of no association.
func (s *server) tag(peer netip.Addr, in packet, cookie []byte) uint32 {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write(peer.AsSlice())
	mac.Write(binary.BigEndian.AppendUint16(nil, in.source))
	mac.Write(binary.BigEndian.AppendUint16(nil, in.destination))
	mac.Write(cookie)
	return max(1, binary.BigEndian.Uint32(mac.Sum(nil)))
}

// family is a version of IP, with what a server's socket of it needs in order to answer from the address that was
// asked, of which a node has several.
type family struct {
	network string
	// level and option make the kernel say to which address a packet came, by a control message that also tells it
	// from which one to send.
	level, option int
	// iface is where that message holds the index of an interface, behind its header.
	iface int
	// header is the length of the IP header before a packet that was read.
	header func(raw []byte) int
}

var families = []family{
	{
		network: "ip4", level: unix.IPPROTO_IP, option: unix.IP_PKTINFO, iface: 0,
		header: func(raw []byte) int { return int(raw[0]&0xf) * 4 },
	},
	{
		network: "ip6", level: unix.IPPROTO_IPV6, option: unix.IPV6_RECVPKTINFO, iface: 16,
		header: func([]byte) int { return 0 },
	},
}

// listen opens a socket that receives all SCTP packets to its network namespace.
func (f family) listen() (*net.IPConn, error) {
	conn, err := net.ListenIP(network(f.network), nil)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), f.level, f.option, 1) }), err)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask for the addresses of packets: %w", err)
	}
	return conn, nil
}

// serve answers packets until the socket fails, and closes it.
func (f family) serve(conn *net.IPConn, s *server) error {
	defer conn.Close()
	buffer, control := make([]byte, 1<<16), make([]byte, 128)
	for {
		size, controlSize, _, peer, err := conn.ReadMsgIP(buffer, control)
		if err != nil {
			return err
		}
		in, err := decode(buffer[f.header(buffer):size])
		if err != nil {
			continue // As a host does (RFC 9260, 6.8): who sent it asks again.
		}
		address, _ := netip.AddrFromSlice(peer.IP)
		out, ok := s.answer(address.Unmap(), in)
		if !ok {
			continue
		}
		// Routes decide on the interface, which may be another than the one by which the packet came.
		clear(control[unix.CmsgLen(0)+f.iface:][:4])
		if _, _, err := conn.WriteMsgIP(out.encode(), control[:controlSize], peer); err != nil {
			fmt.Printf("answer to %s: %v\n", peer, err)
		}
	}
}

// porter serves what the environment asks for, by IPv4 and IPv6, and returns only on an error.
func porter(environ []string) error {
	texts, err := portsOf(environ)
	if err != nil {
		return err
	}
	s := newServer(texts)
	failed := make(chan error)
	for _, f := range families {
		conn, err := f.listen()
		if err != nil {
			return fmt.Errorf("listen by %s, which needs CAP_NET_RAW: %w", f.network, err)
		}
		go func() { failed <- f.serve(conn, s) }()
	}
	return <-failed
}

// network is the name by which package net knows a raw socket of SCTP: of ip4, ip6, or the family of an address, ip.
func network(family string) string { return fmt.Sprintf("%s:%d", family, protocol) }
