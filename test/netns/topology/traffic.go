package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a reply is waited for. Packets here take microseconds, but on a busy
// machine whoever is to answer may wait for its turn.
const patience = 10 * time.Second

// Serve answers TCP and UDP on a port of every address of the namespace: UDP
// datagrams with themselves, and each TCP connection first with the client's
// address in a line and then with what it sends. It ends with the test.
func (n *Namespace) Serve(t testing.TB, port uint16) {
	t.Helper()
	var listener net.Listener
	var packets *net.UDPConn
	n.Do(t, func() error {
		var err error
		if listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		if packets, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)}); err != nil {
			return err
		}
		return keepAll(packets)
	})
	t.Cleanup(func() { listener.Close(); packets.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, addrOf(conn.RemoteAddr()))
				io.Copy(conn, conn) //nolint:errcheck // the client sees what is missing
			}()
		}
	}()
	go func() {
		buffer := make([]byte, 65536)
		for {
			size, from, err := packets.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			packets.WriteToUDP(buffer[:size], from) //nolint:errcheck // the client sees what is missing
		}
	}()
}

func addrOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	return a.String()
}

// TCP connects to a server of Serve, and returns the address that the server saw,
// after size bytes were sent and came back. The zero source stands for any.
func (n *Namespace) TCP(to netip.Addr, port uint16, size int) (netip.Addr, error) {
	conn, err := n.Dial("tcp", to, port)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	deadline := patience
	if size > 1<<16 {
		deadline = 20 * time.Second
	}
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return netip.Addr{}, err
	}
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := conn.Read(one); err != nil {
			return netip.Addr{}, fmt.Errorf("read from %s: %w", to, err)
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	seen, err := netip.ParseAddr(string(line))
	if err != nil {
		return netip.Addr{}, err
	}
	return seen, echo(conn, size)
}

// echo sends size bytes and reads them back.
func echo(conn net.Conn, size int) error {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	got, err := io.CopyN(io.Discard, conn, int64(size))
	if err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", got, size, err)
	}
	return <-sent
}

// Dial opens a connection from the namespace. It stays there.
func (n *Namespace) Dial(network string, to netip.Addr, port uint16) (net.Conn, error) {
	var conn net.Conn
	err := n.Try(func() error {
		var err error
		dialer := net.Dialer{Timeout: patience}
		conn, err = dialer.Dial(network, hostPort(to, port))
		return err
	})
	return conn, err
}

// UDP sends a datagram of size bytes to a server of Serve, and waits for it to
// come back. The kernel may not fragment it (IP_MTU_DISCOVER is "do").
func (n *Namespace) UDP(to netip.Addr, port uint16, size int) error {
	conn, err := n.Dial("udp", to, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := dontFragment(conn.(*net.UDPConn), to.Is4()); err != nil {
		return err
	}
	return exchange(conn, size)
}

// exchange sends a datagram and reads it back.
func exchange(conn net.Conn, size int) error {
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	got, err := conn.Read(make([]byte, 65536))
	if err != nil {
		return err
	}
	if got != size {
		return fmt.Errorf("%d of %d bytes came back", got, size)
	}
	return nil
}

func dontFragment(conn *net.UDPConn, is4 bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if is4 {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
	})
	return errors.Join(err, failed)
}

// Ping sends an ICMP echo request and waits for its reply.
func (n *Namespace) Ping(to netip.Addr) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var conn net.Conn
	if err := n.Try(func() error {
		var err error
		conn, err = net.Dial(network, to.String())
		return err
	}); err != nil {
		return err
	}
	defer conn.Close()
	id := uint16(time.Now().UnixNano())
	message := make([]byte, 64)
	message[0] = request
	binary.BigEndian.PutUint16(message[4:], id)
	if to.Is4() {
		// Of ICMPv6 the kernel computes the checksum.
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("ping %s: %w", to, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for buffer := make([]byte, 1500); ; {
		size, err := conn.Read(buffer)
		if err != nil {
			return fmt.Errorf("ping %s: %w", to, err)
		}
		answer := buffer[:size]
		if to.Is4() && len(answer) > 20 {
			// Raw IPv4 sockets read the header too.
			answer = answer[int(answer[0]&0x0f)*4:]
		}
		if len(answer) >= 8 && answer[0] == reply && binary.BigEndian.Uint16(answer[4:]) == id {
			return nil
		}
	}
}

// checksum is that of RFC 1071.
func checksum(message []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Reaches says by which protocols a namespace does not reach a server of Serve.
func (n *Namespace) Reaches(to netip.Addr, port uint16) error {
	_, tcp := n.TCP(to, port, 1000)
	var all error
	for what, err := range map[string]error{"ping": n.Ping(to), "TCP": tcp, "UDP": n.UDP(to, port, 100)} {
		if err != nil {
			all = errors.Join(all, fmt.Errorf("%s does not reach %s by %s: %w", n.Name, to, what, err))
		}
	}
	return all
}

// Flow is a steady flow of small datagrams that come back.
type Flow struct {
	conn     net.Conn
	interval time.Duration
	stop     chan struct{}
	halt     sync.Once
	// sending and reading are goroutines.
	sending, reading sync.WaitGroup

	mu   sync.Mutex
	sent uint64
	seen map[uint64]bool
	// back is when datagrams came back.
	back []time.Time
}

// StartFlow sends a numbered datagram every interval to a server of Serve.
func (n *Namespace) StartFlow(t testing.TB, to netip.Addr, port uint16, interval time.Duration) *Flow {
	t.Helper()
	conn, err := n.Dial("udp", to, port)
	if err != nil {
		t.Fatal(err)
	}
	if err := keepAll(conn.(*net.UDPConn)); err != nil {
		t.Fatal(err)
	}
	f := &Flow{conn: conn, interval: interval, stop: make(chan struct{}), seen: map[uint64]bool{}}
	f.sending.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for number := uint64(1); ; number++ {
			select {
			case <-f.stop:
				return
			case <-ticker.C:
			}
			f.mu.Lock()
			f.sent = number
			f.mu.Unlock()
			//nolint:errcheck // what is not sent does not come back
			conn.Write(binary.BigEndian.AppendUint64(nil, number))
		}
	})
	f.reading.Go(func() {
		buffer := make([]byte, 1500)
		for {
			size, err := conn.Read(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && size == 8 {
				f.heard(binary.BigEndian.Uint64(buffer), time.Now())
			}
		}
	})
	return f
}

// StartControl starts a flow that no network carries: what stalls it is the machine.
func StartControl(t testing.TB, interval time.Duration) *Flow {
	t.Helper()
	n := NewNamespace(t, "control")
	n.Serve(t, controlPort)
	return n.StartFlow(t, netip.AddrFrom4([4]byte{127, 0, 0, 1}), controlPort, interval)
}

const controlPort = 9

// keepAll lets a socket hold what comes in while its reader waits for a processor.
func keepAll(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	return errors.Join(err, failed)
}

func (f *Flow) heard(number uint64, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[number] = true
	f.back = append(f.back, now)
}

// Await waits until so many more datagrams have come back.
func (f *Flow) Await(t testing.TB, more int) {
	t.Helper()
	_, before := f.counts()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, now := f.counts(); now >= before+uint64(more) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d datagrams did not come back within %s", more, patience)
		}
	}
}

func (f *Flow) counts() (sent, back uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent, uint64(len(f.seen))
}

// LongestGap returns between which times no datagram came back, for longest.
func (f *Flow) LongestGap(t testing.TB) (from, to time.Time) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.back) == 0 {
		t.Fatal("no datagram came back")
	}
	for i, at := range append(slices.Clone(f.back[1:]), time.Now()) {
		if at.Sub(f.back[i]) > to.Sub(from) {
			from, to = f.back[i], at
		}
	}
	return from, to
}

// Stalled returns for how long, between two times, a datagram was late.
func (f *Flow) Stalled(from, to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum time.Duration
	last := from
	for _, at := range append(slices.Clone(f.back), to) {
		if at.Before(from) || at.After(to) {
			continue
		}
		sum += max(0, at.Sub(last)-2*f.interval)
		last = at
	}
	return sum
}

// Close ends the flow.
func (f *Flow) Close() {
	f.silence()
	f.conn.Close()
	f.reading.Wait()
}

// silence ends the sending.
func (f *Flow) silence() {
	f.halt.Do(func() { close(f.stop) })
	f.sending.Wait()
}

// Stop ends the flow when all has come back, or what is missing will not, and returns how
// many datagrams were sent and how many came back.
func (f *Flow) Stop() (sent, back uint64) {
	f.silence()
	for deadline := time.Now().Add(patience / 4); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if sent, back = f.counts(); sent == back {
			break
		}
	}
	f.Close()
	return f.counts()
}
