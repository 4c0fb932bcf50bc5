package kernel

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// WatchPolicy calls changed after each transaction, whoever's, that changed something
// of the policy tables, until ctx ends or the subscription fails; then it returns an
// error. It may miss some where very many things change at once, as when a large
// table is replaced. changed must not block.
func (k *Kernel) WatchPolicy(ctx context.Context, changed func()) error {
	socket, err := subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close)
	defer stop()
	defer socket.Close()
	touched := false
	err = receive(socket, func(m syscall.NetlinkMessage) error {
		switch {
		case isGeneration(m):
			if touched {
				changed()
			}
			touched = false
		case !touched:
			touched = isOfPolicy(m)
		}
		return nil
	}, func() {})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// isGeneration says whether a message ends those of one transaction.
func isGeneration(m syscall.NetlinkMessage) bool {
	return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN
}

// isOfPolicy says whether a message is about a policy table. All messages name the
// table by an attribute of the same number, those about tables as their name.
func isOfPolicy(m syscall.NetlinkMessage) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg {
		return false
	}
	attrs, err := nftAttributes(m.Data[nfgenmsg:])
	return err == nil && textOf(attrs[nftTableAttr]) == model.PolicyTable
}
