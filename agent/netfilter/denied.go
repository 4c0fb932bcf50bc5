package netfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
	"github.com/podnet/podnet/internal/model"
	"github.com/podnet/podnet/internal/nft"
)

// Messages, commands and attributes of NFLOG (linux/netfilter/nfnetlink_log.h).
const (
	nflogPacket    = unix.NFNL_SUBSYS_ULOG << 8
	nflogConfig    = unix.NFNL_SUBSYS_ULOG<<8 | 1
	nflogConfigCmd = 1 // attribute NFULA_CFG_CMD
	nflogBind      = 1 // command NFULNL_CFG_CMD_BIND

	nflogHeader  = 1  // attribute NFULA_PACKET_HDR
	nflogPayload = 9  // attribute NFULA_PAYLOAD
	nflogPrefix  = 10 // attribute NFULA_PREFIX
	// nflogHook is where the header has the hook that the packet was in.
	nflogHook = 2
)

// deniedBuffer is the receive buffer for denied packets in bytes: that of minutes.
const deniedBuffer = 1 << 20

// Checker asks the kernel whether it takes a table of nftables.
type Checker interface {
	Check(ctx context.Context, t nft.Table) error
}

// Log receives the packets that rules give to the agent.
type Log struct {
	NFT Checker
}

// WatchDenied calls seen with the packets that the kernel gives to model.DeniedGroup, until ctx
// ends or that fails; then it returns an error, as it does at once where the kernel
// cannot give any. It calls ready when rules may give packets to the group: earlier they
// could not be made where the kernel has not loaded what they need. While seen does not
// return, packets wait in a buffer, and are lost where it is full.
func (l Log) WatchDenied(ctx context.Context, ready func(), seen func(model.DeniedPacket)) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open a socket for denied packets: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	defer s.Close()
	if err := s.SetReceiveBufferSize(deniedBuffer, true); err != nil {
		return fmt.Errorf("set the receive buffer for denied packets: %w", err)
	}
	if err := bindGroup(s, model.DeniedGroup); err != nil {
		return err
	}
	if err := l.try(ctx); err != nil {
		return err
	}
	ready()
	err = socket.Receive(s, func(m syscall.NetlinkMessage) error {
		if m.Header.Type != nflogPacket {
			return nil
		}
		packet, err := deniedIn(m.Data)
		if err == nil {
			seen(packet)
		}
		return err
	}, func() {})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// bindGroup makes a socket the one that gets the packets of a group. A group has one.
func bindGroup(s *nl.NetlinkSocket, group uint16) error {
	req := nl.NewNetlinkRequest(nflogConfig, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{
		NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0, ResId: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, group)),
	})
	req.AddData(nl.NewRtAttr(nflogConfigCmd, []byte{nflogBind}))
	code, err := acknowledged(s, req)
	switch {
	case err != nil:
	case errors.Is(code, unix.EBUSY), errors.Is(code, unix.EPERM):
		err = fmt.Errorf("another program reads it, or this one may not: %w", code)
	case errors.Is(code, unix.EINVAL):
		err = fmt.Errorf("the kernel has no NFLOG: load its module (modprobe nfnetlink_log) or use a kernel that has it: %w", code)
	case code != 0:
		err = code
	}
	if err != nil {
		return fmt.Errorf("ask for the packets of NFLOG group %d: %w", group, err)
	}
	return nil
}

// acknowledged sends a request and returns the kernel's answer.
func acknowledged(s *nl.NetlinkSocket, req *nl.NetlinkRequest) (syscall.Errno, error) {
	if err := s.Send(req); err != nil {
		return 0, err
	}
	for {
		messages, _, err := s.Receive()
		if err != nil {
			return 0, err
		}
		for _, m := range messages {
			if m.Header.Type == unix.NLMSG_ERROR && m.Header.Seq == req.Seq && len(m.Data) >= 4 {
				return syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data))), nil //nolint:gosec // It is a number with a sign.
			}
		}
	}
}

// try asks the kernel whether it takes rules that give packets to a group, and no more
// of them than a limit allows. Nothing is made.
func (l Log) try(ctx context.Context) error {
	rules := nft.Rules(fmt.Sprintf("limit rate 1/second log group %d", model.DeniedGroup))
	err := l.NFT.Check(ctx, nft.Table{
		Family: nft.Inet, Name: model.PolicyTable + "-trial", Chains: []nft.Chain{{Name: "trial", Rules: rules}},
	})
	if err != nil {
		return fmt.Errorf("the kernel takes no rules that log or limit packets (modules nft_log, nft_limit): %w", err)
	}
	return nil
}

// deniedIn reads a message on a packet.
func deniedIn(message []byte) (model.DeniedPacket, error) {
	if len(message) < socket.NetfilterHeader {
		return model.DeniedPacket{}, errors.New("the message is too short")
	}
	attrs, err := socket.Attributes(message[socket.NetfilterHeader:])
	if err != nil {
		return model.DeniedPacket{}, err
	}
	header := attrs[nflogHeader]
	if len(header) <= nflogHook {
		return model.DeniedPacket{}, errors.New("the message has no header of a packet")
	}
	p, err := parsePacket(attrs[nflogPayload])
	p.Way = model.PacketWay(socket.Text(attrs[nflogPrefix]))
	p.ToNode = header[nflogHook] != unix.NF_INET_FORWARD
	return p, err
}
