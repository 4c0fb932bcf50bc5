package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/internal/model"
)

// responderVariable makes this program one that answers the probes of all peers. It is
// a program of its own so that its processor time is not the agent's.
const responderVariable = "PODNET_BENCH_RESPONDER"

func init() {
	if os.Getenv(responderVariable) == "" {
		return
	}
	failed := make(chan error)
	for _, port := range []int{model.ProbeRoutedPort, model.ProbeOverlayPort} {
		go func() { failed <- respond(port) }()
	}
	fmt.Fprintln(os.Stderr, "answering probes:", <-failed)
	os.Exit(1)
}

// Of a probe (agent/prober): where its kind is, and which kind an answer has.
const (
	kindOffset = 8
	answer     = 2
)

// respond answers what comes to a port of any address, from there and by the link that
// it came by.
func respond(port int) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	datagram, info := make([]byte, 65536), make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	for {
		size, infoSize, _, from, err := conn.ReadMsgUDPAddrPort(datagram, info)
		if err != nil {
			return err
		}
		if size > kindOffset {
			datagram[kindOffset] = answer
			// What a packet came to and by says also what its answer shall go from and by.
			_, _, _ = conn.WriteMsgUDPAddrPort(datagram[:size], info[:infoSize], from)
		}
	}
}

// answerAll makes the underlay, which is the node's router, all peers at once: it has
// their addresses, takes what they are sent by both kinds of paths, and answers probes until
// the function that it returns is called. By the overlay it answers from the endpoint
// of one of them.
func (a *agent) answerAll(b *testing.B) (stop func()) {
	b.Helper()
	var mac string
	a.Do(b, func() error {
		device, err := net.InterfaceByName(model.VXLANLink4)
		if err == nil {
			mac = device.HardwareAddr.String()
		}
		return err
	})
	node := a.IPv4.Addr()
	u := a.underlay
	u.Script(b, fmt.Sprintf(`
		ip link add peers mtu 1450 type vxlan id 7466 dstport 4789 local %[7]s nolearning
		ip link set peers up
		bridge fdb add %[1]s dev peers dst %[2]s
		ip neigh add %[3]s dev peers lladdr %[1]s nud permanent
		ip route add local %[4]s dev lo
		ip route add local %[5]s dev lo
		ip route add %[6]s via %[2]s dev fabric metric 1
		ip route add %[6]s via %[3]s dev peers onlink metric 2
		nft add table netdev peers
	`, mac, node, ownBlock.Addr(), peerRange, endpoints, ownBlock, peer(0).Endpoints[0]))
	// Frames to each peer have a MAC of their own.
	u.Run(b, "nft", "add chain netdev peers ingress { type filter hook ingress device peers priority 0 ; }")
	u.Run(b, "nft", "add rule netdev peers ingress meta pkttype set host")
	for _, link := range []string{"all", "fabric", "peers"} {
		u.Sysctl(b, "net/ipv4/conf/"+link+"/rp_filter", "0")
	}
	responder := exec.Command("/proc/self/exe")
	var output strings.Builder
	responder.Env, responder.Stderr = append(os.Environ(), responderVariable+"=1"), &output
	u.Do(b, responder.Start)
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		responder.Process.Kill() //nolint:errcheck // it has ended then
		responder.Wait()         //nolint:errcheck // it was killed
		if output.Len() > 0 {
			b.Error(output.String())
		}
	}
	b.Cleanup(stop)
	return stop
}
