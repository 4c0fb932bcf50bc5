package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// PolicyCounters returns how many packets each counter of the table that enforces
// network policy has counted; none where there is no such table. The kernel is asked
// without nft, which reads all elements of the table's sets before it lists anything.
func (k *Kernel) PolicyCounters(context.Context) (map[string]uint64, error) {
	messages, err := complete("the counters of the policy table", func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETOBJ, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: nl.NFNETLINK_V0})
		req.AddData(nl.NewRtAttr(unix.NFTA_OBJ_TABLE, nl.ZeroTerminated(model.PolicyTable)))
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
			return nil, fmt.Errorf("read a counter of the policy table: %w", err)
		}
		counters[name] = packets
	}
	return counters, nil
}

// counterIn reads a message on a counter.
func counterIn(message []byte) (name string, packets uint64, err error) {
	if len(message) < nfgenmsg {
		return "", 0, errors.New("the message is too short")
	}
	attrs, err := nftAttributes(message[nfgenmsg:])
	if err != nil {
		return "", 0, err
	}
	data, err := nftAttributes(attrs[unix.NFTA_OBJ_DATA])
	if err != nil {
		return "", 0, err
	}
	value := data[unix.NFTA_COUNTER_PACKETS]
	if len(value) != 8 {
		return "", 0, fmt.Errorf("the counter %q has %d octets", textOf(attrs[unix.NFTA_OBJ_NAME]), len(value))
	}
	return textOf(attrs[unix.NFTA_OBJ_NAME]), binary.BigEndian.Uint64(value), nil
}
