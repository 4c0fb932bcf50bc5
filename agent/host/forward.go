package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

const (
	// forwardTries is how often a packet is sent before it counts as dropped, and
	// forwardWait how long each is waited for. Packets here take microseconds.
	forwardTries = 3
	forwardWait  = 100 * time.Millisecond
)

// forwardFindings sends packets through the node as those of pods go, and where none
// comes out says what drops them, in whatever table.
func (h *Host) forwardFindings(ctx context.Context, probe model.Pod) ([]model.Finding, error) {
	if err := h.removeTrace(ctx); err != nil {
		return nil, err
	}
	var out []model.Finding
	for family := range 2 {
		i := slices.IndexFunc(probe.Addrs, func(a netip.Addr) bool { return model.FamilyIndex(a) == family })
		if i < 0 {
			continue
		}
		found, err := h.forwards(ctx, probe, probe.Addrs[i])
		if err != nil {
			return nil, fmt.Errorf("send a packet of %s through the node: %w", probe.Addrs[i], err)
		}
		out = append(out, found...)
	}
	// One rule may drop the packets of both families.
	return slices.CompactFunc(out, func(a, b model.Finding) bool { return a.Message == b.Message }), nil
}

// forwards sends a packet from an address of the probes to itself by way of the node.
func (h *Host) forwards(ctx context.Context, probe model.Pod, addr netip.Addr) ([]model.Finding, error) {
	r, err := newRound(probe, addr)
	if err != nil {
		return nil, err
	}
	defer r.close()
	for range forwardTries {
		if back, err := r.send(); back || err != nil {
			return nil, err
		}
	}
	by, err := h.trace(ctx, probe, addr, r.send)
	if errors.Is(err, errArrived) || by.table == model.FirewallTable || by.table == model.PolicyTable {
		// podnet's own tables are changed at this moment.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []model.Finding{{Type: FindingForwardDrop, Message: by.sentence()}}, nil
}

// errArrived says that a packet that is traced was not dropped.
var errArrived = errors.New("the packet arrived")

// round sends packets from the probes' namespace by the node back to it. The kernel in
// the namespace drops what comes from its own address; the socket sees it all the same.
type round struct {
	fd     int
	link   int
	addr   netip.Addr
	header []byte
}

func newRound(probe model.Pod, addr netip.Addr) (*round, error) {
	to, err := routerOf(probe)
	if err != nil {
		return nil, err
	}
	protocol := uint16(unix.ETH_P_IP)
	if addr.Is6() {
		protocol = unix.ETH_P_IPV6
	}
	r := &round{fd: -1, addr: addr, header: binary.BigEndian.AppendUint16(slices.Concat(to[:], probe.PodMAC[:]), protocol)}
	target, err := ns.GetNS(probe.Netns)
	if err != nil {
		return nil, fmt.Errorf("open the namespace of the probes: %w", err)
	}
	defer target.Close()
	err = target.Do(func(ns.NetNS) error {
		link, err := net.InterfaceByName(probe.IfName)
		if err != nil {
			return err
		}
		r.link = link.Index
		if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
		return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: link.Index})
	})
	if err != nil {
		r.close()
		return nil, fmt.Errorf("open a socket in the namespace of the probes: %w", err)
	}
	return r, nil
}

// routerOf returns the MAC of the node's end to which pods' packets to others go.
func routerOf(probe model.Pod) (model.MAC, error) {
	if probe.Attachment != model.Bridge {
		return probe.HostMAC, nil
	}
	bridge, err := net.InterfaceByName(model.BridgeLink)
	if err != nil {
		return model.MAC{}, fmt.Errorf("find link %s: %w", model.BridgeLink, err)
	}
	var mac model.MAC
	copy(mac[:], bridge.HardwareAddr)
	return mac, nil
}

func (r *round) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
}

// send sends a packet, and reports whether it comes back.
func (r *round) send() (back bool, err error) {
	nonce := make([]byte, 16)
	// It never fails (crypto/rand).
	_, _ = rand.Read(nonce)
	frame := append(slices.Clone(r.header), datagram(r.addr, nonce)...)
	if err := unix.Sendto(r.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: r.link, Halen: 6}); err != nil {
		return false, err
	}
	buffer := make([]byte, 2048)
	for deadline := time.Now().Add(forwardWait); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		timeout := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return false, err
		}
		size, _, err := unix.Recvfrom(r.fd, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, err
		}
		if r.isMine(buffer[:size], nonce) {
			return true, nil
		}
	}
}

// isMine reports whether a frame is the one that was sent, and not an error of ICMP that
// quotes it.
func (r *round) isMine(frame, nonce []byte) bool {
	protocol := len(r.header) + 9
	if r.addr.Is6() {
		protocol = len(r.header) + 6
	}
	return len(frame) > protocol && frame[protocol] == unix.IPPROTO_UDP && bytes.Contains(frame, nonce)
}

// forwardSource is the UDP port from which packets are sent through the node, to
// model.ForwardPort.
const forwardSource = model.ForwardPort + 1

// datagram is a whole IP packet from an address to itself with a UDP datagram in it.
func datagram(addr netip.Addr, payload []byte) []byte {
	length := uint16(8 + len(payload)) //nolint:gosec // It is a nonce.
	udp := binary.BigEndian.AppendUint16(nil, forwardSource)
	udp = binary.BigEndian.AppendUint16(udp, model.ForwardPort)
	udp = binary.BigEndian.AppendUint16(udp, length)
	udp = append(append(udp, 0, 0), payload...)
	ends := slices.Concat(addr.AsSlice(), addr.AsSlice())
	// The pseudo header of RFC 768 has the same sum as that of RFC 8200.
	pseudo := binary.BigEndian.AppendUint16(append(slices.Clone(ends), 0, unix.IPPROTO_UDP), length)
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	if addr.Is6() {
		header := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, length)
		return slices.Concat(append(header, unix.IPPROTO_UDP, 64), ends, udp)
	}
	header := binary.BigEndian.AppendUint16([]byte{0x45, 0}, 20+length)
	header = slices.Concat(header, []byte{0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, ends)
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(header, udp...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(message []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum) //nolint:gosec // It has 16 bits.
}
