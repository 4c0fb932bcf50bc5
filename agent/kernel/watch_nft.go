package kernel

import (
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/internal/model"
)

// nftFamilies are the numbers of the families of podnet's tables.
var nftFamilies = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_ARP: "arp"}

const (
	// nfgenmsg is the length of the header of nfnetlink messages.
	nfgenmsg = 4
	// nftTableAttr is the attribute that names the table, in messages on tables and
	// on everything in them (linux/netfilter/nf_tables.h).
	nftTableAttr = unix.NFTA_TABLE_NAME
)

// nft reads a message on nftables. Elements of sets are read one by one, as every
// pod changes some. All else is the structure of a table, which seldom changes:
// what it is then is for a pass to find out.
func (w *watcher) nft(m syscall.NetlinkMessage) error {
	kind := int(m.Header.Type & 0xff)
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || kind == unix.NFT_MSG_NEWGEN || len(m.Data) < nfgenmsg {
		return nil
	}
	family, ok := nftFamilies[m.Data[0]]
	if !ok {
		return nil
	}
	attrs, err := nftAttributes(m.Data[nfgenmsg:])
	if err != nil {
		return err
	}
	if textOf(attrs[nftTableAttr]) != model.FirewallTable {
		return nil
	}
	if kind != unix.NFT_MSG_NEWSETELEM && kind != unix.NFT_MSG_DELSETELEM {
		w.seen(diff.Sighting{Object: model.Table{Family: family, Name: model.FirewallTable}, Gone: kind == unix.NFT_MSG_DELTABLE})
		return nil
	}
	elements, err := nl.ParseRouteAttr(attrs[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
	if err != nil {
		return err
	}
	for _, e := range elements {
		element, err := nftAttributes(e.Value)
		if err != nil {
			return err
		}
		key, err := nftAttributes(element[unix.NFTA_SET_ELEM_KEY])
		if err != nil {
			return err
		}
		w.seen(diff.Sighting{
			Object: diff.ElementKey{
				Family: family, Table: model.FirewallTable, Set: textOf(attrs[unix.NFTA_SET_ELEM_LIST_SET]),
				Key: string(key[unix.NFTA_DATA_VALUE]),
			},
			Gone: kind == unix.NFT_MSG_DELSETELEM,
		})
	}
	return nil
}

// nftAttributes reads attributes by their kinds, whose upper bits are flags.
func nftAttributes(data []byte) (map[uint16][]byte, error) {
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

func textOf(value []byte) string { return strings.TrimRight(string(value), "\x00") }
