package agent

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/podnet/podnet/test/netns/topology"
)

// door hears who knocks: datagrams with a number, to any address of a namespace.
type door struct {
	mu    sync.Mutex
	first map[uint64]time.Time
}

// newDoor opens one, until the benchmark ends.
func newDoor(b *testing.B, in *topology.Namespace) *door {
	b.Helper()
	d := &door{first: map[uint64]time.Time{}}
	var conn *net.UDPConn
	in.Do(b, func() (err error) { conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: servedPort}); return err })
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for datagram := make([]byte, 8); ; {
			if _, err := conn.Read(datagram); err != nil {
				return
			}
			now, number := time.Now(), binary.BigEndian.Uint64(datagram)
			d.mu.Lock()
			if _, again := d.first[number]; !again {
				d.first[number] = now
			}
			d.mu.Unlock()
		}
	})
	b.Cleanup(func() { conn.Close(); hearing.Wait() })
	return d
}

// heard returns when a number was heard first, and false before.
func (d *door) heard(number uint64) (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.first[number]
	return at, ok
}

// knockInterval is the time between two datagrams.
const knockInterval = 200 * time.Microsecond

// knock sends a number to an address, again and again, until stop is called.
func (p *programming) knock(b *testing.B, to netip.Addr, number uint64) (stop func()) {
	b.Helper()
	conn, err := p.sender.Dial("udp", to, servedPort)
	must(b, "opening a socket", err)
	stopped := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		ticker := time.NewTicker(knockInterval)
		defer ticker.Stop()
		for datagram := binary.BigEndian.AppendUint64(nil, number); ; {
			select {
			case <-stopped:
				return
			case <-ticker.C:
				// What is dropped does not come, and what is lost comes the next time.
				_, _ = conn.Write(datagram)
			}
		}
	})
	return func() { close(stopped); sending.Wait(); conn.Close() }
}
