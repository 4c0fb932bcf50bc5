package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
)

// Counters returns how many packets each counter of the inet table of a name has
// counted; none where there is no such table. The kernel is asked without nft, which
// reads all elements of the table's sets before it lists anything.
func (*Conn) Counters(_ context.Context, table string) (map[string]uint64, error) {
	what := "the counters of nft table inet " + table
	messages, err := socket.Complete(what, func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETOBJ, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: nl.NFNETLINK_V0})
		req.AddData(nl.NewRtAttr(unix.NFTA_OBJ_TABLE, nl.ZeroTerminated(table)))
		req.AddData(nl.NewRtAttr(unix.NFTA_OBJ_TYPE, nl.BEUint32Attr(unix.NFT_OBJECT_COUNTER)))
		return req.Execute(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWOBJ)
	})
	if err != nil {
		return nil, err
	}
	counters := map[string]uint64{}
	for _, m := range messages {
		name, packets, err := counterIn(m)
		if err != nil {
			return nil, fmt.Errorf("read one of %s: %w", what, err)
		}
		counters[name] = packets
	}
	return counters, nil
}

// counterIn reads a message on a counter.
func counterIn(message []byte) (name string, packets uint64, err error) {
	if len(message) < socket.NetfilterHeader {
		return "", 0, errors.New("the message is too short")
	}
	attrs, err := socket.Attributes(message[socket.NetfilterHeader:])
	if err != nil {
		return "", 0, err
	}
	data, err := socket.Attributes(attrs[unix.NFTA_OBJ_DATA])
	if err != nil {
		return "", 0, err
	}
	value := data[unix.NFTA_COUNTER_PACKETS]
	if len(value) != 8 {
		return "", 0, fmt.Errorf("the counter %q has %d octets", socket.Text(attrs[unix.NFTA_OBJ_NAME]), len(value))
	}
	return socket.Text(attrs[unix.NFTA_OBJ_NAME]), binary.BigEndian.Uint64(value), nil
}
