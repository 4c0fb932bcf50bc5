package kernel

import (
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/socket"
	"github.com/podnet/podnet/internal/model"
)

// nftFamilies are the numbers of the families of podnet's tables.
var nftFamilies = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_ARP: "arp"}

// nftTableAttr is the attribute that names the table, in messages on tables and
// on everything in them (linux/netfilter/nf_tables.h).
const nftTableAttr = unix.NFTA_TABLE_NAME

// nft reads a message on nftables. Elements of sets are read one by one, as every
// pod changes some. All else is the structure of a table, which seldom changes:
// what it is then is for a pass to find out.
func (w *watcher) nft(m syscall.NetlinkMessage) error {
	kind := int(m.Header.Type & 0xff)
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || kind == unix.NFT_MSG_NEWGEN || len(m.Data) < socket.NetfilterHeader {
		return nil
	}
	family, ok := nftFamilies[m.Data[0]]
	if !ok {
		return nil
	}
	attrs, err := socket.Attributes(m.Data[socket.NetfilterHeader:])
	if err != nil {
		return err
	}
	if socket.Text(attrs[nftTableAttr]) != model.FirewallTable {
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
		element, err := socket.Attributes(e.Value)
		if err != nil {
			return err
		}
		key, err := socket.Attributes(element[unix.NFTA_SET_ELEM_KEY])
		if err != nil {
			return err
		}
		w.seen(diff.Sighting{
			Object: diff.ElementKey{
				Family: family, Table: model.FirewallTable, Set: socket.Text(attrs[unix.NFTA_SET_ELEM_LIST_SET]),
				Key: string(key[unix.NFTA_DATA_VALUE]),
			},
			Gone: kind == unix.NFT_MSG_DELSETELEM,
		})
	}
	return nil
}
