package nft

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
)

// Watch calls changed after each transaction, whoever's, that changed something of the
// tables of a name, until ctx ends or the subscription fails; then it returns an
// error. It may miss some where very many things change at once, as when a large
// table is replaced. changed must not block.
func (*Conn) Watch(ctx context.Context, name string, changed func()) error {
	s, err := socket.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	defer s.Close()
	touched := false
	err = socket.Receive(s, func(m syscall.NetlinkMessage) error {
		switch {
		case isGeneration(m):
			if touched {
				changed()
			}
			touched = false
		case !touched:
			touched = isOf(m, name)
		}
		return nil
	}, func() {})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// isGeneration reports whether a message ends those of one transaction.
func isGeneration(m syscall.NetlinkMessage) bool {
	return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN
}

// isOf reports whether a message is about a table of a name. All messages name the
// table by an attribute of the same number, those about tables as their name.
func isOf(m syscall.NetlinkMessage, name string) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < socket.NetfilterHeader {
		return false
	}
	attrs, err := socket.Attributes(m.Data[socket.NetfilterHeader:])
	return err == nil && socket.Text(attrs[unix.NFTA_TABLE_NAME]) == name
}
