package host

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/agent/socket"
)

// endless are traces of packets that are not the probes'.
type endless struct{}

func (endless) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	time.Sleep(traceWait / 2)
	header := syscall.NlMsghdr{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE}
	return []syscall.NetlinkMessage{{Header: header, Data: make([]byte, socket.NetfilterHeader)}}, &unix.SockaddrNetlink{Pid: nl.PidKernel}, nil
}

func TestTracesOfOthersEndTheSearchAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if by, err := readTrace(t.Context(), endless{}, netip.MustParseAddr("10.244.1.1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dropped by %+v, %v", by, err)
		}
	})
}
