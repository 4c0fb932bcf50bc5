package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnet/podnet/test/netns/topology"
)

// connection is a TCP connection between two namespaces, of which this program has both
// ends. They are files that block: the kernel alone wakes who waits, and not Go's poller.
type connection struct{ client, server int }

// connect makes one, which ends with the benchmark.
func connect(b *testing.B, from, to *topology.Namespace, server netip.AddrPort) *connection {
	b.Helper()
	var listener net.Listener
	to.Do(b, func() (err error) { listener, err = net.Listen("tcp", server.String()); return err })
	defer listener.Close()
	client, err := from.Dial("tcp", server.Addr(), server.Port())
	must(b, "connecting to a pod", err)
	accepted, err := listener.Accept()
	must(b, "accepting a connection", err)
	c := &connection{client: blocking(b, client), server: blocking(b, accepted)}
	b.Cleanup(func() { unix.Close(c.client); unix.Close(c.server) })
	return c
}

// blocking takes a connection's file, which blocks, and closes the connection.
func blocking(b *testing.B, conn net.Conn) int {
	b.Helper()
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	must(b, "taking the file of a connection", err)
	fd := -1
	must(b, "taking the file of a connection", errors.Join(raw.Control(func(of uintptr) { fd, err = unix.Dup(int(of)) }), err))
	must(b, "letting a file block", unix.SetNonblock(fd, false))
	return fd
}

// roundTrip sends a byte there and back, again and again for a time, and returns how
// long one takes on average.
func (c *connection) roundTrip(b *testing.B, span time.Duration) (average time.Duration) {
	b.Helper()
	onOneProcessor(b, func() error {
		one, start := make([]byte, 1), time.Now()
		for count := 1; ; count++ {
			took := time.Since(start)
			if took >= span {
				average = took / time.Duration(count)
				one[0] = last
			}
			if _, err := unix.Write(c.client, one); err != nil {
				return fmt.Errorf("send a byte: %w", err)
			}
			if _, err := unix.Read(c.client, one); err != nil {
				return fmt.Errorf("wait for a byte: %w", err)
			}
			if one[0] == last {
				return nil
			}
		}
	}, func() error {
		for one := make([]byte, 1); ; {
			if _, err := unix.Read(c.server, one); err != nil {
				return fmt.Errorf("wait for a byte: %w", err)
			}
			if _, err := unix.Write(c.server, one); err != nil {
				return fmt.Errorf("send a byte back: %w", err)
			}
			if one[0] == last {
				return nil
			}
		}
	})
	return average
}

// last is the byte after which nothing comes.
const last = 1

// stream sends as much as it can for a time, and returns how many bits came in a second.
func (c *connection) stream(b *testing.B, span time.Duration) (rate float64) {
	b.Helper()
	start := time.Now()
	onOneProcessor(b, func() error {
		for chunk := make([]byte, 128<<10); ; {
			if time.Since(start) >= span {
				chunk[len(chunk)-1] = last
			}
			if _, err := unix.Write(c.client, chunk); err != nil {
				return fmt.Errorf("send a stream: %w", err)
			}
			if chunk[len(chunk)-1] == last {
				return nil
			}
		}
	}, func() error {
		received := 0
		for buffer := make([]byte, 512<<10); ; {
			n, err := unix.Read(c.server, buffer)
			if err != nil || n == 0 {
				return fmt.Errorf("receive a stream: %w", errors.Join(err, io.ErrUnexpectedEOF))
			}
			received += n
			if buffer[n-1] == last {
				rate = float64(received) * 8 / time.Since(start).Seconds()
				return nil
			}
		}
	})
	return rate
}

// onOneProcessor runs the two ends of a connection on one processor, so that what is
// measured is the work, and not how long another processor sleeps before it sees any.
func onOneProcessor(b *testing.B, ends ...func() error) {
	b.Helper()
	results := make(chan error, len(ends))
	for _, end := range ends {
		go func() {
			// The thread ends with the goroutine, as it is not unlocked.
			runtime.LockOSThread()
			if err := keepToOneProcessor(); err != nil {
				results <- fmt.Errorf("keep to one processor: %w", err)
				return
			}
			results <- end()
		}()
	}
	for range ends {
		must(b, "talking", <-results)
	}
}

// keepToOneProcessor lets the thread run on the first processor that it may run on.
func keepToOneProcessor() error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return err
	}
	first := 0
	for !may.IsSet(first) {
		first++
	}
	one.Set(first)
	return unix.SchedSetaffinity(0, &one)
}
