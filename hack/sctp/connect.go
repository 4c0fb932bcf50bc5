package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// retry is how long an answer is waited for before the packet is sent again (RTO.Initial of RFC 9260, section 16).
const retry = time.Second

// causeUserAbort is the error cause of an ABORT that the user asked for (3.3.10.12).
const causeUserAbort = 12

// client is one end of an association that waits for a message of the server.
type client struct {
	port, serverPort uint16
	tag, serverTag   uint32
	// out is what is sent, and sent again until something is answered.
	out packet
}

// newClient begins an association with a port of a server, from a port and with a tag of its own choice: conntrack
// keeps what it knows of an association for some time after its end.
func newClient(serverPort uint16) *client {
	c := &client{port: uint16(32768 + rand.IntN(28232)), serverPort: serverPort, tag: max(1, rand.Uint32())}
	c.out = c.packet(start{tag: c.tag, tsn: c.tag}.chunk())
	return c
}

func (c *client) packet(chunks ...chunk) packet {
	return packet{source: c.port, destination: c.serverPort, tag: c.serverTag, chunks: chunks}
}

// progress is what a packet means to a client.
type progress int

const (
	nothing  progress = iota // not for this client, or nothing new
	next                     // out is another packet now
	received                 // a message came
	refused                  // the server ended the association
)

// take looks at a packet from the server's address.
func (c *client) take(in packet) progress {
	if in.source != c.serverPort || in.destination != c.port || in.tag != c.tag {
		return nothing
	}
	for _, k := range in.chunks {
		switch k.kind {
		case typeInitAck:
			server, err := parseStart(k.value)
			if err != nil || server.cookie == nil || c.serverTag != 0 {
				return nothing
			}
			c.serverTag = server.tag
			c.out = c.packet(chunk{kind: typeCookieEcho, value: server.cookie})
			return next
		case typeData:
			return received
		case typeAbort:
			return refused
		}
	}
	return nothing
}

// abort ends the association for both ends and for conntrack, which forgets it soon.
func (c *client) abort() packet {
	return c.packet(chunk{kind: typeAbort, value: binary.BigEndian.AppendUint16([]byte{0, causeUserAbort}, chunkHeaderSize)})
}

// connect asks a server for its message, as `agnhost connect --protocol=sctp` does: the error is the line that it prints.
func connect(address string, timeout time.Duration) error {
	ip, port, err := resolve(address)
	if err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	conn, err := net.DialIP(network("ip"), nil, ip)
	if err != nil {
		return fmt.Errorf("OTHER: %w", err)
	}
	defer conn.Close()
	err = exchange(conn, newClient(port), time.Now().Add(timeout))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("TIMEOUT")
	case err != nil:
		return fmt.Errorf("OTHER: %w", err)
	}
	return nil
}

func resolve(address string) (*net.IPAddr, uint16, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, 0, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, 0, err
	}
	ip, err := net.ResolveIPAddr("ip", host)
	return ip, uint16(port), err
}

// exchange carries the association to its end, or returns os.ErrDeadlineExceeded.
func exchange(conn *net.IPConn, c *client, deadline time.Time) error {
	defer func() {
		if c.serverTag != 0 {
			//nolint:errcheck // The association is given up, and runs into the server's and conntrack's timeouts at worst.
			send(conn, c.abort())
		}
	}()
	for time.Now().Before(deadline) {
		if err := send(conn, c.out); err != nil {
			return err
		}
		again := time.Now().Add(retry)
		if again.After(deadline) {
			again = deadline
		}
		switch p, err := await(conn, c, again); {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		case p == refused:
			return unix.ECONNREFUSED
		case p == received:
			return nil
		}
	}
	return os.ErrDeadlineExceeded
}

// send takes a packet that this host's own rules drop for sent, as the kernel's SCTP does.
func send(conn *net.IPConn, p packet) error {
	if _, err := conn.Write(p.encode()); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

// await reads packets until one means something to the client.
func await(conn *net.IPConn, c *client, until time.Time) (progress, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return nothing, err
	}
	buffer := make([]byte, 1<<16)
	for {
		// Unlike Read, it takes the IP header off.
		size, _, err := conn.ReadFromIP(buffer)
		if err != nil {
			return nothing, err
		}
		in, err := decode(buffer[:size])
		if err != nil {
			continue // As a host does (RFC 9260, 6.8).
		}
		if p := c.take(in); p != nothing {
			return p, nil
		}
	}
}
