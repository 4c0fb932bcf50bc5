package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// maxProbed bounds how many addresses a server tries for one request.
const maxProbed = 1024

// Server answers peers, and tries them when asked. The zero value is not usable: see Listen.
type Server struct {
	tcp net.Listener
	udp net.PacketConn
}

// Listen takes a port, of TCP and of UDP, on address, which may be empty for all. Port 0 takes a free one.
func Listen(ctx context.Context, address string, port uint16) (*Server, error) {
	var config net.ListenConfig
	tcp, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, fmt.Sprint(port)))
	if err != nil {
		return nil, fmt.Errorf("listen for TCP: %w", err)
	}
	bound := tcp.Addr().(*net.TCPAddr).Port
	udp, err := config.ListenPacket(ctx, "udp", net.JoinHostPort(address, fmt.Sprint(bound)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for UDP: %w", err), tcp.Close())
	}
	return &Server{tcp: tcp, udp: udp}, nil
}

// Port is the port that the server listens on.
func (s *Server) Port() uint16 { return uint16(s.tcp.Addr().(*net.TCPAddr).Port) }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathHealth, func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET "+pathBulk, serveBulk)
	mux.HandleFunc("POST "+pathProbe, s.serveProbe)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	done := make(chan error, 2)
	go func() { done <- s.echo() }()
	go func() { done <- server.Serve(s.tcp) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-done:
	}
	return errors.Join(err, server.Close(), s.udp.Close())
}

// echo sends every datagram back to where it came from.
func (s *Server) echo() error {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := s.udp.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("read datagrams: %w", err)
		}
		// An answer that cannot be sent is lost, as any datagram may be, and the peer says so.
		_, _ = s.udp.WriteTo(buffer[:n], from)
	}
}

func serveBulk(w http.ResponseWriter, _ *http.Request) {
	// Whoever asked notices that it did not get everything.
	_, _ = w.Write(make([]byte, bulkSize))
}

// serveProbe tries the addresses in the request's body, all at once.
func (s *Server) serveProbe(w http.ResponseWriter, r *http.Request) {
	var addrs []netip.Addr
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&addrs); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if len(addrs) > maxProbed {
		http.Error(w, fmt.Sprintf("%d addresses are more than %d", len(addrs), maxProbed), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The client sees a broken body as an error.
	_ = json.NewEncoder(w).Encode(probeAll(r.Context(), addrs, s.Port()))
}

// probeAll tries all addresses, and returns the results in their order. They are few at a time: what is measured is the
// path, and not this machine's load.
func probeAll(ctx context.Context, addrs []netip.Addr, port uint16) []Result {
	results := make([]Result, len(addrs))
	slots := make(chan struct{}, 4)
	var group sync.WaitGroup
	for i, addr := range addrs {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = Probe(ctx, netip.AddrPortFrom(addr, port))
		})
	}
	group.Wait()
	return results
}
