// Package socket has what all talk with the kernel by netlink needs: lists that are complete,
// subscriptions that notice what they missed, and the attributes of netfilter's messages. What
// messages mean is left to those who ask for them.
package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dumpAttempts is how often a dump that changes interrupt is begun.
const dumpAttempts = 10

// Complete runs a dump until it was not interrupted, and fails where it always
// is. netlinksafe, which retries too, returns the part that it has in the end
// (discardErrDumpInterrupted); here a part must never pass for the whole, since
// what is missing in it would be made again, or its deletion forgotten.
func Complete[T any](what string, dump func() ([]T, error)) ([]T, error) {
	var err error
	for range dumpAttempts {
		var all []T
		all, err = dump()
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("list %s: %w", what, err)
}

// watchBuffer is the receive buffer of a subscription in bytes. What does not
// fit is lost, of which the kernel tells.
const watchBuffer = 4 << 20

// Subscribe opens a socket in the namespace of the calling thread that gets the
// notifications of some groups.
func Subscribe(protocol int, groups ...uint) (*nl.NetlinkSocket, error) {
	s, err := nl.Subscribe(protocol, groups...)
	if err != nil {
		return nil, err
	}
	if err := s.SetReceiveBufferSize(watchBuffer, true); err != nil {
		s.Close()
		return nil, fmt.Errorf("set the receive buffer: %w", err)
	}
	return s, nil
}

// Receive calls handle with the messages of a socket until that fails or is closed, and
// missed when some were lost.
func Receive(socket *nl.NetlinkSocket, handle func(syscall.NetlinkMessage) error, missed func()) error {
	for {
		messages, from, err := socket.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			// More came than the buffer holds.
			missed()
			continue
		}
		if err != nil {
			return fmt.Errorf("receive notifications: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range messages {
			if err := handle(m); err != nil {
				// What cannot be read may be anything.
				missed()
			}
		}
	}
}

// NetfilterHeader is the length of the header of netfilter's messages (linux/netfilter/nfnetlink.h, nfgenmsg).
const NetfilterHeader = 4

// Attributes reads attributes by their kinds, whose upper bits are flags.
func Attributes(data []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, err
	}
	attrs := make(map[uint16][]byte, len(list))
	for _, a := range list {
		attrs[a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Value
	}
	return attrs, nil
}

// Text reads an attribute that is a text.
func Text(value []byte) string { return strings.TrimRight(string(value), "\x00") }

// Uint32 reads an attribute of netfilter's that is a number; 0 where it is missing.
func Uint32(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
