package nft

import (
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
	"github.com/podnet/podnet/internal/nft"
)

// familyNames are the families of podnet's tables by the kernel's numbers.
var familyNames = map[byte]nft.Family{unix.NFPROTO_INET: nft.Inet, unix.NFPROTO_BRIDGE: nft.Bridge, unix.NFPROTO_ARP: nft.ARP}

// Notices subscribes to changes of the tables of a name. It returns what reports them until
// that fails or stop is called. missed is called when some were lost.
func (*Conn) Notices(name string, seen func(nft.Notice), missed func()) (receive func() error, stop func(), err error) {
	s, err := socket.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe to changes of nftables: %w", err)
	}
	receive = func() error {
		return socket.Receive(s, func(m syscall.NetlinkMessage) error { return read(m, name, seen) }, missed)
	}
	return receive, s.Close, nil
}

// read reads a message on nftables. Elements of sets are read one by one, as every
// pod changes some. All else is the structure of a table, which seldom changes:
// what it is then is for others to find out.
func read(m syscall.NetlinkMessage, name string, seen func(nft.Notice)) error {
	kind := int(m.Header.Type & 0xff)
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || kind == unix.NFT_MSG_NEWGEN || len(m.Data) < socket.NetfilterHeader {
		return nil
	}
	family, ok := familyNames[m.Data[0]]
	if !ok {
		return nil
	}
	attrs, err := socket.Attributes(m.Data[socket.NetfilterHeader:])
	if err != nil {
		return err
	}
	if socket.Text(attrs[unix.NFTA_TABLE_NAME]) != name {
		return nil
	}
	if kind != unix.NFT_MSG_NEWSETELEM && kind != unix.NFT_MSG_DELSETELEM {
		seen(nft.Notice{Family: family, Gone: kind == unix.NFT_MSG_DELTABLE})
		return nil
	}
	elements, err := nl.ParseRouteAttr(attrs[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
	if err != nil {
		return err
	}
	for _, e := range elements {
		element, err := socket.Attributes(e.Value)
		if err != nil {
			return err
		}
		key, err := socket.Attributes(element[unix.NFTA_SET_ELEM_KEY])
		if err != nil {
			return err
		}
		seen(nft.Notice{
			Family: family, Set: socket.Text(attrs[unix.NFTA_SET_ELEM_LIST_SET]), Key: string(key[unix.NFTA_DATA_VALUE]),
			Gone: kind == unix.NFT_MSG_DELSETELEM,
		})
	}
	return nil
}
